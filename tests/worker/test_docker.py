"""The engine's socket as the worker speaks it, against a real HTTP server on a real socket."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from sparkops.worker import docker
from sparkops.worker.calls import Refused, Unknown

Answer = Callable[[BaseHTTPRequestHandler], None]


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """An engine that says what a test wants; `asked` are the requests it got."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that goes away is part of several tests."""

    def __init__(self, path: str, version: str = "1.41", oldest: str = "1.12") -> None:
        super().__init__(path, _Handler)
        self.version, self.oldest = version, oldest
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Engine

    def address_string(self) -> str:
        return "peer"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_GET(self) -> None:
        body = self._body()
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        if self.path == "/version":
            told = {"ApiVersion": self.server.version, "MinAPIVersion": self.server.oldest, "Os": "linux"}
            return say(json.dumps(told))(self)
        path = "/" + self.path.partition("?")[0].split("/", 2)[2]
        return self.server.answers[path](self)

    do_POST = do_DELETE = do_GET

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))


def say(text: str, status: int = 200) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(text.encode())))
        handler.end_headers()
        handler.wfile.write(text.encode())

    return answer


def lines(*parts: str, pause: float = 0.0, end: bool = True) -> Answer:
    """A chunked answer, one chunk a part; without `end` the connection breaks inside of it."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for part in parts:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part.encode()), part.encode()))
            handler.wfile.flush()
            time.sleep(pause)
        if end:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    return answer


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., tuple[Engine, str]]]:
    started: list[Engine] = []

    def start(**more: str) -> tuple[Engine, str]:
        path = str(tmp_path / f"{len(started)}.sock")
        engine = Engine(path, **more)
        threading.Thread(target=engine.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        started.append(engine)
        return engine, path

    docker.versions.cache_clear()
    yield start
    for engine in started:
        engine.shutdown()
        engine.server_close()


Serve = Callable[..., tuple[Engine, str]]


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
    with pytest.raises(Unknown, match=r"1\.41"):
        docker.ask("/info", at=at)


def test_what_the_engine_does_not_have_is_none(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/images/x/y:1/json"] = say('{"message": "No such image"}', 404)
    assert docker.inspect_image("x/y:1", at=at) is None


def test_a_refusal_is_unknown_to_a_look_and_an_error_to_an_act(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/images/x/json"] = engine.answers["/images/x"] = say('{"message": "broken store"}', 500)
    with pytest.raises(Unknown, match="500: broken store"):
        docker.inspect_image("x", at=at)
    with pytest.raises(docker.EngineError, match="broken store"):
        docker.act("DELETE", "/images/x", at=at)


def test_nobody_listening_is_told_apart_and_unknown_to_a_look(tmp_path: Path) -> None:
    docker.versions.cache_clear()
    at = str(tmp_path / "none.sock")
    with pytest.raises(FileNotFoundError):
        docker.request("GET", "/info", at=at)
    with pytest.raises(Unknown, match="does not listen"):
        docker.ask("/info", at=at)


def test_an_engine_that_hangs_is_unknown_in_time(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/info"] = lambda handler: time.sleep(3)
    began = time.monotonic()
    with pytest.raises(Unknown, match="does not answer"):
        docker.ask("/info", timeout=0.3, at=at)
    assert time.monotonic() - began < 2


def test_an_answer_that_is_no_json_is_unknown(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/info"] = say("<html>")
    with pytest.raises(Unknown, match="no JSON"):
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
    with pytest.raises(Refused):
        list(docker.stream("POST", "/build", at=at))


def test_silence_inside_of_a_stream_is_unknown(serve: Serve) -> None:
    engine, at = serve()
    engine.answers["/build"] = lines('{"a": 1}\n', '{"a": 2}\n', pause=3)
    with pytest.raises((Unknown, Refused)):
        list(docker.stream("POST", "/build", silence=0.6, at=at))


def test_a_stream_ends_when_it_is_told_to(serve: Serve) -> None:
    engine, at = serve()
    stopping = threading.Event()
    engine.answers["/build"] = lines('{"a": 1}\n', '{"a": 2}\n', pause=5)
    began = time.monotonic()
    with pytest.raises(Refused, match="cancelled"):
        for _ in docker.stream("POST", "/build", stopping=stopping, at=at):
            stopping.set()
    assert time.monotonic() - began < 3


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
