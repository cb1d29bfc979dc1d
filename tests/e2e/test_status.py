"""What status says of a service on a real node: by the engine's own counters, and of nobody else's."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Shell, until
from tests.e2e.test_rollout_faults import working
from tests.e2e.test_service import CLEAR, Service
from tests.lab.lab import Lab
from tests.lab.node import Node


@pytest.fixture
def service(lab: Lab, shell: Shell, machine: Node) -> Iterator[Service]:
    yield Service(lab, shell, machine)
    machine.exec("sh", "-c", CLEAR, check=False)


def rank(found: dict[str, Any]) -> dict[str, Any]:
    (only,) = found["services"][0]["ranks"]
    assert isinstance(only, dict)
    return only


def generated(node: Node) -> tuple[float, float]:
    """The time, and how many tokens the engine has made until then."""
    lines = node.text("curl", "-sS", "http://127.0.0.1:8000/metrics").splitlines()
    (count,) = (line.split()[-1] for line in lines if line.startswith("vllm:generation_tokens_total{"))
    return time.monotonic(), float(count)


def test_status_shows_what_the_engine_counts_and_what_the_launcher_kept(service: Service) -> None:
    began = time.time()
    service.declare("token-time=0.02")
    service.apply()
    body = json.dumps({"model": "/srv/tiny", "prompt": "x", "max_tokens": 100_000})
    service.node.exec("sh", "-c", f"curl -s -d '{body}' http://127.0.0.1:8000/v1/completions > /dev/null 2>&1 &")
    until(working(service.node))
    before = generated(service.node)
    found = rank(service.shell.json("status", "inventory.yml"))
    after = generated(service.node)
    rate = (after[1] - before[1]) / (after[0] - before[0])
    figures = {name: each["value"] for name, each in found["figures"].items()}
    assert rate / 3 < figures["generation_tokens_per_second"] < 55, (rate, figures)
    assert figures["running"] == 1
    assert figures["waiting"] == 0
    assert figures["acceptance"] == pytest.approx(0.5, abs=0.1)
    assert figures["kv_cache_share"] == 0.01
    assert found["rank"] == 0
    assert 0 <= found["last_start"]["port_seconds"] <= found["last_start"]["token_seconds"] <= time.time() - began
    assert began < found["last_token"] < time.time() + 1, "it is kept in whole seconds"
    assert found["answers"] is True
    shown = service.shell.run("status", "inventory.yml").stdout
    assert "TOKENS/S" in shown and re.search(r" (4|5)\d\.\d% ", shown), shown

    service.node.exec("systemctl", "stop", "qwen.service")
    found = rank(service.shell.json("status", "inventory.yml", status=2))
    assert found["figures"]["running"]["value"] is None
    assert found["figures"]["running"]["reason"]["id"] == "metrics-not-own"


def test_status_is_asked_again_until_it_is_interrupted(service: Service) -> None:
    service.declare()
    service.apply()
    process = service.shell.start("status", "inventory.yml", "--watch", "--interval", "1", "--format", "json")
    assert process.stdout is not None
    times = [json.loads(process.stdout.readline())["time"] for _ in range(3)]
    assert times == sorted(times)
    process.send_signal(2)
    process.communicate(timeout=30)
    assert process.returncode == 130
