"""Steps begin when what they need is done and their node has a free slot, and none before; by a run's own event log."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkops.cli.app import run as command
from sparkops.core.events import Event, StepFinished, StepStarted
from sparkops.core.plan import Step
from sparkops.core.report import Report
from sparkops.core.states import Observed
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.load import load
from sparkops.inventory.secrets import Secrets
from sparkops.nodes.session import Session
from sparkops.reconcile import schedule
from sparkops.reconcile.planning import RunOptions
from sparkops.reconcile.run import run
from sparkops.reconcile.schedule import PER_NODE
from sparkops.resources.command import Command
from sparkops.resources.file import File
from sparkops.resources.resource import Resource
from sparkops.runs import store
from tests.in_process import InProcess
from tests.lags import lags, oversleeping

LAG = 0.25
"""Seconds for which a step may wait though nothing keeps it."""
NODES = ("a", "b", "c")


def inventory(folder: Path, nodes: tuple[str, ...] = NODES) -> Inventory:
    path = folder / "inventory.yml"
    names = ", ".join(f"{name}: {{connection: {{state_dir: {folder}/{name}-state}}}}" for name in nodes)
    path.write_text(
        f"version: 1\ncluster: c\nconnection: local\nnodes: {{{names}}}\n"
        "accept: [{id: machine-with-two-names, reason: threads of one process}]\n"
    )
    return load(path)


def applied(
    folder: Path, resources: list[Resource], listen: Callable[[Event], None] = lambda event: None, **more: Any
) -> tuple[Report, list[Event]]:
    """The report of an apply of these resources, and its events in their order."""
    log: list[Event] = []

    def listener(event: Event) -> None:
        log.append(event)
        listen(event)

    options = RunOptions(
        command="apply",
        inventory=inventory(folder),
        connections=InProcess(),
        secrets=Secrets(),
        agree=lambda report: True,
        listener=listener,
        **more,
    )
    return run(resources, options), log


def most_at_once(steps: dict[str, Step], log: list[Event]) -> int:
    """The most steps of one node that ran at one time."""
    running: Counter[str] = Counter()
    most = 0
    for each in log:
        if isinstance(each, StepStarted):
            running[each.node] += 1
            most = max(most, running[each.node])
        elif isinstance(each, StepFinished) and steps[each.id].id in started(log):
            running[each.node] -= 1
    return most


def started(log: list[Event]) -> set[str]:
    return {each.id for each in log if isinstance(each, StepStarted)}


def tangle(folder: Path, size: int, chance: random.Random, broken: int | None = None) -> list[Resource]:
    """Files over all nodes, each after some of those before it; one in four takes a while, and one may fail."""
    made: list[Resource] = []
    for number in range(size):
        node = chance.choice(NODES)
        after = tuple(each.id for each in chance.sample(made, min(len(made), chance.randint(0, 3))))
        name = str(folder / f"{node}-{number}")
        if number == broken:
            made.append(File(node=node, name=str(folder / "inventory.yml" / "below-a-file"), content="x", after=after))
        elif chance.random() < 0.25:
            argv = ("sh", "-c", f"sleep 0.02; touch {name}")
            made.append(Command(node=node, name=f"c{number}", check=("test", "-e", name), run=argv, after=after))
        else:
            made.append(File(node=node, name=name, content="x", after=after))
    return made


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 60), st.integers(0, 2**32).map(random.Random), st.booleans())
def test_every_step_begins_after_what_it_needs_once_and_without_a_pause(
    tmp_path_factory: pytest.TempPathFactory, size: int, chance: random.Random, fails: bool
) -> None:
    folder = tmp_path_factory.mktemp("tangle")
    broken = chance.randrange(size) if fails else None
    with oversleeping() as late:
        report, log = applied(folder, tangle(folder, size, chance, broken))
    steps = {step.id: step for step in report.plan.steps}
    places = [(type(each), each.id) for each in log if isinstance(each, (StepStarted, StepFinished))]
    assert len(places) == len(set(places)), "each begins and ends once"
    assert {id for kind, id in places if kind is StepFinished} == steps.keys()
    for id in started(log):
        for need in steps[id].needs:
            assert places.index((StepFinished, need)) < places.index((StepStarted, id))
    outcomes = {each.id: each.outcome for each in report.results}
    for id, step in steps.items():
        below = [outcomes[need] for need in step.needs]
        assert (id in started(log)) == all(each == "done" for each in below)
    assert most_at_once(steps, log) <= PER_NODE
    longest = max(lags(steps.values(), log).values(), default=0.0)
    print(f"{len(steps)} steps, the longest wait {longest:.3f} s (the machine woke {late[0]:.3f} s late)")
    assert longest <= LAG + 2 * late[0]


def test_a_stop_lets_what_runs_come_to_its_end_and_begins_nothing(tmp_path: Path) -> None:
    stop = threading.Event()
    resources = tangle(tmp_path, 40, random.Random(1))

    def listen(event: Event) -> None:
        if isinstance(event, StepFinished):
            stop.set()

    report, log = applied(tmp_path, resources, listen, stop=stop)
    outcomes = Counter(each.outcome for each in report.results)
    assert sum(outcomes.values()) == len(report.plan.steps)
    assert outcomes["done"] == len(started(log)) < len(report.plan.steps)
    assert report.interrupted


class Moving(File):
    """A file that somebody changes so many times between a look and the act on it."""

    def converge(self, session: Session, step: Step) -> Generator[Mapping[str, object], None, Observed]:
        moves = Path(self.name).with_suffix(".moves")
        left = int(moves.read_text())
        if left:
            moves.write_text(str(left - 1))
            return self.converged_to({"found": {"type": "file", "content": "sha256:0"}, "changed": ["content"]})
        return (yield from super().converge(session, step))


@pytest.mark.parametrize(("moves", "outcome"), [(0, "done"), (1, "done"), (3, "done"), (99, "unknown")])
def test_what_moves_while_it_is_looked_at_is_compared_anew_and_never_said_to_have_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int, outcome: str
) -> None:
    """Of an engine it would mean that what is declared failed, though it was never tried: brought back, and held."""
    monkeypatch.setattr(schedule, "SETTLING", 0.01)
    (tmp_path / "f.moves").write_text(str(moves))
    (tmp_path / "f").write_text("old")
    report, _ = applied(tmp_path, [Moving(node="a", name=str(tmp_path / "f"), content="x")])
    assert [each.outcome for each in report.results] == [outcome]
    assert (tmp_path / "f").read_text() == ("x" if outcome == "done" else "old")


def test_by_the_log_of_a_kept_run_no_step_of_an_apply_waits_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    things = "".join(f"  - file: {tmp_path}/{{{{ node.name }}}}-{n}\n    content: x\n" for n in range(12))
    role = tmp_path / "roles" / "own" / "role.yml"
    role.parent.mkdir(parents=True)
    role.write_text(f"summary: files\nscope: node\nresources:\n{things}")
    path = inventory(tmp_path).path
    path.write_text(path.read_text().replace("connection: local", "connection: local\nroles: [own]"))
    with oversleeping() as late:
        assert command(["apply", str(path), "--role", "own", "--yes"]) == 0
    capsys.readouterr()
    assert command(["report", "--events"]) == 0
    sorts = {"StepStarted": StepStarted, "StepFinished": StepFinished}
    log: list[Event] = []
    for line in capsys.readouterr().out.splitlines():
        told = json.loads(line)
        if kind := sorts.get(told.pop("event")):
            log.append(kind(**told))
    body = store.find("").body
    assert body is not None
    steps = [step_of(told) for told in body["steps"]]
    found = lags(steps, log)
    print(f"{len(found)} steps of 3 nodes, the longest wait {max(found.values()):.3f} s")
    assert len(found) == 36
    assert max(found.values()) <= LAG + 2 * late[0]


def step_of(told: dict[str, Any]) -> Step:
    fields = {key: value for key, value in told.items() if key != "blocked"}
    return Step(**{**fields, "changes": tuple(told["changes"]), "needs": tuple(told["needs"])})
