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
from sparkops.inventory.secrets import Secrets
from sparkops.nodes import bundle
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import Passwords
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
        text: str = ""
        state: str = "present"

        def ask(self):
            return {"path": self.name}

        def desired(self):
            return None if self.state == "absent" else {"text": self.text}
    """
WORKER = """
    import os


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
        "boards/control.py": dedent(CONTROL),
        "boards/worker.py": dedent(WORKER),
        "boards-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: boards\nVersion: 1.0\n",
        "boards-1.0.dist-info/entry_points.txt": (
            "[sparkops.kinds]\nboard = boards.control:Board\n[sparkops.worker_kinds]\nboard = boards.worker\n"
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

    def run(self, command: Command, *boards: str, prune: bool = False) -> Report:
        entries = ", ".join(f"{{board: {self.folder / name}, text: hello}}" for name in boards)
        self.project.role("own", f"summary: boards\nscope: node\nresources: [{entries}]\n")
        inventory = self.project.load(
            "version: 1\ncluster: test\nroles: [own]\n"
            f"connection: {{type: local, become: false, state_dir: {self.folder / 'state'}}}\nnodes: {{here: }}\n"
        )
        compiled = compile_inventory(inventory)
        options = RunOptions(
            command=command,
            inventory=inventory,
            connections=Connections(Passwords()),
            secrets=Secrets(),
            title=command,
            agree=(lambda report: True) if command == "apply" else None,
            prune=prune,
            whole=compiled.all_nodes,
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
    assert (orphan.kind, orphan.name, orphan.kept) == ("board", str(second), "")
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
    assert "the kind board is not installed here" in orphan.kept
    assert (tmp_path / "first").exists()
