"""The frame codec: what is written is read back, and nothing that is no frame is believed."""

import io
import sys
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core import frames
from sparkops.core.messages import Refused
from sparkops.worker.calls import Call
from sparkops.worker.main import Loop

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=200),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text().filter(lambda k: k != "$b"), inner, max_size=4)
    ),
    max_leaves=12,
)
MESSAGES = st.dictionaries(st.text().filter(lambda key: key != "$b"), PLAIN, max_size=5)


@given(st.lists(MESSAGES, max_size=4))
def test_what_is_written_is_read_back(messages: list[dict[str, object]]) -> None:
    stream = io.BytesIO(b"".join(frames.encode(message) for message in messages))
    assert [frames.read(stream) for _ in messages] == messages
    assert frames.read(stream) is None


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_a_frame_or_refused(data: bytes) -> None:
    stream = io.BytesIO(data)
    try:
        while frames.read(stream) is not None:
            pass
    except (frames.BadFrame, EOFError):
        pass


@given(MESSAGES, st.data())
def test_a_frame_that_is_cut_short_is_no_frame(message: dict[str, object], data: st.DataObject) -> None:
    whole = frames.encode(message)
    cut = whole[: data.draw(st.integers(1, len(whole) - 1))]
    with pytest.raises(EOFError):
        frames.read(io.BytesIO(cut))


def test_a_huge_length_is_refused_before_anything_is_read() -> None:
    with pytest.raises(frames.BadFrame, match="frame length"):
        frames.read(io.BytesIO((frames.LIMIT + 1).to_bytes(4, "big") + b"x" * 10))


@pytest.mark.parametrize("mark", [[0, 99], [-1, 1], [0], ["a", 1], [True, 1]])
def test_a_binary_mark_outside_of_its_frame_is_refused(mark: list[object]) -> None:
    whole = frames.encode({"x": {"$b": mark}})
    with pytest.raises(frames.BadFrame, match="binary mark"):
        frames.read(io.BytesIO(whole))


@pytest.mark.parametrize("unsendable", [{1, 2}, "x" * (frames.TEXT_LIMIT + 1)], ids=["no plain value", "too large"])
def test_an_answer_that_cannot_be_sent_is_an_error_like_any_other(
    monkeypatch: pytest.MonkeyPatch, unsendable: object
) -> None:
    module = ModuleType("sparkops.worker.requests.unsendable")
    monkeypatch.setattr(module, "CALLS", {"give": lambda call, args: unsendable}, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    sink = io.BytesIO()
    assert Loop(io.BytesIO(frames.encode({"id": 1, "call": "unsendable.give"})), sink).run() == 0
    sink.seek(0)
    message = frames.read(sink)
    assert message is not None
    error = Refused.from_json(message["error"])
    assert (error.id, error.values["call"]) == ("answer-not-sent", "unsendable.give")


@pytest.mark.parametrize("kind", ["cancelled", "gone", "unknown", "failed"])
def test_what_ended_with_the_session_is_no_answer(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """It told a controller that was still there that its step had failed, when its worker was killed; of a machine that
    went down, that the reboot had not begun."""

    def wait(call: Call, args: object) -> None:
        call.stopping.wait(10)
        raise Refused("session-over", {}, kind)

    module = ModuleType("sparkops.worker.requests.waiting")
    monkeypatch.setattr(module, "CALLS", {"wait": wait}, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    sink = io.BytesIO()
    assert Loop(io.BytesIO(frames.encode({"id": 1, "call": "waiting.wait"})), sink).run() == 0
    assert sink.getvalue() == b""
