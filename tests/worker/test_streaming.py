"""A program that is listened to: its streams, its end, its time, and that nothing of it is left."""

from __future__ import annotations

import threading
import time
from typing import Any

from sparkops.worker.calls import Call, Refused
from sparkops.worker.requests import exec
from tests.errors import fails


class Listener:
    """A call whose data is kept, with credit without end."""

    def __init__(self) -> None:
        self.said = {1: b"", 2: b""}
        self.call = Call(1, self._take, threading.Event())

    def _take(self, message: dict[str, Any]) -> None:
        data: bytes = message["data"]
        self.said[data[0]] += data[1:]
        self.call.take({"credit": 1})

    def run(self, *argv: str, timeout: float | None = None) -> dict[str, Any]:
        return exec.run(self.call, list(argv), timeout)


def test_both_streams_and_the_exit_status_arrive() -> None:
    listener = Listener()
    assert listener.run("sh", "-c", "echo out; echo err >&2; exit 7") == {"status": 7, "timed_out": False}
    assert listener.said == {1: b"out\n", 2: b"err\n"}


def test_a_megabyte_arrives_whole() -> None:
    listener = Listener()
    listener.run("head", "-c", "1000000", "/dev/zero")
    assert len(listener.said[1]) == 1_000_000


def test_a_signal_is_told_as_a_shell_tells_it() -> None:
    assert Listener().run("sh", "-c", "kill -9 $$")["status"] == 137


def test_a_program_whose_time_is_over_is_ended_with_its_children() -> None:
    listener = Listener()
    started = time.monotonic()
    done = listener.run("sh", "-c", "sleep 100 & echo $!; wait", timeout=0.5)
    assert done["timed_out"]
    assert time.monotonic() - started < 50
    deadline = time.monotonic() + 20
    while _runs(int(listener.said[1])) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(int(listener.said[1]))


def test_a_child_that_is_left_behind_is_not_waited_for() -> None:
    listener = Listener()
    started = time.monotonic()
    assert listener.run("sh", "-c", "sleep 12 & echo there")["status"] == 0
    assert time.monotonic() - started < 12
    assert listener.said[1] == b"there\n"


def test_a_listener_that_goes_ends_the_program() -> None:
    listener = Listener()
    threading.Timer(0.3, listener.call.stopping.set).start()
    with fails("exec-cancelled", Refused):
        listener.run("sleep", "100")


def test_a_program_that_is_not_there_is_told() -> None:
    with fails("program-missing", Refused):
        Listener().run("/nowhere/program")


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
