"""The launcher as the one file that is copied to a node: its modules one after the other, as they are written.

What they import of each other stands in the same file then; what they import of the standard library is imported once.
"""

from __future__ import annotations

from functools import cache
from itertools import takewhile

from sparkops.core import data

MODULES = ("ending", "systemd", "docker", "container_body", "api", "node", "launcher")
"""In the order in which their names are needed; the last one is the program."""


@cache
def launcher_file() -> str:
    """Its text. A module is its docstring, its imports of one line each, and the rest."""
    imports: set[str] = set()
    bodies: list[str] = []
    docstring = ""
    for name in MODULES:
        path = f"programs/launch/{name}.py"
        _, docstring, rest = data.module_text(path).split('"""', 2)
        lines = rest.splitlines()
        head = list(takewhile(lambda line: not line or line.startswith(("import ", "from ")), lines))
        imports |= {line for line in head if line and not line.startswith("from sparkops.")}
        bodies.append(f"# sparkops/{path}\n\n" + "\n".join(lines[len(head) :]))
    ordered = sorted(imports, key=lambda line: (line.startswith("from "), line))
    return "\n\n\n".join(['"""' + docstring + '"""\n\n' + "\n".join(ordered), *bodies]) + "\n"
