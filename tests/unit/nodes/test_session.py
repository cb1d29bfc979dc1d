"""A session with a real worker on this machine: calls, refusals, a worker that dies."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkops.core.errors import ConnectionFailed, NodeError
from sparkops.nodes import bundle
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import Passwords
from sparkops.nodes.session import CallFailed, Session
from sparkops.nodes.target import Target
from tests.errors import fails

TARGET = Target(name="here", type="local")


def begin() -> Session:
    connections = Connections(Passwords())
    return Session("here", connections.start_worker(connections.connect(TARGET), TARGET, bundle.kinds_bundle(["file"])))


@pytest.fixture
def session() -> Iterator[Session]:
    opened = begin()
    yield opened
    opened.close()


def look(session: Session, *asks: list[Any]) -> dict[str, Any]:
    answers = session.call("observe", {"asks": list(asks)}, timeout=20)["answers"]
    assert isinstance(answers, dict)
    return answers


def file(path: Path, **more: Any) -> list[Any]:
    return [str(path), "file", {"path": str(path), "sha256": "", "size": 0, **more}]


def test_one_call_answers_for_everything_that_is_asked(session: Session, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    answers = look(session, file(tmp_path / "a"), file(tmp_path / "b"), ["c", "nonsense", {}])
    assert answers[str(tmp_path / "a")]["found"]["type"] == "file"
    assert answers[str(tmp_path / "b")] == {"found": None}
    assert answers["c"]["$unknown"] == {"id": "kind-unknown", "args": {"kind": "nonsense"}}


def test_a_session_is_busy_until_everything_is_answered(session: Session, tmp_path: Path) -> None:
    asked = {"asks": [file(tmp_path / "x")]}
    stream = session.stream("observe", asked)
    assert session.busy
    with pytest.raises(StopIteration):
        next(stream)
    with fails("kind-unknown", CallFailed):
        session.call("no.such", {})
    assert not session.busy


def test_calls_run_side_by_side(session: Session, tmp_path: Path) -> None:
    results: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: results.append(look(session, file(tmp_path / "x")))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(results) == 20


def test_a_call_that_nobody_knows_is_refused(session: Session) -> None:
    with fails("call-unknown"):
        session.call("file.explode", timeout=20)


def test_what_changed_since_it_was_compared_is_not_touched(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("somebody else's")
    order = {
        "kind": "file",
        "id": "file a @here",
        "ask": file(path)[2],
        "before": None,
        "want": {"type": "file"},
        "action": "create",
    }
    answer = session.call("converge", order, timeout=20)
    assert answer["changed"] == ["existence"]
    assert answer["found"]["type"] == "file"
    assert path.read_text() == "somebody else's"


def test_a_lock_names_its_holder_and_goes_with_its_process(session: Session, tmp_path: Path) -> None:
    other = begin()
    holder = {"who": "ada", "from": "laptop", "command": "apply x.yml"}
    other.call("lock.acquire", {"state_dir": str(tmp_path), "holder": holder}, timeout=20)
    with fails("node-locked"):
        session.call("lock.acquire", {"state_dir": str(tmp_path), "holder": holder}, timeout=20)
    other.close()
    session.call("lock.acquire", {"state_dir": str(tmp_path), "holder": holder}, timeout=20)


def test_a_worker_that_dies_ends_every_call_with_a_reason(session: Session) -> None:
    os.kill(_worker(), signal.SIGKILL)
    with pytest.raises(NodeError) as lost:
        session.call("observe", {"asks": []}, timeout=20)
    assert lost.value.id == "worker-ended", "whether or not the call could still be written"
    assert session.lost


class Cut:
    """A stream whose other end is gone; its reader comes to know of it when it is told to."""

    def __init__(self) -> None:
        self.seen = threading.Event()

    def read(self, size: int, timeout: float | None = None) -> bytes:
        self.seen.wait()
        return b""

    def write(self, data: bytes) -> None:
        raise ConnectionFailed.of("remote-program-ended", where="here")

    def close_input(self) -> None:
        pass

    def close(self) -> None:
        self.seen.set()

    def stderr(self) -> str:
        return ""

    def exit_status(self, timeout: float) -> int | None:
        return None


def test_a_session_that_can_not_be_written_to_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not until its reader had seen the end too: the run took the node for failed and did not come back."""
    monkeypatch.setattr("sparkops.nodes.session.LAST_WORDS", 0.05)
    session = Session("here", Cut())
    with fails("remote-program-ended"):
        session.call("observe")
    assert session.lost
    session.close()


def _worker() -> int:
    """The process id of the youngest worker that this process has started."""
    children = [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    return max(pid for pid in children if b"-I" in Path(f"/proc/{pid}/cmdline").read_bytes())
