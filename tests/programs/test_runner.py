"""Programs as their callers see them: a spec in, lines out, the last one the result or the error."""

from __future__ import annotations

import os
import pwd
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from sparkops.core.messages import Refused
from sparkops.programs import bundle, runner
from sparkops.programs.progress import Listener

PROGRAM = """
import os, time
from sparkops.core.messages import Refused

def work(spec, output):
    output.progress("counting", 1, spec["to"])
    output.notice("cancelled", why="none")
    output.record({"mark": 1})
    if spec["end"] == "refused":
        raise Refused.of("disk-full", path="/models")
    if spec["end"] == "rights":
        return [os.getresuid(), os.getresgid(), os.getgroups(), os.environ["HOME"]]
    if spec["end"] == "secret":
        open("/etc/shadow")
    if spec["end"] == "os":
        open("/nowhere/at/all")
    if spec["end"] == "defect":
        {}["missing"]
    if spec["end"] == "killed":
        print("last words", flush=True)
        os.kill(os.getpid(), 9)
    while spec["end"] == "never":
        output.check()
        time.sleep(0.02)
    if spec["end"] == "descriptor":
        return os.read(spec["descriptor"], 5).decode()
    return {"home": os.environ["HOME"], "uid": os.getuid()}

"""
NAME = "sparkops.programs.counting.main"


@dataclass
class Heard(Listener):
    lines: list[Any] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def progress(self, message: Mapping[str, Any]) -> None:
        self.lines.append(("progress", dict(message)))

    def notice(self, id: str, args: Mapping[str, Any]) -> None:
        self.lines.append(("notice", id, dict(args)))

    def record(self, value: Any) -> None:
        self.lines.append(("record", value))

    def stopped(self) -> bool:
        return self.stopping.is_set()


@pytest.fixture(autouse=True)
def sources(monkeypatch: pytest.MonkeyPatch) -> None:
    package = "sparkops.programs.counting"
    monkeypatch.setattr(bundle, "SOURCES", {**bundle._from_files(), package: "", NAME: PROGRAM})


def run(end: str = "", heard: Heard | None = None, **more: Any) -> Any:
    descriptor = more.pop("descriptor", -1)
    spec = {"to": 2, "end": end, "descriptor": descriptor}
    descriptors = [descriptor] if descriptor >= 0 else []
    return runner.run(NAME, spec, heard or Heard(), descriptors=descriptors, **more)


def test_progress_notices_and_records_arrive_in_order_before_the_result() -> None:
    heard = Heard()
    assert run(heard=heard)["uid"] == os.getuid()
    assert heard.lines == [
        ("progress", {"text": "counting", "done": 1, "total": 2}),
        ("notice", "cancelled", {"why": "none"}),
        ("record", {"mark": 1}),
    ]


@pytest.mark.parametrize(
    ("end", "id", "type"),
    [
        ("refused", "disk-full", "failed"),
        ("os", "system-call-failed", "os"),
        ("defect", "defect", "defect"),
        ("killed", "program-ended", "failed"),
    ],
)
def test_every_end_without_a_result_is_an_error_with_an_id(end: str, id: str, type: str) -> None:
    with pytest.raises(Refused) as caught:
        run(end)
    assert (caught.value.id, caught.value.type) == (id, type)


def test_what_a_killed_program_printed_last_is_the_detail_of_its_error() -> None:
    with pytest.raises(Refused) as caught:
        run("killed")
    assert caught.value.values == {"program": "counting", "ending": "signal 9"}
    assert "last words" in caught.value.detail


def test_a_program_that_is_asked_to_stop_ends_between_its_steps() -> None:
    heard = Heard()
    threading.Timer(0.5, heard.stopping.set).start()
    with pytest.raises(Refused) as caught:
        run("never", heard)
    assert caught.value.type == "cancelled"


def test_a_program_that_is_asked_to_stop_while_it_starts_is_cancelled() -> None:
    heard = Heard()
    heard.stopping.set()
    with pytest.raises(Refused) as caught:
        run("never", heard)
    assert (caught.value.id, caught.value.type) == ("cancelled", "cancelled")


def test_an_open_descriptor_is_handed_over() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"hello")
    assert run("descriptor", descriptor=reading) == "hello"
    os.close(reading)
    os.close(writing)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_program_gives_up_root_for_the_user_that_it_runs_as() -> None:
    nobody = pwd.getpwnam("nobody")
    assert run("rights", user=nobody) == [[nobody.pw_uid] * 3, [nobody.pw_gid] * 3, [nobody.pw_gid], nobody.pw_dir]
    with pytest.raises(Refused) as caught:
        run("secret", user=nobody)
    assert (caught.value.id, caught.value.values["path"]) == ("permission-denied", "/etc/shadow")


def test_a_program_does_not_outlive_its_caller() -> None:
    mark = uuid.uuid4().hex
    pid = os.fork()
    if pid == 0:
        os.environ["CALLER"] = mark
        threading.Thread(target=run, args=("never",), daemon=True).start()
        time.sleep(1.0)
        os._exit(0)
    os.waitpid(pid, 0)
    deadline = time.monotonic() + 60
    while _with_environment(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _with_environment(mark)


def _with_environment(mark: str) -> list[str]:
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                environment = file.read()
        except OSError:
            continue
        if mark.encode() in environment:
            found.append(entry)
    return found


def test_a_program_gets_no_source_of_the_worker() -> None:
    program = bundle.program("sparkops.programs.counting.main", "work")
    assert len(program) < len(bundle.program("sparkops.worker.main", "main"))
