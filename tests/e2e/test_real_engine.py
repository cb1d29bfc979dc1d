"""A service whose engine is the real vLLM, on CPUs: how it gets ready, answers, hangs, dies and refuses."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkops.models import engine_errors
from tests.e2e.conftest import Shell
from tests.e2e.test_service import CLEAR, UNIT, Service
from tests.ecosystem.test_prometheus import asked
from tests.lab import model
from tests.lab.images import Image
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.real_engine import VERSION

START = 240
"""Seconds that a start may take: about 20 on two free cores, 60 and more beside other tests."""
WATCHDOG = 30
STOP = 10
LAUNCHER_PERCENT = 0.2
"""Of a core, that the launcher may use while nobody asks its engine; `python -m bench watching` measures it."""
PROMPT = "The capital of France is"
"""Longer than one token: to a prompt of one the build for CPUs answered 500, and its engine ended."""

READ = (
    *("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:generation_tokens_total"),
    *("vllm:prompt_tokens_total", "vllm:iteration_tokens_total_sum", "vllm:kv_cache_usage_perc"),
)
"""The metrics that the launcher tells work and movement by."""


class Real(Service):
    """The service of test_service.py with the real engine and a model that it can serve."""

    def __init__(self, lab: Lab, shell: Shell, node: Node, image: Image, folder: Path) -> None:
        super().__init__(lab, shell, node)
        self.image = image
        self.began = int(time.time())
        for path in model.write(folder, geometry=model.SERVABLE).iterdir():
            node.write(f"/srv/tiny/{path.name}", path.read_bytes())

    def serve(self, *command: str, **flags: Any) -> None:
        """Declare it. `flags` are the engine's own, and so are the words `command`.

        With such words the version is told to nobody, so that what lint would refuse gets to the engine.
        """
        self.declare(
            image={"pull": self.image.pinned if command else self.image.reference},
            command=["serve", *command],
            serve={"enforce-eager": True, **({} if "--max-model-len" in command else {"max-model-len": 2048})}
            | {k.replace("_", "-"): v for k, v in flags.items()},
            limits={"shm_size_gib": 1, "ulimits": {"memlock": None, "stack": None, "nofile": None}},
            health={"limit_seconds": 20},
            timeouts={
                "first_boot_seconds": START,
                "cold_start_seconds": START,
                "probe_seconds": 20,
                "stop_seconds": STOP,
                "watchdog_seconds": WATCHDOG,
            },
        )

    def processes(self, name: str = "VLLM::") -> list[str]:
        """Ids of the engine's processes with this in their title."""
        return self.node.exec("pgrep", "-f", name, check=False).stdout.decode().split()

    def signal(self, name: str, process: str) -> None:
        for pid in self.processes(process):
            self.node.exec("kill", "-s", name, pid)

    def ask_for(self, tokens: int) -> None:
        """A completion that nobody waits for."""
        body = json.dumps({"model": "/srv/tiny", "prompt": PROMPT, "max_tokens": tokens, "ignore_eos": True})
        argv = (
            "curl",
            "-s",
            "-H",
            "Content-Type: application/json",
            "-d",
            body,
            "http://127.0.0.1:8000/v1/completions",
        )
        self.node.exec("sh", "-c", '"$@" > /dev/null 2>&1 &', "sh", *argv)

    def answers(self) -> bool:
        body = json.dumps({"model": "/srv/tiny", "prompt": PROMPT, "max_tokens": 1})
        argv = ("curl", "-sS", "--max-time", "5", "-H", "Content-Type: application/json", "-d", body)
        done = self.node.exec(*argv, "http://127.0.0.1:8000/v1/completions", check=False)
        return b'"choices"' in done.stdout

    def journal(self) -> str:
        """What launcher and engine said in this test."""
        return self.node.text("journalctl", "-u", UNIT, "--since", f"@{self.began}", "--no-pager", "-o", "cat")

    def cpu_seconds(self, pid: str) -> float:
        """What a process used of the CPU so far. Source: proc(5), fields 14 and 15 of stat."""
        fields = self.node.text("cat", f"/proc/{pid}/stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def restarted(self, since: float, pid: str, seconds: float) -> float:
        """Seconds until systemd ended the launcher `pid`; then until a new engine answers, which is not counted."""
        self.eventually(lambda: self.show("MainPID") != pid, seconds)
        took = time.monotonic() - since
        self.eventually(self.answers, START)
        return took


@pytest.fixture
def real(lab: Lab, shell: Shell, machine: Node, real_engine: Image, tmp_path: Path) -> Iterator[Real]:
    """Not declared yet; what a test made of it is gone afterwards, but for the image."""
    yield Real(lab, shell, machine, real_engine, tmp_path / "model")
    machine.exec("sh", "-c", CLEAR, check=False)


def test_the_real_engine_is_brought_to_serving_and_nothing_differs(real: Real) -> None:
    real.serve()
    real.apply()
    assert real.answers()
    assert json.loads(real.ask("/version"))["version"].startswith(VERSION)
    samples = {line.split("{")[0] for line in real.ask("/metrics").splitlines() if not line.startswith("#")}
    assert set(READ) <= samples
    drafting = {name for name in asked() if name.startswith("vllm:spec_decode_")}
    assert asked() - drafting <= samples, "what dashboard and alerts ask for; of drafting only with speculation"
    real.run("drift")
    assert real.run("apply")["steps"] == [], "a second apply changes nothing"


@pytest.mark.slow
def test_the_real_engine_is_measured_and_its_figures_are_read(real: Real) -> None:
    real.serve()
    real.apply()
    words = ("--concurrency", "1,2", "--context", "128,512", "--tokens", "32")
    found = real.shell.json("bench", "qwen", "inventory.yml", *words)
    for cell in found["engines"][0]["cells"]:
        print(cell)
        assert cell["reason"] is None
        assert cell["decode_tokens_per_second"] > 0
        assert cell["prompt_tokens"] == pytest.approx(cell["context"], rel=0.1)
    status = real.shell.json("status", "inventory.yml")
    figures = status["services"][0]["ranks"][0]["figures"]
    assert all(figures[name]["value"] is not None for name in ("running", "waiting", "kv_cache_share")), figures
    assert figures["generation_tokens_per_second"]["value"] is not None
    assert figures["acceptance"]["reason"]["id"] == "metric-absent", "it drafts nothing"


@pytest.mark.slow
def test_a_worker_that_stops_while_nothing_runs_is_found(real: Real) -> None:
    real.serve()
    real.apply()
    pid = real.show("MainPID")
    real.signal("STOP", "VLLM::Worker")
    seconds = real.restarted(time.monotonic(), pid, WATCHDOG + 60)
    print(f"found and ended after {seconds:.0f} s")
    assert seconds < WATCHDOG + 60


@pytest.mark.slow
def test_a_worker_that_stops_while_it_works_is_found(real: Real) -> None:
    real.serve()
    real.apply()
    pid = real.show("MainPID")
    real.ask_for(1900)
    real.eventually(lambda: real.open_requests() >= 1)
    real.signal("STOP", "VLLM::Worker")
    real.restarted(time.monotonic(), pid, WATCHDOG + 60)


@pytest.mark.slow
def test_an_idle_engine_is_left_in_peace_at_little_cost(real: Real) -> None:
    """With a watchdog of 30 s the launcher looks every 5 s and asks for a token every 10 s."""
    real.serve()
    real.apply()
    pid = real.show("MainPID")
    began, used, started = int(real.show("WatchdogTimestampMonotonic")), real.cpu_seconds(pid), time.monotonic()
    fed = 3 * WATCHDOG * 1_000_000
    real.eventually(lambda: int(real.show("WatchdogTimestampMonotonic")) - began > fed, 4 * WATCHDOG)
    assert (real.show("MainPID"), real.show("NRestarts")) == (pid, "0")
    percent = 100 * (real.cpu_seconds(pid) - used) / (time.monotonic() - started)
    print(f"the launcher used {percent:.3f} % of a core")
    assert percent < 3 * LAUNCHER_PERCENT, "it looks and asks six times as often as by default, beside other tests"


@pytest.mark.slow
def test_an_engine_whose_worker_is_killed_ends_with_0_and_is_started_again(real: Real) -> None:
    real.serve()
    real.apply()
    pid = real.show("MainPID")
    real.signal("KILL", "VLLM::Worker")
    real.restarted(time.monotonic(), pid, WATCHDOG + 60)
    assert real.show("NRestarts") != "0"
    assert "the container ended with 0" in real.journal()


@pytest.mark.slow
def test_a_stop_while_it_loads_leaves_nothing(real: Real) -> None:
    """The engine ignores SIGTERM from when its processes are there until it is ready."""
    real.serve()
    apply = real.shell.start("apply", "inventory.yml", "--role", "image", "--role", "service", "--yes")
    real.eventually(lambda: bool(real.processes("VLLM::Worker")), START)
    began = time.monotonic()
    real.node.exec("systemctl", "stop", UNIT)
    assert time.monotonic() - began < STOP + 10
    assert real.show("ActiveState") == "inactive"
    assert real.processes() == []
    assert real.node.text("docker", "ps", "-aq") == ""
    apply.communicate(timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "id"),
    [
        (("--enable-auto-tool-choice", "--tool-call-parser", "qwen9"), "unknown-parser"),
        (("--reasoning-parser", "qwen9"), "unknown-parser"),
        (("--gpu-memory-utilization", "1.5"), "refused-value"),
        (("--max-model-len", "1000000"), "refused-configuration"),
        (("--load-format", "shards"), "unknown-load-format"),
        (("--block-size", "-16"), "refused-value"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_what_the_engine_refuses_is_not_tried_again(real: Real, words: tuple[str, ...], id: str) -> None:
    real.serve(*words)
    report = real.apply(status=4)
    (result,) = [each for each in report["results"] if each["id"].startswith("probe")]
    assert result["outcome"] == "failed"
    assert (real.show("ActiveState"), real.show("NRestarts")) == ("failed", "0")
    found = engine_errors.likely(real.journal())
    assert found is not None
    assert (found[0].id, found[0].permanent) == (id, True)


@pytest.mark.slow
def test_speculation_by_the_models_own_head_serves_without_prefix_caching(real: Real) -> None:
    real.serve(enable_prefix_caching=False, speculative_config={"method": "mtp", "num_speculative_tokens": 2})
    real.apply()
    real.ask_for(64)
    drafts = "vllm:spec_decode_num_drafts_total"
    real.eventually(
        lambda: any(
            line.startswith(drafts) and float(line.split()[-1]) > 0 for line in real.ask("/metrics").splitlines()
        )
    )
    real.run("drift")
