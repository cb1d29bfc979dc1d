"""The gate's questions, and the wait for running requests, on the lab's small engine."""

from __future__ import annotations

import contextlib
import http.client
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkops.models.engine import engine, versions
from sparkops.programs import docker
from sparkops.programs.launch import api
from sparkops.programs.launch.api import Question
from sparkops.resources.gate import Gate
from sparkops.worker.calls import Call, Refused, Unknown
from sparkops.worker.facts import gpu
from sparkops.worker.kinds import gate
from sparkops.worker.record import generations
from sparkops.worker.system import serving
from tests.errors import fails
from tests.worker import small_engine
from tests.worker.nodes import call
from tests.worker.small_engine import mode

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def port() -> Iterator[int]:
    with small_engine.served() as number:
        yield number


@pytest.fixture
def asked(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Asks the gate of a service without files, and answers what is noted then. Raises Refused."""
    monkeypatch.setattr(serving.Service, "fault", lambda self: "")
    monkeypatch.setattr(gate, "POLL", 0.01)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    systemctl(tmp_path, "echo ActiveState=active")

    def ask(**given: Any) -> dict[str, Any]:
        place: dict[str, Any] = {"port": port, "unit": "q.service", "folder": str(tmp_path / "g")}
        of = Gate(node="n", name="q", **{**place, "limit_seconds": 2.0, **given})
        step: Any = None
        gate.converge(call(), of.ask(), {"passed": False}, {"passed": True}, of.act(step))
        return gate.observe(of.ask())

    return ask


def systemctl(root: Path, script: str) -> None:
    """The node's systemctl from now on."""
    program = root / "bin" / "systemctl"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


PARIS = ({"prompt": "The capital of France is", "expect": "Paris"},)


@pytest.mark.parametrize("words", ["", "chat-only"])
def test_all_questions_are_asked_by_the_route_that_the_engine_has(asked: Ask, port: int, words: str) -> None:
    mode(port, words)
    found = asked(canaries=PARIS, tool_call=True, min_speed_ratio=0.9)
    assert found["passed"] and found["speed"] > 0
    assert 1 < found["acceptance_length"] <= 2
    assert (found["sm_clock_mhz"] is None) == bool(found["hardware_why"])


@pytest.mark.parametrize(
    ("words", "id", "type"),
    [
        ("garbage", "gate-answer-malformed", "failed"),
        ("empty", "gate-answer-malformed", "failed"),
        ("gibberish", "gate-answer-garbage", "failed"),
        ("tool-text", "gate-tool-call-wrong", "failed"),
        ("no-tool", "gate-tool-not-called", "unknown"),
        ("busy", "gate-could-not-ask", "unknown"),
    ],
)
def test_only_an_answer_that_proves_a_fault_is_a_failure(asked: Ask, port: int, words: str, id: str, type: str) -> None:
    mode(port, words)
    with pytest.raises(Refused) as caught:
        asked(tool_call=True, limit_seconds=0.2)
    assert (caught.value.id, caught.value.type) == (id, type)


def test_an_engine_that_was_started_again_between_two_questions_has_not_passed(
    asked: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    containers = iter([{"Id": "a", "State": {"StartedAt": "1"}}, {"Id": "a", "State": {"StartedAt": "2"}}])
    monkeypatch.setattr(docker, "inspect_container", lambda name: next(containers))
    with pytest.raises(Refused) as caught:
        asked(container="q")
    assert (caught.value.id, caught.value.type) == ("gate-engine-restarted", "failed")


def test_an_engine_of_which_it_is_not_known_whether_it_loads_has_not_failed(
    asked: Ask, port: int, tmp_path: Path
) -> None:
    """A machine that has just been booted: neither systemd nor the engine answers yet, and a return began."""
    systemctl(tmp_path, "echo 'Failed to connect to bus' >&2; exit 1")
    with fails("systemd-not-answering", Unknown):
        asked(port=1)
    systemctl(tmp_path, f"mv {tmp_path}/later {tmp_path}/now 2>&- && exit 1; echo ActiveState=active")
    (tmp_path / "later").write_text("")
    assert asked()["passed"]


def test_a_hang_is_a_failure(asked: Ask, port: int) -> None:
    mode(port, "hang")
    of = Gate(node="n", name="q", port=port, unit="q.service", folder="/nowhere")
    with pytest.raises(Refused) as caught:
        gate._Engine(of.ask())._answer(Question("", "x"), 0.2)
    assert (caught.value.id, caught.value.type) == ("gate-no-answer", "failed")


def test_a_name_that_is_not_served_proves_nothing(asked: Ask) -> None:
    with pytest.raises(Refused) as caught:
        asked(model="other")
    assert (caught.value.id, caught.value.type) == ("gate-could-not-ask", "unknown")


def measured(speed: float, clock: float | None) -> dict[str, Any]:
    return {"speed": speed, "sm_clock_mhz": clock}


@pytest.mark.parametrize(
    ("now", "before", "id"),
    [
        (measured(40, 2281), {}, None),
        (measured(37, 2281), measured(40, 2281), None),
        (measured(20, 2281), measured(40, 2281), "gate-too-slow"),
        (measured(20, 2200), measured(40, 2281), "gate-too-slow"),
        (measured(20, None), measured(40, 2281), "gate-too-slow"),
        (measured(20, 799), measured(40, 2281), "gate-clock-low"),
        (measured(39, 799), measured(40, 2281), None),
    ],
)
def test_a_speed_that_fell_with_the_clock_says_nothing_of_the_change(
    now: dict[str, Any], before: dict[str, Any], id: str | None
) -> None:
    if id is None:
        gate.fast_enough(now, before, 0.9)
        return
    with pytest.raises(Refused) as caught:
        gate.fast_enough(now, before, 0.9)
    assert caught.value.id == id
    assert (caught.value.type == "unknown") == (id == "gate-clock-low"), "only what failed is brought back"


def test_a_clock_that_is_not_given_has_its_reason(asked: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def card(**given: Any) -> list[dict[str, Any]]:
        return [{"sm_clock_mhz": 2281.0, "power_watts": 60.5, **given}]

    def hangs() -> Any:
        raise Unknown.of("program-timeout", program="nvidia-smi", seconds=8)

    monkeypatch.setattr(gpu, "cards", lambda: (card(), ""))
    found = asked(min_speed_ratio=0.5)
    assert (found["sm_clock_mhz"], found["power_watts"], found["hardware_why"]) == (2281.0, 60.5, None)
    monkeypatch.setattr(gpu, "cards", lambda: (card(power_watts=None), ""))
    found = asked(min_speed_ratio=0.5)
    assert (found["power_watts"], found["hardware_why"]) == (None, "nvidia-smi gives no power_watts")
    monkeypatch.setattr(gpu, "cards", hangs)
    assert "program-timeout" in asked(min_speed_ratio=0.5)["hardware_why"]


def test_a_measured_speed_is_the_next_ones_measure(asked: Ask, port: int, tmp_path: Path) -> None:
    mode(port, "token-time=0.001")
    found = asked(min_speed_ratio=0.9)
    now = generations.present([])
    generations.add(str(tmp_path / "g"), {**now, "measured": {"speed": found["speed"]}}, 3)
    mode(port, "token-time=0.01")
    with pytest.raises(Refused) as caught:
        asked(min_speed_ratio=0.9)
    assert caught.value.id == "gate-too-slow"


def test_a_generation_that_came_back_is_asked_what_it_passed_then(asked: Ask, tmp_path: Path) -> None:
    asked(canaries=PARIS)
    then = generations.passed(str(tmp_path / "g"))
    generations.add(str(tmp_path / "g"), {**generations.present([]), "asked": then["asked"]}, 3)
    berlin = ({"prompt": "The capital of France is", "expect": "Berlin"},)
    assert asked(canaries=berlin, restored=True)["passed"]
    with pytest.raises(Refused) as caught:
        asked(canaries=berlin)
    assert caught.value.id == "gate-canary-wrong"


DRAFTS, ACCEPTED = api.DRAFTS, api.ACCEPTED


@pytest.mark.parametrize(
    ("before", "after", "length"),
    [
        ({DRAFTS: 10.0, ACCEPTED: 5.0}, {DRAFTS: 30.0, ACCEPTED: 45.0}, 3.0),
        ({DRAFTS: 10.0, ACCEPTED: 5.0}, {DRAFTS: 10.0, ACCEPTED: 5.0}, None),
        ({DRAFTS: 10.0, ACCEPTED: 5.0}, {DRAFTS: 2.0, ACCEPTED: 1.0}, None),
        ({}, {}, None),
    ],
)
def test_the_acceptance_length_is_a_difference_of_counters(
    before: dict[str, float], after: dict[str, float], length: float | None
) -> None:
    found = gate.acceptance(before, after)
    assert found["acceptance_length"] == length
    assert (found["acceptance_why"] is None) == (length is not None)


@pytest.mark.parametrize("version", versions())
def test_every_listed_engine_has_the_metrics_that_are_read_of_it(version: str) -> None:
    named = set(engine(version).metrics)
    read = {*api.BUSY, *api.MOVING, DRAFTS, ACCEPTED}
    assert {
        each.removesuffix("_sum") if each.removesuffix("_sum") in named else each.removesuffix("_total")
        for each in read
    } <= named


# Waiting for what runs


class Told(Call):
    """A call that keeps what it told; `ids` of the notices."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        super().__init__(1, self.said.append, threading.Event())

    @property
    def notices(self) -> list[tuple[str, dict[str, Any]]]:
        found = [each["progress"]["notice"] for each in self.said if "notice" in each["progress"]]
        return [(each["id"], each["args"]) for each in found]


@pytest.fixture
def drained(port: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Told]:
    monkeypatch.setattr(serving.Service, "fault", lambda self: "")

    def drain(seconds: float, number: int = port) -> Told:
        told = Told()
        serving.drain(told, {"host": "127.0.0.1", "port": number, "service": "q", "unit": "q.service"}, seconds)
        return told

    return drain


def completing(port: int) -> threading.Thread:
    """A request that is under way."""
    body = b'{"prompt": "x", "max_tokens": 20}'

    def ask() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/completions", body).read()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    until(lambda: b'running{engine="0",model_name="m"} 1.0' in metrics(port))
    return thread


def metrics(port: int) -> bytes:
    return bytes(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read())


def until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.01)


def test_running_requests_are_waited_for(drained: Callable[..., Told], port: int) -> None:
    mode(port, "token-time=0.05")
    request = completing(port)
    told = drained(20.0)
    assert b'running{engine="0",model_name="m"} 0.0' in metrics(port), "it came to its end"
    request.join(20)
    assert told.notices == []


def test_what_still_runs_at_the_bound_is_told(drained: Callable[..., Told], port: int) -> None:
    mode(port, "hang")
    completing(port)
    started = time.monotonic()
    told = drained(0.6)
    assert time.monotonic() - started > 0.5
    assert told.notices == [("drain-ended", {"service": "q", "running": 1, "seconds": 0.6})]
    mode(port, "")


def test_an_engine_that_does_not_answer_is_not_waited_for(drained: Callable[..., Told]) -> None:
    assert drained(20.0, 1).notices == []


def test_an_engine_without_the_gauge_is_told_and_not_waited_for(
    drained: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.Api, "metrics", lambda self, seconds: None)
    assert drained(20.0).notices == [("drain-unknown", {"service": "q"})]
