"""The probe's look at an engine, on small servers of the test's own."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkops.programs import docker
from sparkops.programs.launch import listening
from sparkops.resources.probe import Probe
from sparkops.worker.calls import Unknown
from sparkops.worker.kinds import probe
from sparkops.worker.system import serving
from tests.errors import fails
from tests.worker import small_engine
from tests.worker.nodes import call
from tests.worker.small_engine import mode


@pytest.fixture
def port() -> Iterator[int]:
    """The lab's small engine in this process."""
    with small_engine.served() as number:
        yield number


def ask(port: int, **given: Any) -> dict[str, Any]:
    return Probe(node="n", name="qwen", port=port, **{"limit_seconds": 2.0, **given}).ask()


def test_an_engine_that_completes_answers(port: int) -> None:
    assert probe.observe(ask(port))["answers"] is True


def test_what_is_expected_must_be_in_the_answer(port: int) -> None:
    assert probe.completion(ask(port, expect="Paris")).why == ""
    assert "nothing matches 'Berlin'" in probe.completion(ask(port, expect="Berlin")).why


def test_an_engine_with_chat_alone_answers_by_it(port: int) -> None:
    mode(port, "chat-only")
    assert probe.observe(ask(port, expect="Paris"))["answers"] is True


def test_a_hang_is_told_with_what_health_says_meanwhile(port: int) -> None:
    mode(port, "hang")
    found = probe.observe(ask(port, limit_seconds=0.3))
    assert found == {"answers": False, "why": "no completion within 0.3 s, though /health answers 200"}


@pytest.mark.parametrize(
    ("words", "why"), [("garbage", "what came is no completion: <html>!!"), ("empty", "has no token")]
)
def test_garbage_is_no_answer(port: int, words: str, why: str) -> None:
    mode(port, words)
    assert why in probe.completion(ask(port)).why


def test_whether_a_model_answers_that_is_not_served_is_unknown_in_the_engines_words(port: int) -> None:
    with fails("completion-refused", Unknown) as caught:
        probe.observe(ask(port, model="other"))
    assert "does not exist" in caught.value.values["text"]


def test_an_answer_counts_where_the_declared_unit_listens(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    own = listening.owner(os.getpid())
    found = probe.observe(ask(port, unit="other.service"))
    assert found["answers"] is False
    assert f"process {os.getpid()}" in found["why"]
    assert "and not other.service" in found["why"]
    monkeypatch.setattr(listening, "owner", lambda pid, proc: own._replace(unit="engine.service"))
    assert probe.completion(ask(port, unit="engine.service")).why == ""


def test_what_listens_for_a_service_without_a_container_is_foreign(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "SOCKET", "/nowhere")
    monkeypatch.setattr(docker, "service_container", lambda service: None)
    given = ask(port, service="qwen", container="sparkops-qwen", spec="/nowhere")
    assert "listens on port" in probe.completion(given).why


@pytest.fixture
def unknown_at_first(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The service's container, which Docker does not tell at its first three questions; how often it was asked."""
    own, asked = listening.owner(os.getpid()), [0]

    def found(service: str) -> dict[str, str]:
        asked[0] += 1
        if asked[0] <= 3:
            raise Unknown.of("docker-stopped")
        return {"Id": "c" * 64}

    monkeypatch.setattr(listening, "owner", lambda pid, proc: own._replace(container="c" * 64))
    monkeypatch.setattr(docker, "service_container", found)
    monkeypatch.setattr(probe, "POLL", 0.01)
    return asked


def test_a_docker_that_starts_again_in_the_middle_of_the_wait_does_not_end_it(
    port: int, unknown_at_first: list[int]
) -> None:
    given = ask(port, service="qwen", container="sparkops-qwen", spec="/nowhere")
    probe.converge(call(), given, None, {"answers": True}, {"wait_seconds": 60.0})
    assert unknown_at_first[0] > 3


@pytest.mark.parametrize(("known", "wait"), [(0.0, 60.0), (60.0, 0.0)])
def test_what_stays_unknown_is_not_told_as_a_service_that_does_not_answer(
    port: int, unknown_at_first: list[int], monkeypatch: pytest.MonkeyPatch, known: float, wait: float
) -> None:
    monkeypatch.setattr(probe, "UNKNOWN_SECONDS", known)
    given = ask(port, service="qwen", container="sparkops-qwen", spec="/nowhere")
    with fails("docker-stopped", Unknown):
        probe.converge(call(), given, None, {"answers": True}, {"wait_seconds": wait})


def test_nothing_that_listens_is_told(port: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    assert probe.completion(ask(number)).why == f"nothing listens on 127.0.0.1:{number}"


def test_an_answer_that_trickles_ends_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            link, _ = server.accept()
            with link:
                link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
                try:
                    while True:
                        link.sendall(b" ")
                        time.sleep(0.05)
                except OSError:
                    return

        threading.Thread(target=trickle, daemon=True).start()
        started = time.monotonic()
        why = probe.completion(ask(server.getsockname()[1], model="m", limit_seconds=0.5)).why
        assert "no completion within 0.5 s" in why
        assert time.monotonic() - started < 15


def test_the_key_comes_out_of_the_services_secrets(tmp_path: Path) -> None:
    secrets, spec = tmp_path / "q.env", tmp_path / "q.json"
    secrets.write_text(json.dumps({"VLLM_API_KEY": "k"}))
    spec.write_text(json.dumps({"environment": {"VLLM_API_KEY": "weaker"}, "secrets": str(secrets)}))
    assert serving.api_key(str(spec)) == "k"
    assert serving.api_key(str(tmp_path / "none")) == ""


def test_a_unit_that_loads_explains_the_silence() -> None:
    shown = {"ActiveState": "activating", "SubState": "start", "Result": "success", "StatusText": "loading for 3 s"}
    assert "loading for 3 s" in probe._of_unit(shown)
    assert probe._of_unit({"ActiveState": "active"}) == ""


def test_a_unit_that_was_stopped_is_said_to_be_stopped() -> None:
    shown = {"ActiveState": "inactive", "SubState": "dead", "Result": "success", "StatusText": "stopping"}
    assert probe._of_unit(shown) == "the unit is stopped"


def test_a_unit_that_gave_up_is_not_waited_for() -> None:
    assert probe._for_good({"ActiveState": "failed"})
    assert not probe._for_good({"ActiveState": "activating", "SubState": "auto-restart"})


def test_an_error_of_an_older_run_is_no_cause_of_this_ones() -> None:
    older = [
        "Starting qwen.service - qwen (sparkops)...",
        "block_size (4176)",
        "Stopped qwen.service - qwen (sparkops).",
    ]
    newest = ["Starting qwen.service - qwen (sparkops)...", "Address already in use", "Failed to start."]
    assert probe.newest_run([*older, *newest]) == newest
    assert probe.newest_run(["no word", "of systemd"]) == ["no word", "of systemd"]
