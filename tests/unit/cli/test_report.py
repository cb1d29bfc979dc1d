"""`report`, `drift --since`, `history --runs`: kept runs by the command line; no node is asked."""

from __future__ import annotations

import json
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


def kept(*steps: Any, time: float | None = None, command: Any = "drift") -> str:
    import time as clock

    things = tuple(declared("a"))
    plan = Plan(steps=steps, declared=things, nodes=("a",), total=1)
    made = Report(command=command, cluster="attic", inventory="i", plan=plan, time=time or clock.time(), whole=True)
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
    status, out, _ = run("report", "diff", second, first)
    assert out.startswith("- file /etc/motd @a is there and differs")


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


@pytest.mark.parametrize("words", [["--since", "7"], ["--since", "7w"], ["--since", "7d", "--format", "html"]])
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
