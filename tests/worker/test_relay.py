"""The relay of the engine's socket as a macOS controller takes it.

There a socket's path has 103 bytes at most, abstract sockets are unknown, and a socket pair holds 8 KiB. So the relay
names no socket at all; the worker at its other end is a process of its own.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkops.nodes import boot, relay
from sparkops.nodes.local import LocalTransport
from sparkops.nodes.session import Session
from tests.worker.engines import Engine, running, say

HELD = 8 << 10
"""Bytes that macOS keeps of a socket pair in each direction (`net.local.stream.sendspace`, unix(4) there)."""
CONTENT = bytes(range(256)) * (3 << 12)

named: list[object] = []


def _note(event: str, args: tuple[object, ...]) -> None:
    """What this process binds, and whatever it reaches by a path."""
    if event == "socket.bind" or (event == "socket.connect" and isinstance(args[1], str | bytes)):
        named.append((event, args[1]))


sys.addaudithook(_note)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with running(str(tmp_path / "e.sock")) as found:
        yield found


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A worker of its own, whose engine is the one above."""
    program = f"""
import sys
sys.path.insert(0, {str(Path(relay.__file__).parents[2])!r})
from sparkops.worker import docker, main
docker.SOCKET = {engine.server_address!r}
main.main()
"""
    transport = LocalTransport("here")
    opened = Session("here", boot.start(transport, "here", program.encode(), become=False))
    yield opened
    opened.close()
    transport.close()


@pytest.fixture(autouse=True)
def as_on_macos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little room in socket pairs, and a folder for temporary files in which no socket has place."""
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    pair: Callable[..., tuple[socket.socket, socket.socket]] = socket.socketpair

    def small(*args: Any) -> tuple[socket.socket, socket.socket]:
        ends = pair(*args)
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, HELD // 2)  # Linux doubles it
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HELD // 2)
        return ends

    monkeypatch.setattr(socket, "socketpair", small)


def test_megabytes_pass_both_ways_and_no_socket_gets_a_name(engine: Engine, session: Session) -> None:
    engine.answers["/images/load"] = say('{"stream": "Loaded"}')
    engine.answers["/images/x/get"] = say(CONTENT.decode("latin-1"))
    named.clear()
    with contextlib.closing(relay.docker_client(session, timeout=20)) as client:
        list(client.api.load_image(iter([CONTENT]), quiet=True) or ())  # type: ignore[no-untyped-call]
        brought = b"".join(client.api.get_image("x"))
    assert engine.asked[-2][3] == CONTENT
    assert brought.decode() == CONTENT.decode("latin-1")
    assert named == []


def test_a_name_that_a_socket_gets_would_be_seen(tmp_path: Path) -> None:
    named.clear()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "s"))
    assert named == [("socket.bind", str(tmp_path / "s"))]
