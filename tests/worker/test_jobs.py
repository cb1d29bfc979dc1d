"""Node jobs: a process of their own that outlives its session, is attached to, cancelled, and leaves its result."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sparkops.programs import bundle as carried
from sparkops.worker.calls import Call, Refused
from sparkops.worker.system import jobs
from tests.errors import fails

PROGRAM = '''
"""A kind with one job, for this test: counts, or fails in a chosen way."""
import os, time
from sparkops.worker.calls import Refused

def count(job, to, fail=""):
    for number in range(to):
        job.check()
        job.progress(f"at {number}", number, to, unit="steps")
        time.sleep(0.05)
    if fail == "refused":
        raise Refused.of("program-missing", detail="the last line", program="x")
    if fail == "os":
        open("/nowhere/at/all")
    return {"counted": to, "pid": os.getpid()}
'''


@pytest.fixture(autouse=True)
def carried_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the loader holds on a node: the worker's sources, and a module `counting` with them."""
    monkeypatch.setattr(jobs, "RUN", str(tmp_path / "jobs"))
    monkeypatch.setattr(carried, "SOURCES", {**carried._from_files(), "sparkops.worker.counting": PROGRAM})
    yield
    for running in jobs.running():
        os.killpg(running["pid"], signal.SIGKILL)


def call() -> tuple[Call, list[dict[str, Any]]]:
    sent: list[dict[str, Any]] = []
    return Call(1, sent.append, threading.Event()), sent


def run(caller: Call, attach: str = "", **args: Any) -> Any:
    return jobs.run(caller, "thing", "sparkops.worker.counting", "count", args, attach)


def once_at_work(act: Callable[[], Any]) -> None:
    """Do it when the job has counted, however late that is."""

    def wait() -> None:
        while not jobs.last_progress(jobs.folder_of("thing")).get("done"):
            time.sleep(0.02)
        act()

    threading.Thread(target=wait, daemon=True).start()


def test_a_job_tells_its_progress_and_its_result() -> None:
    caller, sent = call()
    assert run(caller, to=15)["counted"] == 15
    told = [message["progress"] for message in sent]
    assert told
    assert told[-1]["total"] == 15
    assert jobs.running() == []


def test_a_job_is_not_in_the_session_that_started_it() -> None:
    assert run(call()[0], to=1)["pid"] != os.getpid()


@pytest.mark.parametrize(("fail", "id"), [("refused", "program-missing"), ("os", "system-call-failed")])
def test_a_job_that_fails_says_why(fail: str, id: str) -> None:
    with fails(id, Refused):
        run(call()[0], to=1, fail=fail)


def test_a_session_that_goes_leaves_the_job_and_the_next_one_attaches() -> None:
    first, _ = call()
    once_at_work(first.session_over.set)
    with pytest.raises(Refused) as left:
        run(first, to=120)
    assert (left.value.id, left.value.type) == ("session-over", "gone")
    (running,) = jobs.running()
    second, sent = call()
    assert run(second, to=120)["pid"] == running["pid"]
    assert sent[0]["progress"]["done"] > 0, "it was attached to, not begun again"


def test_a_job_with_other_inputs_is_not_attached_to() -> None:
    first, _ = call()
    once_at_work(first.session_over.set)
    with pytest.raises(Refused) as left:
        run(first, attach="commit a", to=120)
    assert left.value.id == "session-over"
    with pytest.raises(Refused) as busy:
        run(call()[0], attach="commit b", to=120)
    assert (busy.value.id, busy.value.type) == ("job-busy", "busy")


def test_who_follows_a_job_never_gets_the_result_of_the_work_that_took_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "POLL", 5.0)  # the follower looks again after all that follows
    folder = jobs.begin("thing", "sparkops.worker.counting", "count", {"to": 200}, "one")
    caller, sent = call()
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(jobs.follow, caller, folder, "one")
        while not sent:
            time.sleep(0.02)
        jobs._replace(folder, "thing")
        jobs.begin("thing", "sparkops.worker.counting", "count", {"to": 1}, "two")
        with fails("job-busy", Refused):
            following.result(60)


@contextlib.contextmanager
def looked_at(folder: str, seconds: float, how: int) -> Iterator[None]:
    """Somebody else holds the job's lock, as one does who looks whether it lives or is beginning it."""
    os.makedirs(folder, exist_ok=True)
    handle = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, how)
    timer = threading.Timer(seconds, lambda: fcntl.flock(handle, fcntl.LOCK_UN))
    timer.start()
    try:
        yield
    finally:
        timer.join()
        os.close(handle)


@pytest.mark.parametrize("how", [fcntl.LOCK_SH, fcntl.LOCK_EX], ids=["looks", "begins"])
@pytest.mark.parametrize("seconds", [0.1, 1.0])
def test_a_job_whose_lock_somebody_holds_for_a_moment_is_begun_then(how: int, seconds: float) -> None:
    with looked_at(jobs.folder_of("thing"), seconds, how):
        assert run(call()[0], to=1)["counted"] == 1


@pytest.mark.parametrize("how", [fcntl.LOCK_SH, fcntl.LOCK_EX], ids=["looks", "begins"])
def test_a_job_whose_lock_is_not_let_go_is_busy_and_no_failed_system_call(how: int) -> None:
    with looked_at(jobs.folder_of("thing"), 8.0, how), fails("job-busy", Refused):
        run(call()[0], to=1)


def test_who_cannot_begin_a_job_takes_nothing_of_the_last_one_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "BEGINNING", 1)
    run(call()[0], to=1)
    with looked_at(jobs.folder_of("thing"), 1.0, fcntl.LOCK_SH), fails("job-busy", Refused):
        run(call()[0], to=1)
    last: Any = jobs.outcome(jobs.folder_of("thing"))
    assert last["counted"] == 1


def test_while_a_job_is_begun_nothing_says_that_it_is_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    run(call()[0], to=1)
    there: list[list[str]] = []
    begin = subprocess.Popen

    def begun(*args: Any, **options: Any) -> Any:
        there.append(sorted(os.listdir(jobs.folder_of("thing"))))
        return begin(*args, **options)

    monkeypatch.setattr(subprocess, "Popen", begun)
    run(call()[0], to=1)
    assert there == [["lock", "log"]]


def test_many_who_begin_one_job_at_once_all_follow_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each looks whether it lives, which takes the lock for a moment; one begins it, the others attach."""
    counted: list[Any] = []
    looking = threading.Event()

    def look() -> None:
        while not looking.is_set():
            jobs.alive(jobs.folder_of("thing"))

    starting = [threading.Thread(target=lambda: counted.append(run(call()[0], to=40))) for _ in range(8)]
    lookers = [threading.Thread(target=look) for _ in range(2)]
    for each in (*lookers, *starting):
        each.start()
    for each in starting:
        each.join(60)
    looking.set()
    assert len(counted) == 8 and len({each["pid"] for each in counted}) == 1


def test_a_cancelled_job_stops_between_its_steps() -> None:
    first, _ = call()
    once_at_work(lambda: jobs.cancel_folder(jobs.folder_of("thing")))
    with pytest.raises(Refused) as cancelled:
        run(first, to=200)
    assert cancelled.value.type == "cancelled"
    assert jobs.last_progress(jobs.folder_of("thing"))["done"] < 199


def test_a_job_that_is_cancelled_before_it_can_hear_it_is_cancelled_all_the_same() -> None:
    folder = jobs.begin("thing", "sparkops.worker.counting", "count", {"to": 200})
    assert jobs.cancel_folder(folder)
    with pytest.raises(Refused) as cancelled:
        jobs.follow(call()[0], folder, "")
    assert cancelled.value.type == "cancelled"


def test_a_killed_job_is_told_and_can_be_begun_again() -> None:
    first, _ = call()
    once_at_work(lambda: os.killpg(jobs.running()[0]["pid"], signal.SIGKILL))
    with pytest.raises(Refused) as killed:
        run(first, to=200)
    assert killed.value.id == "job-killed"
    assert killed.value.values["key"] == "thing" and killed.value.values["last"].startswith("at ")
    assert run(call()[0], to=2)["counted"] == 2


def test_a_new_text_is_told_at_once_however_soon_it_comes(tmp_path: Path) -> None:
    job = jobs.Job(str(tmp_path))
    for text in ("step 1 of 2", "step 2 of 2, which takes an hour"):
        job.progress(text, 1, 3)
    assert "an hour" in (tmp_path / "progress.json").read_text()
