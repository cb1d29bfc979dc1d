"""The worker as bytes: the program that is sent to a node, with only the kinds in use.

It must not import the worker: it reads its sources.
"""

from __future__ import annotations

import os
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
_NAMED = re.compile(r"\"(sparkops\.(?:worker|programs)(?:\.\w+)+)\"")


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
def _modules() -> dict[str, str]:
    """The paths of this package's modules by their full names; listed once, which is cheaper than to try every name."""
    found: dict[str, str] = {}
    for folder, _, names in os.walk(PACKAGE):
        package = "sparkops" + folder[len(str(PACKAGE)) :].replace("/", ".")
        for name in names:
            if name.endswith(".py"):
                found[f"{package}.{name.removesuffix('.py')}".removesuffix(".__init__")] = f"{folder}/{name}"
    return found


def _path(module: str) -> str | None:
    """Where a module of ours stands, or the worker half of a third party's kind; None where there is none."""
    room, _, kind = module.rpartition(".")
    if module in _modules() or room != "sparkops.worker.kinds" or f"sparkops.worker.requests.{kind}" in _modules():
        return _modules().get(module)
    if kind not in (halves := worker_halves()):
        return None
    import importlib.util

    spec = importlib.util.find_spec(halves[kind])
    return spec.origin if spec is not None else None


@cache
def source(module: str) -> str:
    """The text of a module that the worker may need. Raises KeyError."""
    path = _path(module)
    if path is None:
        raise KeyError(module)
    return Path(path).read_text(encoding="utf-8")


@cache
def _imports(module: str) -> tuple[str, ...]:
    """The modules of ours that a module imports, wherever that stands, or names in a string: what a job runs."""
    found: list[str] = _NAMED.findall(source(module))
    for package, names, plain in _IMPORT.findall(source(module)):
        found += [plain] if plain else [package, *(f"{package}.{name}" for name in re.findall(r"\w+", names))]
    return tuple(name for name in found if _path(name) is not None)


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
        if module in sources or _path(module) is None:
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
