"""The worker as bytes: the program that is sent to a node, with only the kinds in use.

It must not import the worker: it reads its sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import CodeType

PACKAGE = Path(__file__).resolve().parent.parent
ALWAYS = ("sparkops.worker.main", "sparkops.worker.requests.lock", "sparkops.worker.requests.jobs")
ROOMS = ("kinds", "requests")
"""The worker's folders in which a kind, or what is called like one, has its module."""
KIND_GROUP = "sparkops.worker_kinds"
_IMPORT = re.compile(r"^[ ]*(?:from (sparkops[\w.]*) import (\([^)]*\)|[^\n]*)|import (sparkops[\w.]+))", re.M)


@cache
def _builder() -> dict[str, object]:
    """The names of `programs/bundle.py`, run from its text: how a program is put together is told in one place."""
    space: dict[str, object] = {"__name__": "bundle"}
    code: CodeType = compile((PACKAGE / "programs" / "bundle.py").read_text(), "bundle", "exec")
    exec(code, space)
    return space


@cache
def worker_halves() -> dict[str, str]:
    """The worker halves that installed packages bring: kind → module."""
    import importlib.metadata  # it loads `email` and `zipfile`, and most runs have none of them

    return {entry.name: entry.value for entry in importlib.metadata.entry_points(group=KIND_GROUP)}


@cache
def source(module: str) -> str:
    """The text of a module of ours, or of the worker half of a third party's kind. Raises KeyError."""
    parts = module.split(".")[1:]
    for path in (PACKAGE.joinpath(*parts).with_suffix(".py"), PACKAGE.joinpath(*parts, "__init__.py")):
        if path.is_file():
            return path.read_text()
    if parts[:2] == ["worker", "kinds"] and len(parts) == 3 and parts[2] in (halves := worker_halves()):
        import importlib.util

        spec = importlib.util.find_spec(halves[parts[2]])
        if spec is not None and spec.origin:
            return Path(spec.origin).read_text()
    raise KeyError(module)


@cache
def _imports(module: str) -> tuple[str, ...]:
    """The modules of ours that a module names in its import statements, wherever they stand."""
    found: list[str] = []
    for package, names, plain in _IMPORT.findall(source(module)):
        found += [plain] if plain else [package, *(f"{package}.{name}" for name in re.findall(r"\w+", names))]
    return tuple(name for name in found if _exists(name))


def _exists(module: str) -> bool:
    try:
        source(module)
    except KeyError:
        return False
    return True


@cache
def program(kinds: frozenset[str]) -> bytes:
    """The worker for these kinds: sources of the modules they need and nothing else, compressed."""
    wanted: list[str] = [
        "sparkops",
        *ALWAYS,
        *(f"sparkops.worker.{room}.{kind}" for room in ROOMS for kind in sorted(kinds)),
    ]
    sources: dict[str, str] = {}
    while wanted:
        module = wanted.pop()
        if module in sources or not _exists(module):
            continue
        sources[module] = source(module)
        wanted += _imports(module)
        if "." in module:
            wanted.append(module.rpartition(".")[0])
    build = _builder()["build"]
    built = build(sources, "sparkops.worker.main", "main")  # type: ignore[operator]
    assert isinstance(built, bytes)
    return built


def kinds_bundle(kinds: Iterable[str]) -> bytes:
    """`program` for any iterable of kind names."""
    return program(frozenset(kinds))
