"""A service on a real node: launcher, container, unit and probe, with the small engine in its modes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Shell
from tests.lab.lab import Lab
from tests.lab.node import Node

UNIT = "qwen.service"
PORT = 8000
WATCHDOG = 6
"""Seconds without a sign of life after which systemd ends a service that is to hang; others have a minute."""
CLEAR = f"""
systemctl disable --now {UNIT}
docker rm -f $(docker ps -aq)
rm -rf /etc/systemd/system/{UNIT}* /etc/sparkops /var/lib/sparkops /run/sparkops /srv/tiny
systemctl daemon-reload
systemctl reset-failed
"""


class Service:
    """One service `qwen` on one node, declared in an inventory and applied by the command line."""

    def __init__(self, lab: Lab, shell: Shell, node: Node) -> None:
        self.lab, self.shell, self.node = lab, shell, node
        node.exec("mkdir", "-p", "/srv/tiny")
        node.write("/srv/tiny/config.json", b"{}")
        header = json.dumps({"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
        node.write("/srv/tiny/model.safetensors", len(header).to_bytes(8, "little") + header + b"\0")

    def declare(self, mode: str = "", **more: Any) -> None:
        """Write the inventory; `more` are variables of the role service."""
        timeouts = {
            "first_boot_seconds": 180,
            "cold_start_seconds": 180,
            "probe_seconds": 20,
            "stop_seconds": 20,
            "watchdog_seconds": 60,
            "restart_seconds": 1,
            **more.pop("timeouts", {}),
        }
        environment = {"LAB_ENGINE": mode, **more.pop("environment", {})}
        service = {
            "nodes": [self.node.name],
            "port": PORT,
            "image": {"pull": self.lab.engine_image.reference},
            "health": {"limit_seconds": 10, **more.pop("health", {})},
            "model": "/srv/tiny",
            "command": ["serve"],
            "gpus": None,
            "container": {"mounts": [{"source": "/srv/tiny", "target": "/srv/tiny"}]},
            "limits": {"shm_size_gib": None, "ulimits": {"memlock": None, "stack": None, "nofile": None}},
            "environment": environment,
            "timeouts": timeouts,
            **more,
        }
        inventory = {
            "version": 1,
            "cluster": "tests",
            "connection": {"user": "root"},
            "nodes": {self.node.name: {}},
            "services": {"qwen": service},
        }
        self.shell.write("inventory.yml", json.dumps(inventory, indent=1))

    def run(self, command: str, *words: str, status: int | None = 0) -> dict[str, Any]:
        roles = [word for role in ("image", "service", "health") for word in ("--role", role)]
        return self.shell.json(command, "inventory.yml", *roles, *words, status=status)

    def apply(self, status: int = 0) -> dict[str, Any]:
        return self.run("apply", "--yes", status=status)

    def show(self, name: str) -> str:
        return self.node.text("systemctl", "show", "-P", name, UNIT)

    def ask(self, path: str, body: str | None = None, seconds: int = 5) -> str:
        argv = ["curl", "-sS", "--max-time", str(seconds), f"http://127.0.0.1:{PORT}{path}"]
        done = self.node.exec(*argv, *(["-d", body] if body is not None else []), check=False)
        return done.stdout.decode()

    def open_requests(self) -> float:
        """How many completions the engine has taken and not answered; those that nobody waits for any more count."""
        named = [line for line in self.ask("/metrics").splitlines() if line.startswith("vllm:num_requests_running")]
        return float(named[0].split()[-1]) if named else 0.0

    def answers(self) -> bool:
        body = {"model": "/srv/tiny", "prompt": "x", "max_tokens": 1}
        return '"choices"' in self.ask("/v1/completions", json.dumps(body))

    def eventually(self, check: Callable[[], bool], seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while not check():
            if time.monotonic() > deadline:
                journal = self.node.text("journalctl", "-u", UNIT, "-n", "60", "--no-pager")
                raise AssertionError(f"not within {seconds} s:\n{journal}")
            time.sleep(0.5)


@pytest.fixture
def service(lab: Lab, shell: Shell, machine: Node) -> Iterator[Service]:
    """Not declared yet; what a test made of it is gone afterwards, but for the image."""
    yield Service(lab, shell, machine)
    machine.exec("sh", "-c", CLEAR, check=False)


def steps(report: dict[str, Any]) -> dict[str, Any]:
    return {step["kind"]: step for step in report["steps"]}


def test_a_service_serves_reloads_restarts_once_and_comes_back(service: Service) -> None:
    service.declare("slow=4", environment={"GREETING": "a b%c"})
    service.apply()
    assert service.answers()
    assert service.show("ActiveState") == "active"
    assert "serving" in service.show("StatusText")
    assert service.run("apply")["steps"] == [], "a second apply changes nothing"
    assert json.loads(service.ask("/lab/argv"))["environment"]["GREETING"] == "a b%c"

    pid = service.show("MainPID")
    service.declare("slow=4", environment={"GREETING": "a b%c"}, conflicts=["other-model.service"])
    report = service.run("plan", status=2)
    assert steps(report)["unit"]["changes"] == ["content"]
    assert not steps(report)["unit"]["disruptive"]
    service.apply()
    assert service.show("MainPID") == pid, "another text only reloads"

    service.declare("slow=1", environment={"GREETING": "hello"})
    report = service.run("plan", status=2)
    assert "inputs" in steps(report)["unit"]["changes"]
    assert steps(report)["unit"]["disruptive"]
    service.apply()
    assert service.show("MainPID") != pid
    assert service.show("NRestarts") == "0"
    assert json.loads(service.ask("/lab/argv"))["environment"]["GREETING"] == "hello"

    service.node.restart()
    service.eventually(service.answers)
    service.run("drift")


def test_ready_is_said_only_after_a_completion(service: Service) -> None:
    service.declare("hang", timeouts={"first_boot_seconds": 600, "cold_start_seconds": 600, "probe_seconds": 1})
    apply = service.shell.start("apply", "inventory.yml", "--role", "image", "--role", "service", "--yes")
    service.eventually(lambda: service.ask("/health", seconds=2) == "" and "loading" in service.show("StatusText"))
    service.eventually(lambda: service.open_requests() >= 3)
    assert service.show("ActiveState") == "activating", "the engine listens, and completes nothing"
    service.ask("/lab/mode", "")
    service.eventually(lambda: service.show("ActiveState") == "active")
    assert apply.wait(120) == 0


def test_a_hang_is_seen_by_the_watchdog_and_ended(service: Service) -> None:
    service.declare(timeouts={"watchdog_seconds": WATCHDOG})
    service.apply()
    pid = service.show("MainPID")
    began = int(service.show("WatchdogTimestampMonotonic"))
    service.eventually(lambda: int(service.show("WatchdogTimestampMonotonic")) - began > WATCHDOG * 1_000_000)
    assert service.show("MainPID") == pid, "an idle engine is left in peace"

    service.ask("/lab/mode", "hang")
    service.node.exec(
        "sh",
        "-c",
        f'curl -s -d \'{{"model":"/srv/tiny","prompt":"x"}}\' 127.0.0.1:{PORT}/v1/completions >/dev/null 2>&1 &',
    )
    service.eventually(lambda: service.show("MainPID") not in (pid, "0"))
    service.eventually(service.answers)
    assert "no token moves" in service.node.text("journalctl", "-u", UNIT, "--no-pager", "-o", "cat")


@pytest.mark.slow  # test_faults.py provokes the same through the command line
def test_an_engine_that_crashes_ends_with_its_words_and_the_likely_cause(service: Service) -> None:
    service.declare("crash")
    report = service.apply(status=4)
    (result,) = [each for each in report["results"] if each["id"].startswith("probe")]
    assert result["outcome"] == "failed"
    assert result["reason"]["id"] == "engine-error-known"
    assert "4176" in result["reason"]["fix"]
    assert "max-num-batched-tokens" in result["reason"]["fix"]
    assert "block_size (4176)" in result["detail"]
    assert (service.show("ActiveState"), service.show("NRestarts")) == ("failed", "0"), "it would crash alike again"

    service.declare()
    service.apply()
    assert service.answers()


@pytest.mark.slow  # test_faults.py provokes the same through the command line
def test_an_engine_that_never_gets_ready_is_given_up_in_time(service: Service) -> None:
    service.declare("never-ready", timeouts={"first_boot_seconds": 3, "cold_start_seconds": 3})
    report = service.apply(status=4)
    (result,) = [each for each in report["results"] if each["id"].startswith("probe")]
    assert "no completion within 3 s" in result["reason"]["message"] + result["detail"]


def test_what_hangs_or_answers_garbage_is_not_healthy(service: Service) -> None:
    service.declare(timeouts={"watchdog_seconds": None}, health={"limit_seconds": 3})
    service.apply()
    service.ask("/lab/mode", "hang")
    told = json.dumps(service.run("drift", status=2))
    assert "no completion within 3 s, though /health answers 200" in told
    service.ask("/lab/mode", "garbage")
    assert "what came is no completion" in json.dumps(service.run("drift", status=2))
    service.ask("/lab/mode", "empty")
    assert "no token" in json.dumps(service.run("drift", status=2))


def test_a_stop_is_clean_also_for_an_engine_that_ignores_it(service: Service) -> None:
    service.declare("deaf", timeouts={"stop_seconds": 5})
    service.apply()
    service.node.exec("systemctl", "stop", UNIT)
    assert service.show("ActiveState") == "inactive"
    assert service.show("Result") == "success"
    assert service.node.text("docker", "ps", "-aq") == ""


def test_a_killed_launcher_leaves_no_container_and_is_started_again(service: Service) -> None:
    service.declare()
    service.apply()
    pid = service.show("MainPID")
    service.node.exec("systemctl", "kill", "--kill-who=main", "-s", "KILL", UNIT)
    service.eventually(lambda: service.show("MainPID") not in (pid, "0") and service.answers())
    assert len(service.node.text("docker", "ps", "-aq").split()) == 1


def test_a_changed_secret_restarts_and_is_nowhere_to_be_read(service: Service) -> None:
    service.shell.environment["LAB_KEY"] = "first-secret"
    service.declare()
    text = (service.shell.folder / "inventory.yml").read_text()
    text = text.replace('"LAB_ENGINE": ""', '"LAB_ENGINE": "", "VLLM_API_KEY": !env LAB_KEY')
    (service.shell.folder / "inventory.yml").write_text(text)
    service.apply()
    pid = service.show("MainPID")
    assert "Unauthorized" in service.ask("/v1/completions", "{}")
    assert service.run("apply")["steps"] == []

    service.shell.environment["LAB_KEY"] = "second-secret"
    report = service.run("plan", status=2)
    assert "secret_inputs" in steps(report)["unit"]["changes"]
    assert "second-secret" not in json.dumps(report)
    service.apply()
    assert service.show("MainPID") != pid
    files = ["/etc/systemd/system/qwen.service", "/etc/sparkops/services/qwen.json"]
    assert service.node.exec("grep", "-l", "second-secret", *files, check=False).stdout == b""
    assert service.node.text("stat", "-c", "%a", "/etc/sparkops/services/qwen.env") == "600"
    assert "second-secret" not in service.node.text("ps", "axww", "-o", "args")


def test_a_foreign_container_of_the_same_name_is_left_alone(service: Service) -> None:
    image = service.lab.engine_image.reference
    service.node.exec("docker", "pull", image)
    service.node.exec("docker", "create", "--name", "sparkops-qwen", image, "serve", "x")
    service.declare()
    report = service.apply(status=4)
    assert "that sparkops did not make" in json.dumps(report["results"])
    assert service.node.text("docker", "ps", "-aq") != ""


def test_a_retired_service_is_taken_down(service: Service) -> None:
    service.declare()
    service.apply()
    service.declare(state="retired")
    service.apply()
    assert service.show("LoadState") == "not-found"
    assert service.node.text("docker", "ps", "-aq") == ""
    assert not service.node.exists("/etc/sparkops/services/qwen.json")
