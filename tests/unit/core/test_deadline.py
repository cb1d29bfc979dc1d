"""A limit for the whole of a question, on real sockets that trickle."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkops.checkpoints.hub import Hub, HubUnreachable
from sparkops.core.deadline import DeadlineExceeded, within
from sparkops.resources.images import registry
from tests.errors import fails

REPO = "org/name"


@pytest.fixture
def trickling() -> Iterator[str]:
    """A server that answers every connection one byte at a time, for ever."""
    stopping = threading.Event()

    def trickle(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nContent-Type: application/json\r\n\r\n")
            while not stopping.wait(0.05):
                peer.sendall(b" ")

    def accept() -> None:
        while not stopping.is_set():
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=trickle, args=(peer,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        stopping.set()


def test_the_answer_or_the_exception_of_the_question() -> None:
    assert within(5.0, lambda: 7) == 7
    with pytest.raises(KeyError):
        within(5.0, lambda: {}["x"])


def test_what_takes_too_long_is_given_up() -> None:
    release = threading.Event()
    with pytest.raises(DeadlineExceeded):
        within(0.05, release.wait)
    release.set()


@pytest.mark.parametrize("question", ["resolve", "manifest", "read"])
def test_a_hub_that_trickles_is_given_up(question: str, trickling: str, tmp_path: Path) -> None:
    hub = Hub(f"http://{trickling}", None, tmp_path, whole=1.0)
    asks = {
        "resolve": lambda: hub.resolve(REPO, "main"),
        "manifest": lambda: hub.manifest(REPO, "0" * 40),
        "read": lambda: hub.read(REPO, "0" * 40, "config.json", 0, 1000),
    }
    started = time.monotonic()
    with fails("hub-too-slow", HubUnreachable):
        asks[question]()
    assert time.monotonic() - started < 15


def test_a_registry_that_trickles_suggests_no_tags(trickling: str) -> None:
    started = time.monotonic()
    assert registry.tags(f"{trickling}/lab/engine") is None
    assert time.monotonic() - started < 2 * registry.SUGGESTION_TIMEOUT
