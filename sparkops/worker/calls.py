"""What a call on the worker gets and may raise: the context `Call`, and the two exceptions `Unknown` and `Refused`."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from queue import Empty, SimpleQueue
from types import ModuleType

from sparkops.core.messages import Refused, Unknown

__all__ = ["Call", "Refused", "Unknown", "kind"]

WINDOW = 16
"""How many data chunks may be under way before the receiver has to grant more."""


class Call:
    """One running call: reports progress, and streams binary data both ways with credits, so none starves others."""

    def __init__(self, number: int, send: Callable[[dict[str, object]], None], session_over: threading.Event) -> None:
        self.id = number
        self._send = send
        self._data: SimpleQueue[bytes | None] = SimpleQueue()
        self._credit = threading.Semaphore(WINDOW)
        self.session_over = session_over
        self.stopping = threading.Event()
        self.thread: threading.Thread | None = None

    def progress(self, text: str = "", done: float | None = None, total: float | None = None, **more: object) -> None:
        """Tell the controller how far it is; the fields of the `StepProgress` event."""
        self._send({"id": self.id, "progress": {"text": text, "done": done, "total": total, **more}})

    def take(self, message: dict[str, object]) -> None:
        """What the controller sends to a running call: data, the end of data, credit, cancel."""
        if isinstance(data := message.get("data"), bytes):
            self._data.put(data)
        if message.get("end"):
            self._data.put(None)
        credit = message.get("credit")
        for _ in range(min(credit, WINDOW) if isinstance(credit, int) else 0):
            self._credit.release()
        if message.get("cancel"):
            self.stopping.set()
            self._data.put(None)

    def receive(self) -> Iterator[bytes]:
        """The chunks that the controller sends, until it ends them; raises Refused when the session is over."""
        while True:
            try:
                chunk = self._data.get(timeout=1.0)
            except Empty:
                if self.session_over.is_set():
                    raise Refused.of("controller-gone", type="gone") from None
                continue
            if chunk is None:
                return
            yield chunk
            self._send({"id": self.id, "credit": 1})

    def send(self, data: bytes) -> None:
        """One chunk to the controller; waits for its credit."""
        while not self._credit.acquire(timeout=1.0):
            if self.session_over.is_set() or self.stopping.is_set():
                raise Refused.of("controller-gone", type="gone")
        self._send({"id": self.id, "data": data})


ROOMS = ("kinds", "requests")
"""The folders whose modules the controller names: kinds of things, and calls that are no kinds."""


def kind(name: str) -> ModuleType:
    """The worker's module of that name, of a kind or of requests. Raises Refused for one that was not sent."""
    for room in ROOMS if name.isidentifier() else ():
        with contextlib.suppress(ModuleNotFoundError):
            return import_module(f"sparkops.worker.{room}.{name}")
    raise Refused.of("kind-unknown", kind=name)
