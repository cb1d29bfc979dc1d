"""The record of runs: since when, by which run, what a damaged, full or read-only disk costs, and what is pruned."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from sparkops.core.digests import digest
from sparkops.core.events import StepProgress
from sparkops.core.plan import Orphan, Plan, Violation
from sparkops.core.report import Report, Result, Rollout
from sparkops.reports.formats import FORMATS, rendered
from sparkops.reports.json import as_json
from sparkops.reports.kept import text as kept_runs
from sparkops.reports.kept.json import from_json
from sparkops.reports.record import Record, StateFolderUnusable, shown_again, with_past
from sparkops.reports.run.findings import findings
from sparkops.runs import database, store
from tests.errors import fails
from tests.unit.reports.made import applied, declared, report, said, step, texts

DAY = 86_400.0
NOW = 1_764_000_000.0


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "sparkops"


def look(*steps: Any, things: Any = None, time: float = NOW, **more: Any) -> Report:
    """A drift over one or two files of node a."""
    things = tuple(things if things is not None else declared("a"))
    plan = Plan(steps=steps, declared=things, nodes=("a",), total=len(things), **more.pop("plan", {}))
    return Report(command="drift", cluster="words", inventory="i", plan=plan, time=time, whole=True, **more)


def kept(shown: Report) -> Report:
    return Record(shown.cluster, shown.command).finish(shown)


MOVED = step("file /etc/motd @a", "a")


def since(shown: Report) -> dict[str, str]:
    return {each.resource: each.since.run for each in findings(shown) if each.since is not None}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts)
def test_a_report_comes_back_out_of_its_json(text: str) -> None:
    for each in (report(text=text), applied(text)):
        told = json.loads(json.dumps(as_json(each)))
        again = from_json({**told, "declared": told["declared"]}, time=each.time, seconds=each.seconds, run=each.run)
        assert json.loads(json.dumps(as_json(again))) == told


@pytest.mark.parametrize("form", FORMATS)
def test_a_kept_run_is_shown_again_in_every_format(form: str) -> None:
    done = kept(replace(report(), time=NOW))
    again = shown_again(store.find(done.run))
    assert again.past == done.past
    assert form == "prometheus" or "/etc/motd" in rendered(again, form)
    assert "+y" not in rendered(again, form), "content is not kept"


def test_a_finding_is_first_seen_by_the_first_of_the_runs_that_saw_it() -> None:
    first = kept(look(MOVED))
    second = kept(look(MOVED, time=NOW + 60))
    assert since(first) == since(second) == {MOVED.id: first.run}


def test_what_went_and_came_again_is_seen_anew() -> None:
    kept(look(MOVED))
    kept(look(time=NOW + 60))
    third = kept(look(MOVED, time=NOW + 120))
    assert since(third) == {MOVED.id: third.run}
    assert [each.closed for each in store.spans("words", since=NOW)] == [NOW + 60, None]


@pytest.mark.parametrize(
    "blind",
    [
        look(things=(), time=NOW + 60),
        look(plan={"unreachable": {"a": said("silent")}}, time=NOW + 60),
        look(plan={"unknown": {MOVED.id: said("late")}}, time=NOW + 60),
    ],
    ids=["limited", "unreachable", "unknown"],
)
def test_a_run_that_could_not_look_ends_nothing(blind: Report) -> None:
    first = kept(look(MOVED))
    kept(replace(blind, whole=False))
    assert since(kept(look(MOVED, time=NOW + 120)))[MOVED.id] == first.run


def test_the_node_or_the_declaration_moved() -> None:
    kept(look())
    assert kept(look(MOVED)).past.origins == {MOVED.id: "corrective"}
    other = [replace(each, keys={"content": "2"}) for each in declared("a")]
    assert kept(look(MOVED, things=other)).past.origins == {MOVED.id: "both"}
    untouched = replace(MOVED, before={"content": "new"}, after={"content": "newer"})
    assert kept(look(untouched, things=other)).past.origins == {MOVED.id: "intentional"}


def test_the_first_run_of_all_tells_no_origin() -> None:
    assert kept(look(MOVED)).past.origins == {}
    assert kept(look(MOVED)).past.origins == {MOVED.id: "new"}


def test_the_text_says_who_moved_and_since_when() -> None:
    kept(look())
    shown = rendered(kept(look(MOVED)), "text")
    assert "the node moved, since 2025-11-24 16:00 UTC" in shown


def test_what_a_step_took_is_known_to_the_next_report() -> None:
    done = Result(id=MOVED.id, node="a", outcome="done", seconds=125.04)
    kept(replace(look(MOVED), command="apply", results=(done,)))
    assert with_past(look(MOVED)).past.took == {MOVED.id: 125.0}


def test_a_plan_is_not_kept() -> None:
    kept(look())
    with_past(look(MOVED))
    assert len(store.latest("words")) == 1


def test_what_two_runs_do_not_share() -> None:
    (other,) = declared("a", name="/other")
    both = [*declared("a"), other]
    first, second = look(MOVED, things=both), look(step(other.id, "a"), things=both)
    found = kept_runs.between(first, second)
    assert ([each.resource for each in found.came], [each.resource for each in found.went]) == ([other.id], [MOVED.id])
    assert found.unseen == ()
    assert kept_runs.between(first, look(things=[other])).unseen == (MOVED.id,)


BESIDE = ("file /old @a", "two-names @a")
"""What stands beside the declared resources: an orphan, and something of the whole node."""


def with_things_beside(**more: Any) -> Report:
    orphan = Orphan(id=BESIDE[0], node="a", kind="file", name="/old")
    other = Violation(message=said("x"), key="two-names", resource="", node="a", severity="error")
    return look(plan={"orphans": (orphan,), "violations": (other,)}, **more)


@pytest.mark.parametrize(
    "blind",
    [
        replace(look(things=()), plan=Plan(nodes=("b",)), whole=False),
        look(plan={"unreachable": {"a": said("silent")}}),
        look(plan={"unknown": {"claims @a": said("late")}}),
    ],
    ids=["limited", "unreachable", "claims unknown"],
)
def test_what_stands_beside_the_resources_neither_came_nor_went_where_one_run_could_not_look(blind: Report) -> None:
    for first, second in ((with_things_beside(), blind), (blind, with_things_beside())):
        found = kept_runs.between(first, second)
        assert not {each.key for each in (*found.came, *found.went)} & {*BESIDE}
    assert {each.key for each in kept_runs.between(with_things_beside(), look()).went} == {*BESIDE}


def test_runs_of_two_clusters_are_not_compared() -> None:
    with fails("runs-of-two-clusters"):
        kept_runs.between(look(), replace(look(), cluster="other"))


@pytest.mark.parametrize("command", ["rollback", "remove"])
def test_what_is_no_look_at_the_declaration_proves_and_ends_nothing(command: Any) -> None:
    """Its resources are what shall be brought back, or taken back: of what is declared it tells nothing."""
    other = [replace(each, keys={"content": "2"}, found={"content": "2"}) for each in declared("a")]
    kept(look())
    first = kept(look(MOVED, time=NOW + 60))
    done = kept(replace(look(things=other, time=NOW + 120), command=command))
    again = kept(look(MOVED, time=NOW + 180))
    assert (since(again), again.past.origins) == ({MOVED.id: first.run}, {MOVED.id: "corrective"})
    assert done.past.origins == {}


def test_what_was_not_to_be_seen_yet_when_its_step_was_proven_has_not_moved_since() -> None:
    """A unit is proven as its container starts; what that was started from is seen a moment later."""
    kept(look())
    done = Result(id=MOVED.id, node="a", outcome="done", found={"content": None})
    kept(replace(look(MOVED), command="apply", results=(done,)))
    other = [replace(each, keys={"content": "2"}) for each in declared("a")]
    later = kept(look(step(MOVED.id, "a", before={"content": "new"}), things=other))
    assert later.past.origins == {MOVED.id: "intentional"}


def test_what_an_apply_took_back_again_is_not_proven() -> None:
    """Else the next look would say that the node moved, where the declaration did."""
    (thing,) = declared("a", service="q")
    then = {"content": digest("then")}
    kept(look(things=[replace(thing, keys=then, found=then)]))
    change = step(thing.id, "a", service="q", before={"content": "then"})
    back = (Rollout(service="q", nodes=("a",), state="returned"),)
    done = (Result(id=thing.id, node="a", outcome="done", found={"content": "new"}),)
    kept(replace(look(change, things=[thing]), command="apply", results=done, rollouts=back))
    assert kept(look(change, things=[thing])).past.origins == {thing.id: "intentional"}


@pytest.mark.parametrize("damage", ["UPDATE body SET packed = x'00'", "UPDATE body SET packed = 7", "DELETE FROM body"])
def test_a_report_that_is_damaged_within_its_row_is_named(state: Path, damage: str) -> None:
    run = kept(look()).run
    with sqlite3.connect(state / "runs.sqlite") as connection:
        connection.execute(damage)
    with fails("runs-unreadable"):
        store.find(run)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE thing SET keys = '{\"a'",
        "UPDATE thing SET found = x'ff'",
        "UPDATE span SET about = '7'",
        "UPDATE run SET counts = 'x'",
    ],
)
def test_a_row_that_is_damaged_is_set_aside_like_a_page(state: Path, damage: str) -> None:
    """SQLite has no sums over what it keeps. An apply that has changed nodes must not end in that."""
    kept(look(MOVED))
    record = Record.begin("words", "apply")
    with sqlite3.connect(state / "runs.sqlite") as connection:
        connection.execute(damage)
    done = record.finish(replace(look(), command="apply"))
    assert (record.lost, [each.id for each in done.unrecorded]) == ([], ["runs-damaged"])
    assert store.find(done.run).body is not None


def test_a_run_is_found_by_the_beginning_of_its_name() -> None:
    with fails("runs-none"):
        store.find("")
    run = kept(look()).run
    assert store.find(run).run.run == run
    assert store.find(run[:25]).run.run == run
    with fails("run-not-kept"):
        store.find("1999")
    with fails("run-not-kept"):
        store.find("%")
    kept(look())
    with fails("run-name-ambiguous"):
        store.find(run[:4])


def test_a_run_that_was_killed_is_kept_without_a_report() -> None:
    record = Record.begin("words", "apply")
    record.write(StepProgress(node="a", id="x", text="half"))
    (run,) = store.latest("words")
    assert (run.run, run.exit_status) == (record.run, None)
    assert store.find(record.run).body is None
    assert json.loads(store.events(record.run)[0])["text"] == "half"


def test_events_of_many_threads_are_all_kept() -> None:
    record = Record.begin("words", "apply")
    threads = [threading.Thread(target=record.write, args=(StepProgress(node="a", id=str(n)),)) for n in range(20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert {json.loads(line)["id"] for line in store.events(record.run)} == {str(n) for n in range(20)}
    assert record.lost == []


@pytest.mark.parametrize(
    "content", [b"no database at all, for longer than a header" * 9, b"SQLite format 3\0" + b"x" * 5000]
)
def test_a_damaged_file_is_set_aside_and_said(state: Path, content: bytes) -> None:
    state.mkdir()
    (state / "runs.sqlite").write_bytes(content)
    record = Record("words", "drift")
    record.finish(look())
    assert record.lost == []
    assert Path(record.aside).read_bytes() == content
    assert len(store.latest("words")) == 1


def test_a_file_that_is_damaged_during_a_run_costs_what_was_in_it(state: Path) -> None:
    kept(look())
    record = Record.begin("words", "apply")
    record._store.database.close()
    path = state / "runs.sqlite"
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * (path.stat().st_size - 4096))
    done = record.finish(replace(look(), command="apply"))
    assert (record.lost, bool(record.aside)) == ([], True)
    assert [each.run for each in store.latest("words")] == [done.run]


def test_a_reader_names_a_damaged_file_and_leaves_it(state: Path) -> None:
    state.mkdir()
    (state / "runs.sqlite").write_bytes(b"nothing of a database" * 99)
    with fails("runs-unreadable"):
        store.latest("words")
    assert with_past(look(MOVED)).past.runs == ()
    assert [each.name for each in state.iterdir()] == ["runs.sqlite"]


def test_a_file_of_another_version_is_left_as_it_is(state: Path) -> None:
    kept(look())
    with sqlite3.connect(state / "runs.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    record = Record("words", "drift")
    record.finish(look())
    assert "version 99" in record.lost[0]
    assert record.aside == ""
    with fails("runs-version-unknown"):
        store.latest("words")


def test_where_nothing_can_be_kept_an_apply_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc")
    with fails("state-folder-unusable", StateFolderUnusable):
        Record.begin("words", "apply")
    record = Record("words", "drift")
    assert record.finish(look(MOVED)).plan.steps == (MOVED,)
    assert record.lost


FULL = """
import resource, sys
from sparkops.core.events import StepProgress
from sparkops.reports.record import Record
from tests.unit.reports.made import report
record = Record.begin("words", "apply")
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
for number in range(2000):
    record.write(StepProgress(node="a", id="x" * 300))
done = record.finish(report("apply"))
print(done.exit_status, bool(record.lost), bool(record.aside))
"""


def test_a_disk_that_fills_costs_the_record_and_not_the_run() -> None:
    """A limit on the size of files stands for the disk: writing beyond it fails alike."""
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN, "as Python sets it"
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", FULL],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.stdout.split() == ["4", "True", "False"], done.stderr
    assert store.latest("words")[0].exit_status is None


def test_a_file_that_another_process_holds_delays_a_run_once_and_not_with_each_event(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listeners are told in the threads of the steps: an engine would stand still for as long as each is waited for."""
    monkeypatch.setattr(database, "WAIT", 0.3)
    record = Record.begin("words", "apply")
    other = sqlite3.connect(state / "runs.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    for number in range(100):
        record.write(StepProgress(node="a", id="x", done=number))
    assert time.monotonic() - began < 100 * database.WAIT / 2
    other.execute("ROLLBACK")
    done = record.finish(replace(applied(), time=NOW))
    assert [each.id for each in done.unrecorded] == ["run-not-recorded"]
    assert store.find(done.run).body is not None, "what could be kept at its end is kept"


@pytest.mark.parametrize("change", [{"schema": "sparkops.report/0"}, {"plan_of_old": []}], ids=["schema", "shape"])
def test_a_run_of_another_version_is_named_as_such(state: Path, change: dict[str, Any]) -> None:
    found = store.find(kept(replace(report(), time=NOW)).run)
    assert found.body is not None
    body = {**found.body, **change}
    if "schema" not in change:
        del body["steps"]
    with fails("run-of-other-version"):
        shown_again(replace(found, body=body))


def test_a_file_that_is_locked_is_not_read_without_its_log(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would show the last run but one as the newest."""
    monkeypatch.setattr(database, "WAIT", 0.2)
    kept(look())
    other = sqlite3.connect(state / "runs.sqlite", isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("PRAGMA wal_autocheckpoint = 0")
    other.execute("BEGIN EXCLUSIVE")
    other.execute("INSERT INTO run (name, cluster, command, time, seconds) VALUES ('newest', 'words', 'drift', 1, 1)")
    other.execute("COMMIT")
    with fails("runs-unreadable"):
        store.find("")
    other.close()
    assert store.find("").run.run == "newest"


def test_old_runs_go_and_what_changed_nodes_stays() -> None:
    acting = Record.begin("words", "apply")
    acting.write(StepProgress(node="a", id="x"))
    acting.finish(replace(look(), command="apply"))
    kept(look(MOVED))
    kept(replace(look(), cluster="other"))
    newest = kept(look(time=NOW + 31 * DAY)).run
    assert [each.run for each in store.latest("words")] == [acting.run, newest]
    assert len(store.latest("other")) == 1


def test_equal_reports_are_kept_once(state: Path) -> None:
    for number in range(5):
        kept(look(MOVED, time=NOW + number))
    with sqlite3.connect(state / "runs.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM body").fetchone()[0] <= 4


def test_neither_content_nor_text_differences_are_kept(state: Path) -> None:
    kept(look(replace(MOVED, diff="+password", after={"content": "1", "text": "password"})))
    assert all(b"password" not in path.read_bytes() for path in state.iterdir())
    body = store.find("").body
    assert "password" not in json.dumps(body)
    assert (state / "runs.sqlite").stat().st_mode & 0o077 == 0
