"""The engine's socket as the worker speaks it, against a real HTTP server on a real socket."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkops.programs import docker
from sparkops.worker.calls import Refused, Unknown
from sparkops.worker.images import build
from tests.errors import fails
from tests.worker.engines import Engine, lines, running, say

Serve = Callable[..., tuple[Engine, str]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts engines on sockets of their own; each comes with its path."""
    docker.versions.cache_clear()
    with contextlib.ExitStack() as started:

        def start(**more: str) -> tuple[Engine, str]:
            path = str(tmp_path / f"{len(list(tmp_path.iterdir()))}.sock")
            return started.enter_context(running(path, **more)), path

        yield start


def test_an_answer_is_its_status_and_its_body(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/info"] = say('{"a": 1}')
    assert docker.request("GET", "/info", at=at) == (200, b'{"a": 1}')
    assert engine.asked[-1][1] == "/v1.41/info"


@pytest.mark.parametrize(
    ("newest", "oldest", "spoken"),
    [("1.41", "1.12", "1.41"), ("1.47", "1.24", "1.47"), ("1.52", "1.44", "1.48"), ("1.60", "1.50", "1.50")],
)
def test_the_version_spoken_is_one_that_the_engine_still_has(
    serve: Serve, newest: str, oldest: str, spoken: str
) -> None:
    _, at = serve(version=newest, oldest=oldest)
    assert docker.api_version(at) == spoken


def test_an_engine_that_is_too_old_is_unknown(serve: Serve) -> None:
    _, at = serve(version="1.39")
    with fails("docker-too-old", Unknown):
        docker.ask("/info", at=at)


def test_what_the_engine_does_not_have_is_none(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/images/x/y:1/json"] = say('{"message": "No such image"}', 404)
    assert docker.inspect_image("x/y:1", at=at) is None


def test_a_refusal_is_unknown_to_a_look_and_an_error_to_an_act(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/images/x/json"] = engine.answers["/images/x"] = say('{"message": "broken store"}', 500)
    with fails("docker-error-status", Unknown):
        docker.inspect_image("x", at=at)
    with pytest.raises(docker.EngineError, match="broken store"):
        docker.act("DELETE", "/images/x", at=at)


def test_nobody_listening_is_unknown_and_says_so(tmp_path: Path) -> None:
    docker.versions.cache_clear()
    at = str(tmp_path / "none.sock")
    with fails("docker-not-running", Unknown):
        docker.ask("/info", at=at)
    with fails("docker-not-running", Unknown):
        docker.act("POST", "/containers/create", {}, at=at)


def test_an_engine_that_hangs_is_unknown_in_time(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/info"] = lambda handler: time.sleep(40)
    began = time.monotonic()
    with fails("docker-silent", Unknown):
        docker.ask("/info", timeout=0.3, at=at)
    assert time.monotonic() - began < 30


def test_an_answer_that_is_no_json_is_unknown(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/info"] = say("<html>")
    with fails("docker-answer-invalid", Unknown):
        docker.ask("/info", at=at)


def test_containers_are_asked_for_with_filters(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/containers/json"] = say('[{"Id": "1"}]')
    assert docker.containers({"label": ["a=b"]}, at=at) == [{"Id": "1"}]
    assert "all=1" in engine.asked[-1][1] and "label" in engine.asked[-1][1]


def test_lines_come_as_objects_however_they_are_cut(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/build"] = lines('{"a": 1}\r\n{"a"', ": 2}\r\n\r\n", '{"a": 3}\n')
    assert list(docker.stream("POST", "/build", at=at)) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_an_error_inside_of_a_stream_is_raised(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/build"] = lines('{"a": 1}\n', '{"error": "no space left on device"}\n')
    with pytest.raises(docker.EngineError, match="no space left"):
        list(docker.stream("POST", "/build", at=at))


def test_a_stream_that_breaks_is_an_error(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/build"] = lines('{"a": 1}\n', end=False)
    with fails("docker-connection-broken", Refused):
        list(docker.stream("POST", "/build", at=at))


def test_silence_inside_of_a_stream_is_unknown(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/build"] = lines('{"a": 1}\n', '{"a": 2}\n', pause=10)
    with pytest.raises((Unknown, Refused)):
        list(docker.stream("POST", "/build", silence=0.6, at=at))


def test_a_stream_ends_when_it_is_told_to(serve: Serve) -> None:
    engine, at = serve()
    stopping = threading.Event()
    engine.answers["/build"] = lines('{"a": 1}\n', '{"a": 2}\n', pause=40)
    began = time.monotonic()
    with fails("cancelled", Refused):
        for _ in docker.stream("POST", "/build", stopping=stopping, at=at):
            stopping.set()
    assert time.monotonic() - began < 30


def test_a_body_of_parts_is_sent_as_it_comes(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/images/load"] = lines('{"stream": "ok"}\n')
    list(docker.stream("POST", "/images/load", iter([b"a" * 70_000, b"b"]), at=at))
    assert engine.asked[-1][3] == b"a" * 70_000 + b"b"


def test_a_mapping_is_sent_as_json(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/containers/create"] = say('{"Id": "1"}', 201)
    assert docker.act("POST", "/containers/create", {"Image": "x"}, at=at) == {"Id": "1"}
    assert json.loads(engine.asked[-1][3]) == {"Image": "x"}


def test_an_answer_that_is_reset_is_unknown(tmp_path: Path) -> None:
    path = str(tmp_path / "reset.sock")
    version = json.dumps({"ApiVersion": "1.41"})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as asked:
                asked.recv(1 << 16)
                asked.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(version)}\r\n\r\n{version}".encode())
            with listener.accept()[0] as asked:  # closed with its question unread
                asked.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")

        threading.Thread(target=serve, daemon=True).start()
        with fails("docker-connection-broken", Unknown):
            docker.ask("/info", at=path)


def test_the_log_of_a_container_comes_without_frames_whatever_their_bytes_are(serve: Serve) -> None:
    engine, at = serve()
    framed = b"\1\0\0\0\0\0\0\12" + b"123456789\n" + b"\2\0\0\0\0\0\0\4end\n"
    engine.answers["/containers/c/logs"] = say(framed)
    assert docker.logs("c", 5, at=at) == "123456789\nend\n"
    engine.answers["/containers/tty/logs"] = say("plain text of a terminal\r\n")
    assert docker.logs("tty", 5, at=at) == "plain text of a terminal\r\n"
    engine.answers["/containers/gone/logs"] = say('{"message": "no such container"}', 404)
    assert docker.logs("gone", 5, at=at) is None


def test_a_check_whose_engine_goes_away_is_not_one_that_does_not_end(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/containers/create"] = say('{"Id": "c"}')
    engine.answers["/containers/c/start"] = say("")
    engine.answers["/containers/c/wait"] = lines('{"Stat', end=False)
    engine.answers["/containers/c"] = say("")
    order: Any = {"name": "local/x:1", "at": at}
    with fails("docker-connection-broken", Unknown):
        build.check("x", ["true"], order)
    engine.answers["/containers/c/wait"] = say('{"StatusCode": 3}')
    engine.answers["/containers/c/logs"] = say(b"\2\0\0\0\0\0\0\5wrong")
    with fails("image-check-failed", Refused) as caught:
        build.check("x", ["true"], order)
    assert (caught.value.values["status"], caught.value.values["text"]) == (3, "wrong")
    assert [path for method, path, _, _ in engine.asked if method == "DELETE"] == [
        "/v1.41/containers/c?force=1&v=1"
    ] * 2
