"""The house's rule of who may import whom, held against the sources."""

import ast
import sys
from pathlib import Path

import pytest

import sparkops

ROOT = Path(sparkops.__file__).parent

MAY = {
    "cli": {
        "checkpoints",
        "cli",
        "operate",
        "reconcile",
        "reports",
        "inventory",
        "models",
        "nodes",
        "core",
        "resources",
        "lint",
        "fit",
    },
    "operate": {"operate", "reconcile", "reports", "resources", "inventory", "models", "nodes", "core"},
    "reconcile": {"reconcile", "resources", "checkpoints", "nodes", "models", "inventory", "core"},
    "resources": {"resources", "checkpoints", "nodes", "models", "inventory", "core"},
    "lint": {"lint", "inventory", "models", "core"},
    "fit": {"fit", "inventory", "models", "core"},
    "checkpoints": {"checkpoints", "models", "core"},
    "nodes": {"nodes", "core"},
    "inventory": {"inventory", "models", "core"},
    "models": {"models", "core"},
    "reports": {"reports", "core"},
    "core": {"core"},
    "worker": {"worker"},
    "launcher": set(),
}
"""`cli` also names what it hands on to (inventory, nodes): it parses, calls and prints."""

WORKER_ALSO = {
    "sparkops.core.flatjson",
    "sparkops.core.frames",
    "sparkops.core.parts",
    "sparkops.core.quickjson",
    "sparkops.core.safetensors",
}


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT and "data" not in path.parts)


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.level == 0 else set()
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_folder_may(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    for name in imported(path):
        if not name.startswith("sparkops."):
            continue
        if folder == "worker" and any(name.startswith(each) for each in WORKER_ALSO):
            continue
        assert name.split(".")[1] in MAY[folder], f"{path.name} imports {name}"


@pytest.mark.parametrize("folder", ["worker", "launcher"])
def test_what_runs_on_a_node_needs_the_standard_library_only(folder: str) -> None:
    for path in [*(ROOT / folder).rglob("*.py"), ROOT / "core" / "frames.py"]:
        for name in imported(path):
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or top == "sparkops", f"{path.name} imports {name}"


def test_the_nodes_know_the_worker_only_as_bytes() -> None:
    for path in (ROOT / "nodes").glob("*.py"):
        assert not any(name.startswith(("sparkops.worker", "sparkops.launcher")) for name in imported(path)), path
