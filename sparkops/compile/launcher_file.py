"""The launcher as the one file that is copied to a node: its modules one after the other, as they are written.

What they import of each other stands in the same file then; what they import of the standard library is imported once.
"""

from __future__ import annotations

import ast
from functools import cache

from sparkops.core import data

MODULES = ("ending", "systemd", "docker", "container_body", "api", "node", "launcher")
"""In the order in which their names are needed; the last one is the program."""


@cache
def launcher_file() -> str:
    """Its text."""
    imports: set[str] = set()
    bodies: list[str] = []
    docstring = ""
    for name in MODULES:
        path = f"programs/launch/{name}.py"
        text = data.module_text(path)
        tree = ast.parse(text)
        head = [each for each in tree.body if isinstance(each, (ast.Import, ast.ImportFrom))]
        lines = [ast.unparse(each) for each in head]
        imports |= {line for line in lines if not line.startswith("from sparkops.")}
        docstring = ast.get_docstring(tree, clean=False) or ""
        body = text.splitlines()[(head or tree.body)[-1 if head else 0].end_lineno :]
        bodies.append(f"# sparkops/{path}\n\n" + "\n".join(body).strip("\n"))
    ordered = sorted(imports, key=lambda line: (line.startswith("from "), line))
    return "\n\n\n".join(['"""' + docstring + '"""\n\n' + "\n".join(ordered), *bodies]) + "\n"
