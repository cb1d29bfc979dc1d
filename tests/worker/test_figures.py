"""Two readings of a service's counters, then a completion: asked of a server of this test."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sparkops.core.messages import UNKNOWN
from sparkops.worker.requests import figures


class Engine(BaseHTTPRequestHandler):
    tokens = 0
    shows = True
    open = 1

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        Engine.tokens += 10
        gauges = f"vllm:num_requests_running {Engine.open}\nvllm:num_requests_waiting 0\n"
        text = f"{gauges}vllm:generation_tokens_total {Engine.tokens}\n"
        self.answer(200 if Engine.shows else 404, text.encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Engine.tokens += 1000
        self.answer(200, json.dumps({"choices": [{"text": "x"}], "usage": {"completion_tokens": 1}}).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    monkeypatch.setattr(figures, "BETWEEN", 0.01)
    Engine.tokens, Engine.shows, Engine.open = 0, True, 1
    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"host": "127.0.0.1", "port": server.server_port, "model": "m", "prompt": "x", "max_tokens": 1,
               "expect": None, "limit_seconds": 5.0, "unit": None, "container": None, "spec": None}  # fmt: skip
        server.shutdown()


def test_the_completion_that_is_asked_for_is_none_of_what_is_counted(ask: dict[str, Any]) -> None:
    found = figures.observe(ask)
    counted = found["counted"]["found"]
    assert [counted[each]["vllm:generation_tokens_total"] for each in ("first", "second")] == [10.0, 20.0]
    assert counted["seconds"] >= 0.01
    assert found["health"]["found"]["answers"] is True


def test_of_an_engine_that_nobody_asks_one_reading_is_enough(ask: dict[str, Any]) -> None:
    Engine.open = 0
    counted = figures.counted(ask)
    assert (counted["seconds"], Engine.tokens) == (None, 10)


def test_an_engine_without_metrics_is_healthy_and_its_figures_are_not_known(ask: dict[str, Any]) -> None:
    Engine.shows = False
    found = figures.observe(ask)
    assert found["counted"][UNKNOWN]["id"] == "metrics-refused"
    assert found["health"]["found"]["answers"] is True


def test_nobody_is_asked_where_the_declared_container_does_not_listen(ask: dict[str, Any]) -> None:
    found = figures.observe({**ask, "unit": "no-such.service"})
    assert found["counted"][UNKNOWN]["id"] in ("metrics-not-own", "systemd-not-answering", "owner-unseen")
    assert Engine.tokens == 0
