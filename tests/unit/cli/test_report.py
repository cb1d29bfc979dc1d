"""`report`, `drift --since`, `history --runs`: kept runs by the command line; no node is asked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparkops.cli import app
from sparkops.core.events import StepProgress
from sparkops.core.plan import Plan
from sparkops.core.report import Report
from sparkops.reports.record import Record
from tests.unit.reports.made import declared, step

Run = Callable[..., tuple[int, str, str]]
MOVED = step("file /etc/motd @a", "a")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inventory.yml").write_text("version: 1\ncluster: attic\nnodes: {a: {host: 192.0.2.1}}\n")

    def command(*words: str) -> tuple[int, str, str]:
        status = app.run(list(words))
        out, err = capsys.readouterr()
        return status, out, err

    return command


def kept(*steps: Any, at: float | None = None, command: Any = "drift") -> str:
    things = tuple(declared("a"))
    plan = Plan(steps=steps, declared=things, nodes=("a",), total=1)
    made = Report(command=command, cluster="attic", inventory="i", plan=plan, time=at or time.time(), whole=True)
    return Record("attic", command).finish(made).run


def test_a_kept_run_is_shown_again_with_its_own_status(run: Run, tmp_path: Path) -> None:
    kept()
    name = kept(MOVED)
    status, out, _ = run("report", "--report", f"html={tmp_path / 'a.html'}")
    assert (status, "~ file /etc/motd" in out, "the node moved" in out) == (2, True, True)
    assert name in (tmp_path / "a.html").read_text()
    status, out, _ = run("report", name, "--format", "json")
    assert json.loads(out)["findings"][0]["origin"] == "corrective"


def test_the_events_of_a_run_are_printed(run: Run) -> None:
    record = Record.begin("attic", "apply")
    record.write(StepProgress(node="a", id="x", text="half"))
    status, out, _ = run("report", record.run, "--events")
    assert (status, json.loads(out)["text"]) == (0, "half")
    status, _, err = run("report", record.run)
    assert (status, "error[run-did-not-end]" in err) == (1, True)


def test_two_runs_are_compared(run: Run) -> None:
    first, second = kept(), kept(MOVED)
    assert run("report", "diff", first, first)[0] == 0
    status, out, _ = run("report", "diff", first, second, "--format", "json")
    told = json.loads(out)
    assert (status, [each["resource"] for each in told["came"]], told["went"]) == (2, [MOVED.id], [])
    for words in (["--format", "html"], ["--report", "html=x.html"], ["-o", "x"], ["--events"]):
        assert run("report", "diff", first, second, *words)[0] == 1, "nothing is left out silently"
    status, out, _ = run("report", "diff", second, first)
    assert out.startswith("- file /etc/motd @a is there and differs")


def test_runs_that_looked_at_different_things_are_not_called_the_same(run: Run) -> None:
    def look(cluster: str, *nodes: str) -> str:
        plan = Plan(declared=tuple(declared(*nodes)), nodes=nodes, total=len(nodes))
        made = Report(command="drift", cluster=cluster, inventory="i", plan=plan, time=time.time(), whole=True)
        return Record(cluster, "drift").finish(made).run

    one, both, other = look("attic", "a"), look("attic", "a", "b"), look("cellar", "a")
    status, out, _ = run("report", "diff", one, both)
    assert (status, "file /etc/motd @b" in out) == (3, True)
    status, _, err = run("report", "diff", one, other)
    assert (status, "error[runs-of-two-clusters]" in err, "cellar" in err) == (1, True, True)


def test_what_was_found_on_a_node_that_left_the_inventory_is_told_for_as_long_as_it_was_seen(
    run: Run, tmp_path: Path
) -> None:
    """No run looks at it again, so that none ends what was found there."""
    kept(MOVED, at=time.time() - 10 * 86_400)
    plan = Plan(declared=tuple(declared("b")), nodes=("b",), total=1)
    Record("attic", "drift").finish(
        Report(command="drift", cluster="attic", inventory="i", plan=plan, time=time.time())
    )
    assert "/etc/motd" in run("drift", "--since", "7d")[1], "nobody has seen its end"
    (tmp_path / "inventory.yml").write_text("version: 1\ncluster: attic\nnodes: {b: }\n")
    assert "/etc/motd" in run("drift", "--since", "11d")[1]
    assert "/etc/motd" not in run("drift", "--since", "7d")[1]


def test_since_tells_what_stood_and_what_went(run: Run) -> None:
    status, out, _ = run("drift", "--since", "7d")
    assert (status, "nothing is known" in out) == (3, True)
    first = kept(MOVED)
    status, out, _ = run("drift", "--since", "7d")
    assert (status, first in out, "last seen" in out) == (2, True, True)
    kept()
    status, out, _ = run("drift", "--since", "7d", "--format", "json")
    (found,) = json.loads(out)["findings"]
    assert (status, found["id"], found["closed"] is None) == (2, "drift-differs", False)


@pytest.mark.parametrize("words", [["--limit", "b"], ["--shard", "2/2"]])
def test_since_tells_of_the_chosen_nodes_only(run: Run, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "inventory.yml").write_text("version: 1\ncluster: attic\nnodes: {a: , b: }\n")
    kept(MOVED)
    assert "/etc/motd" in run("drift", "--since", "7d", "--shard", "1/2")[1]
    status, out, _ = run("drift", "--since", "7d", *words)
    assert (status, "/etc/motd" in out) == (0, False)


@pytest.mark.parametrize(
    "words",
    [
        ["--since", "7"],
        ["--since", "7w"],
        *(["--since", "7d", *more] for more in (["--format", "html"], ["--upstream"], ["-o", "x"])),
    ],
)
def test_since_refuses_what_it_can_not_tell(run: Run, words: list[str]) -> None:
    assert run("drift", *words)[0] == 1


def test_runs_are_listed_with_how_they_ended(run: Run) -> None:
    assert "no run of this cluster" in run("history", "--runs")[1]
    Record.begin("attic", "apply")
    name = kept(MOVED)
    status, out, _ = run("history", "--runs")
    assert (status, "did not end" in out, name in out, "1 drifted" in out) == (0, True, True, True)
    told = json.loads(run("history", "--runs", "--format", "json")[1])["runs"]
    assert [each["exit_status"] for each in told] == [None, 2]


def test_an_id_is_explained(run: Run) -> None:
    status, out, _ = run("drift", "--explain", "drift-differs")
    assert (status, "corrective" in out) == (0, True)
    assert run("drift", "--explain", "no-such-id")[0] == 1
