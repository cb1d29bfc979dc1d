"""The launcher as the one file that is copied to a node: its modules one after the other, as they are written.

What they import of each other stands in the same file then; what they import of the standard library is imported once.
"""

from __future__ import annotations

import ast
from functools import cache

from sparkops.core import data

MODULES = (
    *("core/deadline", "programs/connections", "programs/checkpoints/proof"),
    *(f"programs/launch/{name}" for name in ("systemd", "docker", "container_body", "listening", "hang", "api")),
    *(f"programs/launch/{name}" for name in ("rdma", "node", "group", "ranks", "launcher")),
)
"""In the order in which their names are needed; the last one is the program."""


@cache
def launcher_file() -> str:
    """Its text. A module is its docstring, its imports, and the rest."""
    imports: set[str] = set()
    bodies: list[str] = []
    docstring = ""
    for name in MODULES:
        path = f"{name}.py"
        text = data.module_text(path)
        module = ast.parse(text)
        docstring = ast.get_docstring(module, clean=False) or ""
        head = [each for each in module.body if isinstance(each, (ast.Import, ast.ImportFrom))]
        ours = [each for each in head if isinstance(each, ast.ImportFrom) and str(each.module).startswith("sparkops.")]
        imports |= {ast.unparse(each) for each in head if each not in ours}
        last = max((each.end_lineno or 0 for each in head), default=module.body[0].end_lineno or 0)
        bodies.append(f"# sparkops/{path}\n\n" + "\n".join(text.splitlines()[last:]).lstrip("\n"))
    ordered = sorted(imports, key=lambda line: (line.startswith("from "), line))
    return "\n\n\n".join(['"""' + docstring + '"""\n\n' + "\n".join(ordered), *bodies]) + "\n"
