"""Every call that the controller makes is one that the worker answers."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

import sparkops
from sparkops.worker.calls import kind

ROOT = Path(sparkops.__file__).parent
METHODS = ("call", "stream", "send", "channel")


def called() -> list[str]:
    """The names of calls that the controller's half writes out."""
    found = set()
    for path in ROOT.rglob("*.py"):
        if path.relative_to(ROOT).parts[0] in ("worker", "programs"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
                first = node.args[0] if node.args else None
                if isinstance(first, ast.Constant) and isinstance(first.value, str) and "." in first.value:
                    found.add(first.value)
    return sorted(found)


@pytest.mark.parametrize("name", called())
def test_the_worker_answers(name: str) -> None:
    module, _, function = name.partition(".")
    assert function in kind(module).CALLS


def test_what_passes_on_between_nodes_brings_its_calls_along() -> None:
    for name in ("checkpoint", "built_checkpoint", "image"):
        text = (ROOT / "worker" / "kinds" / f"{name}.py").read_text()
        assert "requests import transfer" in text, name
        assert import_module(f"sparkops.worker.kinds.{name}").CALLS.keys() >= {"relay", "running"}
