"""The house's rule of who may import whom, held against the sources."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

import sparkops

ROOT = Path(sparkops.__file__).parent

MAY = {
    "watching": {"compile", "library", "reconcile", "reports"},
    "cli": {
        "library",
        "watching",
        "checkpoints",
        "compile",
        "core",
        "fit",
        "importing",
        "inventory",
        "lint",
        "models",
        "nodes",
        "operate",
        "proposing",
        "reconcile",
        "reports",
        "resources",
        "runs",
    },
    "operate": {
        "checkpoints",
        "compile",
        "fit",
        "importing",
        "inventory",
        "lint",
        "models",
        "nodes",
        "programs",
        "reconcile",
        "resources",
        "runs",
    },
    "importing": {"inventory", "models"},
    "proposing": {"fit", "importing", "lint", "models"},
    "reports": {"checkpoints", "fit", "lint", "operate", "resources", "runs"},
    "runs": set(),
    "reconcile": {"checkpoints", "compile", "inventory", "models", "nodes", "resources"},
    "compile": {"inventory", "models", "resources"},
    "resources": {"checkpoints", "inventory", "models", "nodes"},
    "lint": {"inventory", "models"},
    "fit": {"inventory", "lint", "models"},
    "checkpoints": {"models", "safetensors"},
    "nodes": set(),
    "inventory": {"models"},
    "models": {"safetensors"},
    "core": set(),
    "safetensors": set(),
    "worker": {"programs", "safetensors"},
    "programs": {"safetensors", "worker"},
}
"""What a folder may import beside itself and `core`. `cli` also names what it hands on to: it parses, calls, prints."""

ON_NODES = ("worker", "programs", "safetensors")
ON_NODES_FROM_CORE = {
    f"sparkops.core.{name}"
    for name in (
        *("atomic", "deadline", "descriptors", "frames", "group_keys", "kind_messages", "messages", "process_group"),
        *("request_messages", "system_places"),
    )
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
        assert name.split(".")[1] in {folder, "core", *MAY[folder]}, f"{path.name} imports {name}"


@pytest.mark.parametrize("folder", ON_NODES)
def test_of_ours_what_runs_on_a_node_takes_few_modules_from_core_and_nothing_else(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        from_core = {name for name in imported(path) if name.startswith("sparkops.core")}
        assert {".".join(name.split(".")[:3]) for name in from_core} <= ON_NODES_FROM_CORE, path


@pytest.mark.parametrize("folder", ON_NODES)
def test_what_runs_on_a_node_needs_the_standard_library_only(folder: str) -> None:
    from_core = [ROOT.parent / f"{name.replace('.', '/')}.py" for name in ON_NODES_FROM_CORE]
    for path in [*(ROOT / folder).rglob("*.py"), *from_core]:
        for name in imported(path):
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or top == "sparkops", f"{path.name} imports {name}"


def test_the_nodes_know_the_worker_only_as_bytes() -> None:
    for path in (ROOT / "nodes").rglob("*.py"):
        assert not any(name.startswith(("sparkops.worker", "sparkops.programs")) for name in imported(path)), path


def test_no_circle_of_imports() -> None:
    """Imports inside functions and for type checkers count too."""
    names = {".".join(("sparkops", *path.relative_to(ROOT).with_suffix("").parts)): path for path in ROOT.rglob("*.py")}
    paths = {name.removesuffix(".__init__"): path for name, path in names.items() if "sparkops.data." not in name}
    order: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for name, path in paths.items():
        order.add(name, *(each for each in ours(path, paths) if each != name))
    try:
        order.prepare()
    except graphlib.CycleError as error:
        pytest.fail(" ← ".join(error.args[1]))


def ours(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a module imports: `from a import b` is `a.b` where that is a module, else `a`."""
    return {each if each in known else each.rpartition(".")[0] for each in imported(path)} & known.keys()
