"""Servers that trickle: a limit of silence does not end them, so each question has one for the whole."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sparkops.core.messages import Refused, Unknown
from sparkops.programs import docker
from sparkops.programs.fetch.download import Fetch, Options
from sparkops.programs.fetch.http import Hub, Retry
from sparkops.programs.fetch.pace import CRAWL, FLOOR, Pace, Watch
from sparkops.programs.fetch.partial_file import Content, make_store
from tests.errors import fails
from tests.lab.hub import Fault
from tests.lab.hub import Hub as LabHub
from tests.programs.test_fetch import oid
from tests.programs.trickling import trickling

HEAD = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes START-999/1000\r\n\r\n"
MOVED = b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 9999\r\n\r\n"
LINES = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
VERSION = b'HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n{"ApiVersion": "1.41", "MinAPIVersion":""}'


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def hub(port: int) -> Hub:
    return Hub(f"http://127.0.0.1:{port}", "org/x", "0" * 40, "")


@pytest.mark.parametrize("at_once", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: ", MOVED])
def test_the_head_of_a_hubs_answer_has_to_be_there_in_time(at_once: bytes) -> None:
    with trickling(at_once) as server, at_most(60):
        client = hub(server.port).client(0.5)
        with pytest.raises(Retry):
            client.get(hub(server.port).remote("f", 1000), 0, 1000)
        client.close()
    until = time.monotonic() + 60
    while any("ask" in each.name for each in threading.enumerate()):
        assert time.monotonic() < until, "a question that was given up goes on"
        time.sleep(0.05)


def test_a_body_that_trickles_is_broken_off_like_one_that_is_silent(place: Path) -> None:
    with trickling(HEAD) as server, at_most(60):
        options = Options(connections=1, stall=0.4, pause=0.01, look=60, patience=3)
        with fails("source-crawls", Refused):
            Fetch(hub(server.port), options, lambda *_: None, lambda: None).run([(Content(oid(b""), 1000), "f")])
        assert server.connections > 2, "a new connection was tried each time"


@pytest.mark.parametrize("at_once", [b"", VERSION[:20]])
def test_docker_that_trickles_is_unknown_in_time(tmp_path: Path, at_once: bytes) -> None:
    docker.versions.cache_clear()
    path = str(tmp_path / "d.sock")
    with trickling(at_once, path=path), at_most(60), fails("docker-silent", Unknown):
        docker.request("GET", "/version", timeout=0.5, at=path)


def test_a_stream_of_docker_that_never_ends_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "api_version", lambda at: "1.41")
    path = str(tmp_path / "d.sock")
    with trickling(LINES, b"3\r\n{}\n\r\n", path=path), at_most(60), fails("docker-unfinished", Unknown):
        list(docker.stream("POST", "/images/create", silence=2.0, whole=0.5, at=path))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_store()
    return tmp_path


def fetched(server: LabHub, commit: str, data: bytes, **more: Any) -> list[str]:
    source = Hub(server.endpoint, "org/x", commit, "")
    proven: list[str] = []
    given = {"connections": 2, "segment": len(data), "stall": 30.0, "pause": 0.01, "look": 0.5, **more}
    Fetch(source, Options(**given), lambda *_: None, lambda: None, lambda each: proven.append(each.oid)).run(
        [(Content(oid(data), len(data)), "model.safetensors")]
    )
    return proven


def test_a_connection_that_is_slow_is_replaced_for_the_rest(place: Path) -> None:
    data = os.urandom(400_000)
    (place / "repo").mkdir()
    (place / "repo" / "model.safetensors").write_bytes(data)
    with LabHub() as server, at_most(60):
        commit = server.add_repo("org/x", place / "repo")
        server.fail("*", Fault(rate=2_000), times=1)
        assert fetched(server, commit, data) == [oid(data)]
        ranges = [each.range for each in server.requests if each.origin == "store"]
        assert ranges[-1] is not None and int(ranges[-1].removeprefix("bytes=").partition("-")[0]) > 0


def test_where_every_connection_is_slow_they_are_not_replaced_again_and_again(place: Path) -> None:
    data = os.urandom(60_000)
    (place / "repo").mkdir()
    (place / "repo" / "model.safetensors").write_bytes(data)
    with LabHub() as server:
        commit = server.add_repo("org/x", place / "repo")
        server.fail("*", Fault(rate=15_000))
        began = time.monotonic()
        assert fetched(server, commit, data, connections=1) == [oid(data)]
        looks = math.log2(1 + 2 * (time.monotonic() - began))  # each is twice as long as the one before
        assert len([each for each in server.requests if each.origin == "store"]) <= 1 + looks


# The judgement, on values


def test_a_connection_is_slow_below_the_floor_or_below_a_share_of_the_best() -> None:
    pace = Pace(2, 0.0)
    assert pace.slow(FLOOR - 1)
    assert not pace.slow(FLOOR)
    assert not pace.slow(100e6)
    assert pace.slow(1e6)
    assert not pace.slow(10e6)


def test_a_fetch_crawls_only_over_the_whole_of_its_patience() -> None:
    pace = Pace(1, 0.0)
    pace.arrived(int(CRAWL * 5))
    assert pace.crawling(9.9, 10) is None
    assert pace.crawling(10.0, 10) == CRAWL / 2
    pace.arrived(int(CRAWL * 10))
    assert pace.crawling(20.0, 10) is None
    pace.excuse(29.0)
    assert pace.crawling(30.0, 10) is None


def test_a_watch_tells_silence_from_slowness() -> None:
    watch = Watch(Pace(1, 0.0), stall=30.0, look=10.0, now=0.0)
    assert [watch.add(10_000, float(now)) for now in (5, 10, 15)] == ["", "slow", ""]
    assert watch.add(1, 29.0) == "slow"
    quiet = Watch(Pace(1, 0.0), stall=30.0, look=100.0, now=0.0)
    assert quiet.add(100, 30.0) == "silent"
