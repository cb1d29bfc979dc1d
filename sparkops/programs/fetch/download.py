"""Fetch contents from a source side by side: segments over several connections, resumed, hashed while they arrive.

A failed try is repeated with growing pauses (or the pause that the server asks for) as long as bytes come in between;
a content whose hash is wrong is dropped and fetched once more. The contents are in the working directory.
"""

import collections
import http.client
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sparkops.core.messages import Refused
from sparkops.programs.fetch.http import Remote, Retry
from sparkops.programs.fetch.pace import LONGEST_LOOK, Pace, Watch
from sparkops.programs.fetch.partial_file import Closed, Content, Ranges

BLOCK = 1 << 20
TRIES = 6
"""Tries in a row that bring nothing, after which a segment is given up."""
FEW_TRIES = 3
"""The same for what time alone hardly mends."""
LONGEST_PAUSE = 300.0
LINGER = 2.0
"""Seconds that connections get to note what has arrived when the run ends early."""

Progress = Callable[[int, int], None]
"""Called with the bytes that arrived and the bytes that turned out worthless again."""


class Body(Protocol):
    """An answer that is being read: bytes from `start` to `end` of a file, `ranged` False where it is the whole."""

    start: int
    end: int
    ranged: bool

    def take(self, limit: int) -> bytes | memoryview: ...
    def finish(self) -> bool: ...


class Getter(Protocol):
    """The connections of one thread to a source."""

    def get(self, remote: Remote, start: int, end: int) -> Body: ...
    def close(self) -> None: ...


class Source(Protocol):
    """Where contents come from: a hub, or another node.

    `unavailable` and `wrong_content` are the ids of the errors that it does not answer (arguments file, why, tries) and
    that its content is wrong (file, found, expected); `name` is what people call it.
    """

    @property
    def name(self) -> str: ...

    @property
    def unavailable(self) -> str: ...
    @property
    def wrong_content(self) -> str: ...
    def remote(self, path: str, size: int) -> Remote: ...
    def client(self, stall: float) -> Getter: ...


@dataclass(frozen=True)
class Options:
    """How to fetch: connections, bytes of a segment, seconds of silence (`stall`), seconds of the first pause.

    A connection's rate is looked at after `look` seconds; a fetch that crawls for `patience` seconds is given up.
    """

    connections: int = 6
    segment: int = 64 << 20
    stall: float = 30.0
    pause: float = 0.5
    look: float = 10.0
    patience: float = 900.0

    @property
    def journal(self) -> int:
        """Bytes after which a segment's progress is noted: all connections together lose less than one segment."""
        return max(1, self.segment // (self.connections + 1))


class File:
    """A content, where it comes from, and how it is being fetched."""

    def __init__(self, content: Content, remote: Remote) -> None:
        self.content = content
        self.remote = remote
        self.single: Segment | None = None
        self.again = False
        self.not_before = 0.0
        """Until then (monotonic seconds) the source does not have it."""

    def alone(self, segment: "Segment") -> bool:
        """Whether this segment is the one that reads the whole from a server that ignores ranges."""
        with self.content.lock:
            self.single = self.single or segment
            return self.single is segment


@dataclass(eq=False)
class Segment:
    """A range of a file to fetch."""

    file: File
    start: int
    end: int
    replaced: int = 0
    """How often its connection was replaced because it was slow."""


class Fetch:
    """One run over some contents. `check` raises Refused when it has to stop; `verified` gets each that is complete."""

    def __init__(
        self,
        source: Source,
        options: Options,
        progress: Progress,
        check: Callable[[], None],
        verified: Callable[[Content], None] = lambda _: None,
    ) -> None:
        self._source = source
        self._verified = verified
        self._options = options
        self._progress = progress
        self._check = check
        self._queue: collections.deque[Segment] = collections.deque()
        self._open = 0
        self._turn = threading.Condition()
        self._not_before = 0.0
        self._failure: BaseException | None = None
        self._pace = Pace(options.connections, time.monotonic())

    def run(self, wanted: list[tuple[Content, str]]) -> None:
        """Fetch `[(content, path in the repository)]`. Raises Refused; what has arrived stays for the next run."""
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._options.connections)]
        self._open = 1
        for thread in threads:
            thread.start()
        try:
            for content, path in wanted:
                self._check()
                self._add(File(content, self._source.remote(path, content.size)))
            self._finished()
            while any(thread.is_alive() for thread in threads):
                self._check()
                self._require_progress()
                time.sleep(0.05)
        except BaseException as error:  # noqa: BLE001 - raised again below, once the threads have noted what arrived
            self._fail(error)
        deadline = time.monotonic() + LINGER
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._failure is not None:
            raise self._failure

    def _require_progress(self) -> None:
        """Raises Refused `source-crawls`: what would take days is better begun anew, or from elsewhere."""
        patience = self._options.patience
        rate = self._pace.crawling(time.monotonic(), patience)
        if rate is not None:
            raise Refused.of("source-crawls", source=self._source.name, rate=round(rate), seconds=patience)

    def _finished(self) -> None:
        with self._turn:
            self._open -= 1
            self._turn.notify_all()

    def _add(self, file: File) -> None:
        content = file.content
        content.open()
        self._progress(content.arrived, 0)
        missing = content.missing()
        self._line_up(file, missing or [(content.size, content.size)])

    def _line_up(self, file: File, ranges: Ranges) -> None:
        """Put ranges into the queue; an empty one stands for hashing what is there."""
        size = self._options.segment
        with self._turn:
            for start, end in ranges:
                edges = range(start, end, size) or [start]
                self._queue.extend(Segment(file, edge, min(edge + size, end)) for edge in edges)
                self._open += len(edges)
            self._turn.notify_all()

    def _work(self) -> None:
        client = self._source.client(self._options.stall)
        try:
            while (segment := self._take()) is not None:
                if self._segment(client, segment):
                    self._finished()
        except BaseException as error:  # noqa: BLE001 - the run's end is told to who waits for it
            self._fail(error)
        finally:
            client.close()

    def _take(self) -> Segment | None:
        with self._turn:
            while self._failure is None and self._open:
                if self._queue:
                    now = time.monotonic()
                    ready = (n for n, each in enumerate(self._queue) if each.file.not_before <= now)
                    if (number := next(ready, -1)) >= 0:
                        segment = self._queue[number]
                        del self._queue[number]
                        return segment
                self._turn.wait(0.1 if self._queue else 0.5)
        return None

    def _fail(self, error: BaseException) -> None:
        with self._turn:
            self._failure = self._failure or error
            self._turn.notify_all()

    def _segment(self, client: Getter, segment: Segment) -> bool:
        """One segment to its end, over as many tries as it takes; False where it has to wait for its source."""
        position, tries, file = segment.start, 0, segment.file
        if position == segment.end:
            self._settle(file, wait=True)
        while position < segment.end and file.single in (None, segment):
            self._await_turn()
            try:
                body = client.get(file.remote, position, segment.end)
                if not body.ranged and file.content.partial:
                    raise Retry("the server answers a range with the whole file", id="server-without-ranges")
                if not body.ranged and not file.alone(segment):
                    client.close()
                    return True
                segment.end = file.content.size if not body.ranged else segment.end
                position = self._read(segment, body)
                if position < body.end or not body.finish():
                    client.close()
                tries = 0
            except Closed:
                client.close()
                return True
            except Retry as error:
                if error.waiting:
                    self._put_back(segment, position, error.after or 0.0)
                    return False
                got = self._resume_at(segment, position)
                tries = 1 if got > position else tries + 1
                position = got
                client.close()
                most = FEW_TRIES if error.id else TRIES
                if tries > most:
                    id, label = error.id or self._source.unavailable, file.remote.label
                    raise Refused.of(id, file=label, why=error.why, tries=most) from None
                self._pause(tries, error.after)
        return True

    def _put_back(self, segment: Segment, position: int, pause: float) -> None:
        """Its source does not have the file yet: others go first for so many seconds."""
        now = time.monotonic()
        segment.start, segment.file.not_before = position, now + pause
        self._pace.excuse(now)
        with self._turn:
            self._queue.appendleft(segment)

    def _resume_at(self, segment: Segment, position: int) -> int:
        """From where a broken-off segment has to go on."""
        if segment.file.single is segment:
            return 0
        for start, end in segment.file.content.done:
            if start <= position < end:
                return min(end, segment.end)
        return position

    def _read(self, segment: Segment, body: Body) -> int:
        """Store a body's bytes; returns where it ended. Raises Retry when it breaks off or crawls."""
        content = segment.file.content
        position = noted = body.start
        look = min(LONGEST_LOOK, self._options.look * 2**segment.replaced)
        watch = Watch(self._pace, self._options.stall, look, time.monotonic())
        try:
            while position < body.end:
                self._stop()
                try:
                    data = body.take(min(BLOCK, body.end - position))
                except (OSError, http.client.HTTPException) as error:
                    raise Retry(_broken(error)) from None
                if not data:
                    raise Retry(f"the connection ended {body.end - position} bytes early")
                content.write(position, data)
                position += len(data)
                self._progress(len(data), 0)
                if position - noted >= self._options.journal and position < body.end:
                    self._note(segment.file, noted, position)
                    noted = position
                if (pace := watch.add(len(data), time.monotonic())) == "silent":
                    raise Retry("the server all but stopped sending")
                if pace and position < body.end:
                    segment.replaced, segment.file.remote.located = segment.replaced + 1, ""
                    raise Retry("the connection is slow, another one is tried", 0.0)
        finally:
            if position > noted and segment.file.single in (None, segment):
                self._note(segment.file, noted, position)
        return position

    def _note(self, file: File, start: int, end: int) -> None:
        self._settle(file, wait=file.content.mark(start, end))

    def _settle(self, file: File, wait: bool) -> None:
        """Hash on; what is damaged is fetched again, what is whole is proven."""
        damaged = file.content.follow(wait)
        if damaged:
            file.single = None
            self._progress(0, sum(end - start for start, end in damaged))
            self._line_up(file, damaged)
        if file.content.whole():
            self._prove(file)

    def _prove(self, file: File) -> None:
        content = file.content
        found = content.prove()
        if found == content.oid:
            self._verified(content)
            return
        self._progress(0, content.size)
        if file.again:
            id, label = self._source.wrong_content, file.remote.label
            raise Refused.of(id, file=label, found=found, expected=content.oid)
        file.again, file.single, file.remote.located = True, None, ""
        self._add(file)

    def _stop(self) -> None:
        if self._failure is not None:
            raise Refused.of("cancelled", type="cancelled")

    def _await_turn(self) -> None:
        while True:
            self._stop()
            wait = self._not_before - time.monotonic()
            if wait <= 0:
                return
            time.sleep(min(wait, 0.2))

    def _pause(self, tries: int, asked: float | None) -> None:
        """Hold this connection back, or all of them where the server asked for it."""
        if asked is not None:
            self._not_before = max(self._not_before, time.monotonic() + min(asked, LONGEST_PAUSE))
            if asked > 0:
                return
        until = time.monotonic() + self._options.pause * 2 ** min(tries - 1, 6) * random.uniform(0.75, 1.25)
        while asked is None and (left := until - time.monotonic()) > 0:
            self._stop()
            time.sleep(min(left, 0.2))


def _broken(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the server stopped sending"
    return f"the connection broke off ({getattr(error, 'strerror', None) or error or type(error).__name__})"
