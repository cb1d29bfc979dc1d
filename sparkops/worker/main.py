"""The worker's frame loop: requests with ids in, answers and progress out, several calls at once.

Two calls are built in: `observe` (read only, all kinds in one request) and `converge` (one resource). `lock` and
`claims` have their own modules; a kind offers further calls in its `CALLS` as `KIND.NAME`. When the input ends, the
running atomic step is finished and the process leaves within `GRACE` seconds. So it does where the controller has not
answered a beat for `LEASE` seconds: a cut connection says nothing by itself, and the lock must not outlive its owner.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import BinaryIO

from sparkops.core import frames
from sparkops.core.messages import answer
from sparkops.worker import dispatch
from sparkops.worker.calls import Call, Refused, kind

BUILT_IN: Mapping[str, Callable[..., object]] = {"observe": dispatch.observe, "converge": dispatch.converge}
BEAT = 5.0
GRACE = 5.0
LEASE = 30.0
"""Seconds without a frame of the controller, which answers each beat."""


class Loop:
    """One session: owns the output stream and the running calls."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self.source = source
        self.sink = sink
        self.writing = threading.Lock()
        self.calls: dict[int, Call] = {}
        self.stopping = threading.Event()
        self.heard = time.monotonic()

    def send(self, message: dict[str, object]) -> None:
        """Write one frame; a controller that is gone ends the session."""
        data = frames.encode(message)
        try:
            with self.writing:
                self.sink.write(data)
                self.sink.flush()
        except (OSError, ValueError):
            self.stopping.set()

    def run(self) -> int:
        """Serve until the input ends; returns the exit status."""
        threading.Thread(target=self._beat, daemon=True).start()
        status = 0
        try:
            while (message := frames.read(self.source)) is not None:
                self.heard = time.monotonic()
                self._take(message)
        except (frames.BadFrame, EOFError) as error:
            print(f"sparkops worker: {error}", file=sys.stderr)
            status = 1
        self._finish()
        return status

    def _finish(self) -> None:
        """Let what runs come to its end."""
        self.stopping.set()
        deadline = time.monotonic() + GRACE
        for call in list(self.calls.values()):
            call.stopping.set()
            if call.thread is not None:
                call.thread.join(max(0.0, deadline - time.monotonic()))

    def _beat(self) -> None:
        while not self.stopping.wait(BEAT):
            if time.monotonic() - self.heard > LEASE:
                self._finish()
                os._exit(1)  # the main thread waits for input that may never come
            self.send({"beat": 1})

    def _take(self, message: dict[str, object]) -> None:
        if "beat" in message:
            return
        number = message.get("id")
        if not isinstance(number, int):
            raise frames.BadFrame("a message without an id")
        if "call" in message:
            if number in self.calls:
                raise frames.BadFrame(f"a second call {number} while the first one runs")
            call = Call(number, self.send, self.stopping)
            self.calls[number] = call
            call.thread = threading.Thread(
                target=self._serve, args=(call, message["call"], message.get("args") or {}), daemon=True
            )
            call.thread.start()
        elif (running := self.calls.get(number)) is not None:
            running.take(message)

    def _serve(self, call: Call, name: str, args: dict[str, object]) -> None:
        message = answer(lambda: find(name)(call, args))
        try:
            if self.stopping.is_set() and _may_be_of_the_end(message):
                return  # to a controller that is still there this session is lost, and it looks again
            self.send({"id": call.id, **message})
        except (frames.BadFrame, TypeError, ValueError, RecursionError) as error:
            refused = Refused.of("answer-not-sent", call=name, reason=str(error))
            self.send({"id": call.id, "error": refused.as_json()})
        finally:
            self.calls.pop(call.id, None)


def _may_be_of_the_end(message: Mapping[str, object]) -> bool:
    """Whether a call may have failed because the session ended, which says nothing of what it was doing."""
    error = message.get("error")
    return isinstance(error, Mapping) and error.get("type") != "defect"


def find(name: str) -> Callable[..., object]:
    """The function behind a call's name: `observe`, `converge`, or `KIND.NAME` out of the kind's `CALLS`."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    module, _, function = name.partition(".")
    calls: Mapping[str, Callable[..., object]] = getattr(kind(module), "CALLS", {})
    if function not in calls:
        raise Refused.of("call-unknown", call=name)
    return calls[function]


def main() -> None:
    """Serve on standard input and output; what libraries print goes to standard error."""
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    os.environ["LC_ALL"] = "C.UTF-8"
    os.umask(0o022)
    status = Loop(source, sink).run()
    sys.stderr.flush()
    os._exit(status)
