"""A kind of an installed package: planned, applied, seen to drift and pruned, on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from sparkops import resources
from sparkops.compile.compiler import compile_inventory
from sparkops.core.report import Command, Report
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.secrets import Secrets
from sparkops.nodes import bundle
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import Passwords
from sparkops.operate import gc
from sparkops.operate.connect import Context, reach
from sparkops.reconcile.history import KIND as HISTORY
from sparkops.reconcile.planning import RunOptions
from sparkops.reconcile.run import run
from tests.unit.inventory.project import Project

CONTROL = """
    from dataclasses import dataclass
    from typing import ClassVar

    from sparkops.resources.resource import Resource


    @dataclass(frozen=True, kw_only=True)
    class Board(Resource):
        kind: ClassVar[str] = "board"
        prune: ClassVar[str] = "remove"

        def uses(self):
            return {"boards": [self.name]}

        text: str = ""
        state: str = "present"

        def ask(self):
            return {"path": self.name}

        def desired(self):
            return None if self.state == "absent" else {"text": self.text}
    """
COLLECTED = """

    @dataclass(frozen=True, kw_only=True)
    class Shelf(Board):
        kind: ClassVar[str] = "shelf"
        prune: ClassVar[str] = "collect"
    """
WORKER = """
    import os

    from sparkops.worker.reclaiming.items import DECLARED, item


    def reclaimable(look):
        claimed = [key.partition(" ")[2] for key in look.mine if key.startswith("shelf ")]
        kept = {name: DECLARED if name in look.needs("boards") else None for name in claimed}
        return [item("shelf", name, 5, kept[name], by="shelf", claims=["shelf"]) for name in claimed]


    def reclaim(state_dir, given):
        os.unlink(given["name"])


    def observe(ask):
        try:
            with open(ask["path"]) as file:
                return {"text": file.read()}
        except FileNotFoundError:
            return None


    def converge(call, ask, found, want, act):
        if want is None:
            os.unlink(ask["path"])
            return
        with open(ask["path"], "w") as file:
            file.write(want["text"])
    """


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution with both halves of the kind `board`, as pip would have put it there."""
    site = tmp_path / "site"
    files = {
        "boards/__init__.py": "",
        "boards/control.py": dedent(CONTROL) + dedent(COLLECTED),
        "boards/worker.py": dedent(WORKER),
        "boards-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: boards\nVersion: 1.0\n",
        "boards-1.0.dist-info/entry_points.txt": (
            "[sparkops.kinds]\nboard = boards.control:Board\nshelf = boards.control:Shelf\n"
            "[sparkops.worker_kinds]\nboard = boards.worker\nshelf = boards.worker\n"
        ),
    }
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    monkeypatch.syspath_prepend(str(site))
    caches = (resources.names, resources.kind, bundle.source, bundle.worker_halves, bundle.program)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "boards"]:
        del sys.modules[name]


class Site:
    """An inventory of this machine with a role that declares boards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = Project(folder)

    def declared(self, *names: str, kind: str = "board") -> Inventory:
        entries = ", ".join(f"{{{kind}: {self.folder / name}, text: hello}}" for name in names)
        self.project.role("own", f"summary: boards\nscope: node\nresources: [{entries}]\n")
        return self.project.load(
            "version: 1\ncluster: test\nroles: [own]\n"
            f"connection: {{type: local, become: false, state_dir: {self.folder / 'state'}}}\nnodes: {{here: }}\n"
        )

    def run(self, command: Command, *names: str, kind: str = "board", prune: bool = False) -> Report:
        inventory = self.declared(*names, kind=kind)
        compiled = compile_inventory(inventory)
        options = RunOptions(
            command=command,
            inventory=inventory,
            connections=Connections(Passwords()),
            secrets=Secrets(),
            title=command,
            agree=(lambda report: True) if command == "apply" else None,
            prune=prune,
            whole=compiled.whole,
        )
        return run(compiled.resources, options)


@pytest.mark.usefixtures("installed")
def test_a_kind_of_another_package_is_planned_applied_seen_to_drift_and_pruned(tmp_path: Path) -> None:
    site = Site(tmp_path)
    first, second = tmp_path / "first", tmp_path / "second"
    (one, two) = site.run("plan", "first", "second").plan.steps
    assert (one.action, one.kind, two.action) == ("create", "board", "create")
    assert not first.exists()

    assert {result.outcome for result in site.run("apply", "first", "second").results} == {"done"}
    assert first.read_text() == second.read_text() == "hello"
    assert site.run("drift", "first", "second").exit_status == 0

    first.write_text("other")
    (step,) = site.run("drift", "first", "second").plan.steps
    assert (step.action, step.changes) == ("update", ("text",))
    site.run("apply", "first", "second")

    (orphan,) = site.run("drift", "first").plan.orphans
    assert (orphan.kind, orphan.name, orphan.kept) == ("board", str(second), None)
    site.run("apply", "first")
    assert second.exists()
    site.run("apply", "first", prune=True)
    assert not second.exists()
    assert site.run("drift", "first").exit_status == 0
    assert first.read_text() == "hello"


@pytest.mark.usefixtures("installed")
def test_what_a_package_that_was_taken_away_had_made_is_named_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path)
    site.run("apply", "first")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path / "site")])
    for cached in (resources.names, resources.kind, bundle.source, bundle.worker_halves):
        cached.cache_clear()
    report = site.run("apply", prune=True)
    (orphan,) = report.plan.orphans
    assert orphan.kept and orphan.kept.id == "orphan-kind-not-installed"
    assert (tmp_path / "first").exists()


@pytest.mark.usefixtures("installed")
def test_what_a_kind_of_another_package_leaves_for_gc_is_listed_and_removed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    used, unused = str(tmp_path / "used"), str(tmp_path / "unused")
    assert site.run("apply", "used", "unused", kind="shelf").exit_status == 0
    inventory = site.declared("used", kind="shelf")
    context = Context(inventory=inventory, connections=Connections(Passwords()))
    with reach(context, ["here"], [gc.KIND, HISTORY, "shelf"]) as fleet:
        found = gc.look(fleet, inventory, ["here"], ["shelf"])
        assert {item.name: item.kept and item.kept.id for item in found.items} == {used: "gc-declared", unused: None}
        removed = gc.remove(fleet, inventory, found)
        assert [(item.name, left) for item, left in removed.outcomes.items()] == [(unused, None)]
        assert [item.name for item in gc.look(fleet, inventory, ["here"], ["shelf"]).items] == [used]
    assert (tmp_path / "used").exists() and not (tmp_path / "unused").exists()
