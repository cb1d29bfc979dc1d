"""A service measured on its own node: by the command line, kept, and compared with the last time."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Shell
from tests.e2e.test_service import CLEAR, Service
from tests.lab.lab import Lab
from tests.lab.node import Node

VLLM = """\
#!/bin/sh
[ "$1 $2" = "bench serve" ] || exec /usr/local/bin/vllm "$@"
while [ $# -gt 0 ]; do
  case "$1" in --result-dir) dir=$2 ;; --result-filename) name=$2 ;; esac
  shift
done
echo "its own table; key $OPENAI_API_KEY"
echo '{"median_ttft_ms": 250.0, "median_tpot_ms": 25.0, "output_throughput": 38.0}' > "$dir/$name"
"""
"""The engine's program with a benchmark, which the lab's has not."""


@pytest.fixture
def service(lab: Lab, shell: Shell, machine: Node) -> Iterator[Service]:
    yield Service(lab, shell, machine)
    machine.exec("sh", "-c", CLEAR, check=False)


def test_a_service_is_measured_and_the_slower_engine_is_found(service: Service) -> None:
    service.declare("token-time=0.02")
    service.apply()
    words = ("bench", "qwen", "inventory.yml", "--concurrency", "1,4", "--context", "64,256", "--tokens", "16")
    found = service.shell.json(*words)
    assert [(each["concurrency"], each["context"]) for each in found["engines"][0]["cells"]] == [
        (1, 64),
        (1, 256),
        (4, 64),
        (4, 256),
    ]
    for cell in found["engines"][0]["cells"]:
        assert cell["reason"] is None
        assert 5 < cell["decode_tokens_per_second"] <= 50
        assert cell["prompt_tokens"] == pytest.approx(cell["context"], rel=0.1)
        assert cell["hardware"]["sm_clock_mhz"] or cell["hardware"]["hardware_why"]
    assert found["engines"][0]["findings"] == []

    service.ask("/lab/mode", "token-time=0.2")
    found = service.shell.json(*words, status=2)
    assert {each["id"] for each in found["engines"][0]["findings"]} == {"bench-slower-than-before"}
    shown = service.shell.run(*words[:3], "--concurrency", "1", "--context", "64", "--tokens", "16", status=None)
    assert "DECODE/S" in shown.stdout and "kept as" in shown.stderr

    service.node.exec("systemctl", "stop", "qwen.service")
    found = service.shell.json(*words[:3], "--context", "64", status=3)
    assert {each["reason"]["id"] for each in found["engines"][0]["cells"]} == {"bench-foreign"}


def test_vllm_s_own_benchmark_runs_in_the_service_s_container(service: Service) -> None:
    service.node.exec("mkdir", "-p", "/srv/tiny/bin")
    service.node.write("/srv/tiny/bin/vllm", VLLM.encode(), mode=0o755)
    path = "/srv/tiny/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    service.declare(environment={"PATH": path, "VLLM_API_KEY": "sk-of-the-lab"})
    service.apply()
    words = ("bench", "qwen", "inventory.yml", "--with", "vllm-bench", "--concurrency", "1", "--context", "64")
    done = service.shell.run(*words, "--format", "json")
    assert "its own table; key sk-of-the-lab" in done.stderr
    (cell,) = json.loads(done.stdout)["engines"][0]["cells"]
    assert (cell["first_token_seconds"], cell["decode_tokens_per_second"]) == (0.25, 40.0)

    service.node.exec("systemctl", "stop", "qwen.service")
    done = service.shell.run(*words, status=1)
    assert "no container of qwen runs here" in done.stderr and "exit status 1" in done.stderr
