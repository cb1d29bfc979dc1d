"""A live worker on a node: calls with answers, streams with progress, duplex channels of binary data.

It knows frames and ids; it must not know what a call means. One thread reads; any thread may call.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, TypeVar

from sparkops.core import frames
from sparkops.core.errors import ConnectionFailed, ConvergeFailed, LockBusy, SparkopsError, Stale, WorkerFailed
from sparkops.core.messages import Fields, Refused
from sparkops.nodes.transport import Stream

Each = TypeVar("Each")
Value = TypeVar("Value")
Message = dict[str, object]
"""A frame's content, before its call is known."""
POLL = 0.5
SLEPT = 5.0
"""Seconds beyond a limit of a second or less after which this process was stopped, not the node slow."""
SILENCE = 45.0
"""Seconds without any frame (the worker sends one every five) after which the node counts as gone."""
LAST_WORDS = 2.0
"""Seconds to read what a worker said before it ended, once nothing can be written to it."""
WINDOW = 16
WAITING = 64
"""Messages of one call that wait to be taken; more progress is dropped, twice as many of all are a broken worker's."""


class UnknownState(SparkopsError):
    """The worker could not find something out; nothing was done."""

    exit_status: ClassVar[int] = 3


class CallFailed(ConvergeFailed):
    """A call was refused by the worker; `detail` is longer material, `type` the worker's word for the reason."""

    detail: str = ""
    type: str = "failed"


def returned(work: Generator[Each, None, Value], take: Callable[[Each], object] = lambda _: None) -> Value:
    """What a generator returns, after `take` was given all that it yields."""
    while True:
        try:
            each = next(work)
        except StopIteration as done:
            value: Value = done.value
            return value
        take(each)


class Session:
    """One worker. `node` is the name used in messages, `claims` the `state_dir`, `cluster` and its `former`
    name that acts are for.

    `others` gives the sessions of the run's other nodes by name; it raises what kept one from opening. `fresh` opens
    one more on the same node over a connection of its own.
    """

    def __init__(
        self,
        node: str,
        stream: Stream,
        claims: Mapping[str, str] | None = None,
        others: Callable[[str], Session] | None = None,
        fresh: Callable[[], AbstractContextManager[Session]] | None = None,
    ) -> None:
        self.node = node
        self._fresh = fresh
        self._others = others
        self.claims = claims
        self._stream = stream
        self._ids = itertools.count(1)
        self._calls: dict[int, queue.SimpleQueue[Message]] = {}
        self._at_work: set[int] = set()
        self._writing = threading.Lock()
        self._over: SparkopsError | None = None
        self._leaving = False
        self._closed = False
        self._heard = time.monotonic()
        self._reader = threading.Thread(target=self._read, name=f"worker of {node}", daemon=True)
        self._reader.start()

    def call(self, name: str, args: Mapping[str, object] | None = None, *, timeout: float | None = None) -> Any:
        """The answer of a call; progress is dropped. Raises ConnectionFailed after `timeout` seconds."""
        return returned(self.stream(name, args, timeout=timeout))

    def stream(
        self, name: str, args: Mapping[str, object] | None = None, *, timeout: float | None = None
    ) -> Generator[Fields, None, Any]:
        """Start a call now; yields its progress and returns its answer. Closing the generator cancels the call."""
        number, inbox = self._start(name, args)
        return self._follow(number, inbox, timeout)

    def send(
        self, name: str, args: Mapping[str, object] | None, chunks: Iterable[bytes]
    ) -> Generator[Fields, None, object]:
        """A call that is fed with `chunks` (each well under the frame limit); yields progress, returns its answer."""
        channel = Channel(self, *self._start(name, args))
        for chunk in chunks:
            if channel.answered:
                break
            channel.write(chunk)
            yield from channel.progress()
        channel.end()
        return (yield from self._follow(channel.number, channel.inbox, None, channel.waiting))

    def channel(self, name: str, args: Mapping[str, object] | None = None) -> Channel:
        """A call that is a two-way stream of bytes, such as a relayed socket."""
        return Channel(self, *self._start(name, args))

    def peer(self, node: str) -> Session:
        """The session of another node of this run. Raises ConnectionFailed where there is none."""
        if self._others is None:
            raise ConnectionFailed.of("node-not-in-run", where=node)
        return self._others(node)

    def fresh(self) -> AbstractContextManager[Session]:
        """A session on this node over a new connection, which proves the way to it. Raises ConnectionFailed."""
        if self._fresh is None:
            raise ConnectionFailed.of("node-not-in-run", where=self.node)
        return self._fresh()

    @property
    def lost(self) -> bool:
        """Whether the worker or the way to it has gone, without anybody here having closed it."""
        return self._over is not None and not self._closed

    @property
    def silence(self) -> float:
        """Seconds since anything was heard of the worker, which gives a sign of life every five."""
        return time.monotonic() - self._heard

    @property
    def busy(self) -> bool:
        """Whether the worker may still be at something: a call that it has not answered, given up here or not."""
        return bool(self._at_work)

    def close(self, grace: float = 6.0) -> None:
        """End the session: the worker gets `grace` seconds to finish its atomic step and leave."""
        self._closed = True
        self._over = self._over or ConnectionFailed.of("session-closed", where=self.node)
        self._stream.close_input()
        self._reader.join(grace)
        self._stream.close()

    def leave(self) -> None:
        """From now on a call that is given up is not cancelled: what it does on the node goes on."""
        self._leaving = True

    def _start(self, name: str, args: Mapping[str, object] | None) -> tuple[int, queue.SimpleQueue[Message]]:
        number = next(self._ids)
        inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._calls[number] = inbox
        self._at_work.add(number)
        self.post({"id": number, "call": name, "args": dict(args or {})})
        return number, inbox

    def post(self, message: Message) -> None:
        """Write one frame. Raises what ended the session, which a frame that can't be written does too."""
        if self._over is not None:
            raise self._over
        data = frames.encode(message)
        try:
            with self._writing:
                self._stream.write(data)
        except SparkopsError as error:
            self._reader.join(LAST_WORDS)  # it may not have come to the end yet, and knows more of it
            self._end(error)
            raise self._over or error from None

    def _follow(
        self,
        number: int,
        inbox: queue.SimpleQueue[Message],
        timeout: float | None,
        waiting: Iterable[Message] = (),
    ) -> Generator[Mapping[str, object], None, object]:
        deadline = None if timeout is None else time.monotonic() + timeout
        finished = False
        early = list(waiting)
        try:
            while True:
                message = early.pop(0) if early else self.take(inbox, deadline)
                if isinstance(progress := message.get("progress"), Mapping):
                    yield progress
                elif "result" in message:
                    finished = True
                    return message["result"]
                elif "error" in message:
                    finished = True
                    raise self._error(message["error"])
        finally:
            self._calls.pop(number, None)
            if not finished and self._over is None and not self._leaving:
                self.post({"id": number, "cancel": True})

    def take(self, inbox: queue.SimpleQueue[Message], deadline: float | None = None) -> Message:
        """The next message for a call. Raises ConnectionFailed when the worker is silent for too long."""
        while True:
            asked = time.monotonic()
            late = deadline is not None and asked > deadline
            try:
                message = inbox.get(timeout=POLL)
            except queue.Empty:
                if time.monotonic() - asked > SLEPT:
                    self._heard = time.monotonic()  # this machine slept: the node's silence begins now
                if self._over is not None:
                    raise self._over from None
                if late:
                    raise self._slow() from None
                if time.monotonic() - self._heard > SILENCE:
                    self._end(ConnectionFailed.of("node-silent", where=self.node, seconds=SILENCE))
                continue
            if self._over is not None and "over" in message:
                raise self._over
            if late and "progress" in message:
                raise self._slow()
            return message

    def _slow(self) -> ConnectionFailed:
        return ConnectionFailed.of("node-answer-late", where=self.node)

    def _error(self, error: object) -> SparkopsError:
        refused = Refused.from_json(error)
        kinds: Mapping[str, type[SparkopsError]] = {"stale": Stale, "busy": LockBusy, "unknown": UnknownState}
        kind = kinds.get(refused.type, CallFailed)
        made = kind(refused.id, refused.values, where=self.node, front_end="inventory")
        if isinstance(made, CallFailed):
            made.detail, made.type = refused.detail, refused.type
        return made

    def _read(self) -> None:
        try:
            while (message := frames.read(self._stream)) is not None:
                self._heard = time.monotonic()
                if "beat" in message:
                    self._answer_beat()
                    continue
                number = message.get("id", 0)
                if not isinstance(number, int):
                    raise frames.BadFrame("an answer whose id is not a number")
                if "result" in message or "error" in message:
                    self._at_work.discard(number)
                inbox = self._calls.get(number)
                if inbox is None or ("progress" in message and inbox.qsize() >= WAITING):
                    continue
                if inbox.qsize() >= 2 * WAITING:
                    raise frames.BadFrame("more data than was asked for")
                inbox.put(message)
            self._end(self._ended())
        except (frames.BadFrame, EOFError) as error:
            self._end(WorkerFailed.of("worker-answer-broken", where=self.node, reason=str(error)))
        except SparkopsError as error:
            self._end(error)

    def _answer_beat(self) -> None:
        """Show the worker that somebody listens; what is being sent just now shows it too."""
        if self._writing.acquire(blocking=False):
            try:
                self._stream.write(frames.encode({"beat": 1}))
            except SparkopsError:
                pass  # the stream's end says it, in `_read`
            finally:
                self._writing.release()

    def _ended(self) -> SparkopsError:
        said = self._stream.stderr().strip()
        return WorkerFailed.of("worker-ended", where=self.node, output=f": {said.splitlines()[-1]}" if said else "")

    def _end(self, error: SparkopsError) -> None:
        self._over = self._over or error
        for inbox in list(self._calls.values()):
            inbox.put({"over": True})


class Channel:
    """A call as a two-way stream of bytes with credits, so that no channel starves another."""

    def __init__(self, session: Session, number: int, inbox: queue.SimpleQueue[Message]) -> None:
        self.session = session
        self.number = number
        self.inbox = inbox
        self.waiting: list[Message] = []
        self.result: object = None
        self._credit = WINDOW

    def write(self, data: bytes) -> None:
        """Send one chunk; waits for the worker's credit. Raises the worker's error when the call has ended with one."""
        while self._credit == 0:
            self._note(self.session.take(self.inbox))
            if self.answered:
                return
        self._credit -= 1
        self.session.post({"id": self.number, "data": data})

    @property
    def answered(self) -> bool:
        """Whether the call has ended with a result: it wants no more data."""
        return any("result" in message for message in self.waiting)

    def end(self) -> None:
        """No more data from here."""
        self.session.post({"id": self.number, "end": True})

    def close(self) -> None:
        """Let go of the call, whether it has ended or not; what still comes for it is dropped."""
        if self.session._calls.pop(self.number, None) is not None and self.session._over is None:
            self.session.post({"id": self.number, "cancel": True})

    def progress(self) -> Iterable[Mapping[str, object]]:
        """The progress that has come in meanwhile."""
        while not self.inbox.empty():
            self._note(self.session.take(self.inbox))
        found = [each for message in self.waiting if isinstance(each := message.get("progress"), Mapping)]
        self.waiting = [message for message in self.waiting if "progress" not in message]
        return found

    def _note(self, message: Message) -> None:
        if isinstance(credit := message.get("credit"), int):
            self._credit += credit
            return
        if "error" in message:
            raise self.session._error(message["error"])
        self.waiting.append(message)

    def read(self) -> bytes:
        """The next chunk from the worker; b"" when the call is over, with its answer in `result`. Raises its error."""
        while True:
            message = self.waiting.pop(0) if self.waiting else self.session.take(self.inbox)
            if isinstance(data := message.get("data"), bytes):
                self.session.post({"id": self.number, "credit": 1})
                return data
            if "result" in message:
                self.result = message["result"]
                return b""
            self._note(message)
