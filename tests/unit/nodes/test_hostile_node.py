"""A node that answers with nonsense, a worker that is told nonsense: clean words in time, and nothing is changed."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkops.core import frames
from sparkops.core.errors import ConnectionFailed, SparkopsError, WorkerFailed
from sparkops.core.states import Unknown
from sparkops.core.wording import words
from sparkops.nodes import bundle, session
from sparkops.nodes.session import Session
from sparkops.reconcile import orphans, plan
from sparkops.reconcile.observe import claims_of
from sparkops.resources import kind, names
from sparkops.resources.resource import Resource, unpack
from tests.errors import fails

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
WORDS = st.sampled_from(["id", "result", "error", "progress", "data", "credit", "beat", "over", "end", "call"])
MESSAGES = st.dictionaries(WORDS, JSON | st.just(1) | st.binary(max_size=8), max_size=4)


class Says:
    """A node that says these bytes, whatever it is asked, and then is silent until it is closed.

    `taken` is set when all that it has to say has been read.
    """

    def __init__(self, parts: Iterable[bytes], *, ends: bool = True) -> None:
        self._parts = iter(parts)
        self._ahead = b""
        self._ends = ends
        self._asked = threading.Event()
        self.taken = threading.Event()
        self._closed = threading.Event()

    def read(self, size: int, timeout: float | None = None) -> bytes:
        self._asked.wait()
        if not self._ahead and not self._closed.is_set():
            self._ahead = next(self._parts, b"")
            if not self._ahead:
                self.taken.set()
                if not self._ends:
                    self._closed.wait()
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def write(self, data: bytes) -> None:
        self._asked.set()

    def close_input(self) -> None:
        self._asked.set()
        self._closed.set()

    def close(self) -> None:
        self.close_input()

    def stderr(self) -> str:
        return ""

    def exit_status(self, timeout: float) -> int | None:
        return None


def asked(parts: Iterable[bytes], *, ends: bool = True, timeout: float = 60) -> Any:
    """The answer of such a node to one call, which has the id 1."""
    opened = Session("spark-01", Says(parts, ends=ends))
    try:
        return opened.call("observe", {}, timeout=timeout)
    finally:
        opened.close(grace=1)


def refused(parts: Iterable[bytes], **more: Any) -> SparkopsError:
    with pytest.raises(SparkopsError) as caught:
        asked(parts, **more)
    assert caught.value.where == "spark-01"
    assert caught.value.hint
    return caught.value


@given(st.binary(max_size=300))
def test_arbitrary_bytes_end_the_session_in_words(data: bytes) -> None:
    began = time.monotonic()
    assert isinstance(refused([data]), WorkerFailed)
    assert time.monotonic() - began < 30


@given(st.lists(MESSAGES, max_size=5))
def test_arbitrary_messages_are_an_answer_or_an_error_in_words(messages: list[dict[str, Any]]) -> None:
    with contextlib.suppress(SparkopsError):
        asked([frames.encode(message) for message in messages])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xff\xff\xff" + b"x" * 100, "a frame length of 4294967295"),
        (b"\0\0\0\x0a\0\0\0\x05", "ended inside a frame"),
        (b"\0\0\0\x09\0\0\0\x05hello", "no JSON"),
        (b"\0\0\0\x06\0\0\0\x02[]", "no mapping"),
        (b"Welcome to Ubuntu 24.04 LTS\n", "a frame length of"),
        ((4 + 200_000).to_bytes(4, "big") + (200_000).to_bytes(4, "big") + b"[" * 200_000, "no JSON"),
        (frames.encode({"id": "1", "result": 1}), "id is not a number"),
        (frames.encode({"id": [1], "result": 1}), "id is not a number"),
        (b"", "the worker ended"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_named_with_the_node_and_the_way_out(data: bytes, words: str) -> None:
    assert words in refused([data]).what


def test_more_json_than_values_can_be_held_of_is_refused_on_both_sides() -> None:
    text = b'{"a":[' + b"[]," * (frames.TEXT_LIMIT // 3) + b"[]]}"
    head = (4 + len(text)).to_bytes(4, "big") + len(text).to_bytes(4, "big")
    assert "over the limit" in refused([head, text]).what
    with pytest.raises(frames.BadFrame, match="over the limit"):
        frames.encode({"a": "x" * frames.TEXT_LIMIT})


def test_a_node_that_only_ever_reports_progress_is_given_up_in_time() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield frames.encode({"id": 1, "progress": {"text": "soon"}})

    began = time.monotonic()
    assert isinstance(refused(endless(), timeout=1), ConnectionFailed)
    assert time.monotonic() - began < 30


def test_what_nobody_takes_is_bounded() -> None:
    """A caller that is slow loses progress; data beyond what was asked for ends the session."""
    many = [frames.encode({"id": 1, "progress": {"text": str(n)}}) for n in range(5000)]
    answer = frames.encode({"id": 1, "result": "done"})
    node = Says([*many, answer], ends=False)
    opened = Session("spark-01", node)
    stream = opened.stream("x")
    assert node.taken.wait(60)
    said = []
    with pytest.raises(StopIteration) as done:
        while True:
            said.append(next(stream))
    assert done.value.value == "done"
    assert len(said) <= session.WAITING + 1
    opened.close(grace=1)

    flood = [frames.encode({"id": 1, "data": b"x"}) for _ in range(5000)]
    opened = Session("spark-01", Says(flood, ends=False))
    channel = opened.channel("x")
    while not opened.lost:
        time.sleep(0.02)
    with fails("worker-answer-broken"):
        while True:
            channel.read()
    opened.close(grace=1)


def test_answers_out_of_order_and_to_nobody_reach_only_who_asked() -> None:
    parts = [frames.encode({"id": n, "result": n}) for n in (99, 2, -1, 0, 1, 1)]
    opened = Session("spark-01", Says(parts, ends=False))
    second = opened.stream("a")
    assert opened.call("b", timeout=60) == 2
    with pytest.raises(StopIteration) as done:
        next(second)
    assert done.value.value == 1
    opened.close(grace=1)


@given(JSON)
def test_whatever_stands_for_a_state_is_one_or_unknown(answer: Any) -> None:
    found = unpack(answer)
    assert found is None or isinstance(found, (dict, Unknown))
    if not (isinstance(answer, dict) and {"found", "unknown"} & answer.keys()):
        assert isinstance(found, Unknown), "and never absent, which would be acted on"


GIVEN: dict[str, dict[str, Any]] = {
    "built_checkpoint": {
        "name": "/b",
        "repository": "a/b",
        "revision": "0" * 40,
        "base": "/m",
        "steps": [{"lm_head": "int8"}],
    },
    "checkpoint": {"name": "/m", "repository": "a/b", "revision": "0" * 40},
    "command": {"name": "x", "check": ["true"]},
    "directory": {"name": "/d", "mode": "0755"},
    "drain": {"name": "qwen", "turn_nodes": ["spark-01"], "seconds": 60.0, "port": 8000, "unit": "qwen.service"},
    "group_key": {"name": "/etc/sparkops/services/qwen.group", "known": "none"},
    "fabric": {
        "name": "/etc/netplan/60-fabric.yaml",
        "links": [{"slot": "a.0", "port": "a", "twin": 0, "address": "10.0.0.1/30"}],
        "mtu": 9000,
    },
    "fabric_path": {
        "name": "spark-02",
        "lines": [{"twin": 0, "address": "10.0.0.1", "peer": "10.0.0.2"}],
        "folder": "/var/lib/sparkops/fabric",
    },
    "file": {"name": "/f", "content": "x", "mode": "0644"},
    "gate": {"name": "qwen", "port": 8000, "unit": "qwen.service", "folder": "/var/lib/sparkops/generations/qwen"},
    "generation": {"name": "/var/lib/sparkops/generations/qwen", "unit": "qwen.service", "inputs": "1"},
    "image": {"name": "repo/name:tag"},
    "link": {"name": "/l", "target": "/f"},
    "mount": {"name": "/mnt", "source": "tmpfs", "fstype": "tmpfs"},
    "package": {"name": "curl"},
    "probe": {"name": "qwen", "port": 8000},
    "rank": {"name": "qwen", "container": "c"},
    "reboot": {"name": "when-needed"},
    "require": {"name": "gpu", "expect": {"driver_version": {"matches": ["580.*"]}, "memory_bytes": {"at_least": 1}}},
    "sysctl": {"name": "vm.swappiness", "value": 1},
    "unit": {"name": "x.service", "content": "[Service]\n", "running": True, "inputs": "1", "container": "c"},
    "user": {"name": "ada", "groups": ["docker"], "authorized_keys": []},
}


def test_every_kind_is_tried() -> None:
    assert GIVEN.keys() == set(names())


@pytest.mark.parametrize("name", names())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=40)
@given(data=st.data())
def test_a_state_that_no_kind_can_read_makes_one_resource_unknown_and_no_more(name: str, data: st.DataObject) -> None:
    one: Resource = kind(name)(node="n1", **GIVEN[name])
    keys = sorted({*(one.desired() or {}), "text", "type", "content", "drop_ins", "state", "why", "value", "size"})
    found = data.draw(st.dictionaries(st.sampled_from(keys), JSON, max_size=5))
    other = kind("file")(node="n1", name="/other")
    seen = plan.Observations(found={one.id: one.observed({"found": found}), other.id: {"type": "file"}})
    made = plan.compare([one, other], seen, today=datetime.date(2026, 1, 1))
    assert other.id not in made.unknown
    json.dumps([[step.before, step.diff] for step in made.steps])


# The worker's side


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real worker, as it is sent."""
    path = tmp_path_factory.mktemp("worker") / "program"
    path.write_bytes(bundle.kinds_bundle(["file"]))
    return path


Told = Callable[[bytes], "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="module")
def told(program: Path) -> Told:
    """Starts the worker as a node does, tells it these bytes, and waits for its end."""
    boot = f"exec(compile(open({str(program)!r},'rb').read(), '<worker>', 'exec', dont_inherit=True))"

    def tell(data: bytes) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", boot], input=data, capture_output=True, timeout=60, check=False
        )

    return tell


def answers(output: bytes) -> list[dict[str, Any]]:
    stream, found = io.BytesIO(output), []
    while (message := frames.read(stream)) is not None:
        found.append(message)
    return found


@settings(max_examples=15, deadline=None)
@given(st.binary(min_size=1, max_size=200))
def test_a_worker_that_reads_garbage_leaves_in_words(told: Told, data: bytes) -> None:
    done = told(data)
    said = done.stderr.decode()
    assert done.returncode == 1
    assert said.startswith("sparkops worker: ") and "Traceback" not in said


@settings(max_examples=15, deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=4))
def test_a_worker_that_is_told_nonsense_answers_or_leaves_in_words(told: Told, messages: list[dict[str, Any]]) -> None:
    done = told(b"".join(frames.encode(message) for message in messages))
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr.decode()
    answers(done.stdout)


def test_a_frame_that_never_ends_changes_nothing(told: Told, tmp_path: Path) -> None:
    path = tmp_path / "f"
    order = {
        "kind": "file",
        "id": "file",
        "ask": {"path": str(path), "sha256": "", "size": 0},
        "before": None,
        "want": {"type": "file"},
        "action": "create",
        "act": {"content": b"x"},
    }
    whole = frames.encode({"id": 1, "call": "converge", "args": order})
    done = told(whole[:-1])
    assert done.returncode == 1 and b"ended inside a frame" in done.stderr
    assert not path.exists()
    assert told(whole).returncode == 0
    assert path.exists(), "the same bytes whole are an order"


@pytest.mark.parametrize(
    "args", [[], "x", {"asks": 1}, {"asks": [[1]]}, {"asks": [[1, 2, 3]]}, {"asks": [["a", "file", None]]},
             {"asks": [["a", "../main", {}]]}, {"asks": [["a", "file", {"path": "relative"}]], "limit": "x"}],
)  # fmt: skip
def test_a_question_of_the_wrong_shape_is_answered_by_an_error_or_unknown(told: Told, args: Any) -> None:
    done = told(frames.encode({"id": 7, "call": "observe", "args": args}))
    (answer,) = answers(done.stdout)
    assert answer["id"] == 7
    assert "error" in answer or all("$unknown" in each for each in answer["result"]["answers"].values())


def test_an_answer_too_large_to_send_is_an_error_with_the_way_out(told: Told, tmp_path: Path) -> None:
    """Three hundred texts of 64 kB, each of which would be shown beside the declared one."""
    (tmp_path / "f").write_text("x" * (64 << 10))
    asks = [[str(n), "file", {"path": str(tmp_path / "f"), "sha256": "", "size": 0}] for n in range(300)]
    done = told(frames.encode({"id": 1, "call": "observe", "args": {"asks": asks}}))
    (answer,) = answers(done.stdout)
    what, hint = words(answer["error"]["id"], answer["error"]["args"])
    assert "over the limit" in what
    assert "--limit" in hint


@given(
    st.dictionaries(st.sampled_from(["now", "service", "others", "entries", "port", "path", "role"]), JSON, max_size=7)
)
def test_a_claim_that_can_not_be_read_is_unknown_and_one_that_can_is_an_orphan_or_none(entry: dict[str, Any]) -> None:
    answer = {
        "found": {
            "strays": {"directory /a": entry, "unit b.service": entry},
            "foreign": {},
            "claims": {},
            "renamed": False,
        }
    }
    seen = plan.Observations(found={}, claims={"n1": claims_of(answer)})
    orphans.find((), seen, retired=lambda node, service: node == service)


@given(JSON, JSON)
def test_a_fact_of_any_type_is_judged(value: Any, other: Any) -> None:
    words = {"at_least": 1, "includes": "x", "distinct_on_service": True}
    one, two = (
        kind("require")(node=node, name="disk", expect={"free": words}, peer_nodes=("n1", "n2"), service="q")
        for node in ("n1", "n2")
    )
    one.violations({"free": value}, {two.id: {"free": other}}.__getitem__)
