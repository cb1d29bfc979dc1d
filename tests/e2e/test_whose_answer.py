"""Whose answer, whose port, whose process: what is not the declared service's own is never taken for it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Shell, until
from tests.e2e.test_service import CLEAR, PORT, UNIT, WATCHDOG, Service
from tests.lab.lab import Lab
from tests.lab.node import Node

LISTEN = f"""
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def reply(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.dumps(dict(choices=[dict(text="x")], data=[dict(id="/srv/tiny")])).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = reply
http.server.ThreadingHTTPServer(("", {PORT}), Handler).serve_forever()
"""
"""A process that answers like an engine."""


@pytest.fixture
def service(lab: Lab, shell: Shell, machine: Node) -> Iterator[Service]:
    """Not declared yet; what a test made of it, and what stood in its way, is gone afterwards."""
    yield Service(lab, shell, machine)
    machine.exec("sh", "-c", "systemctl stop foreign foreign.service; systemctl reset-failed", check=False)
    machine.exec("sh", "-c", CLEAR, check=False)


def foreign_container(service: Service, *flags: str) -> None:
    """An engine of the same image and model that a person started."""
    image = service.lab.engine_image.reference
    service.node.exec("docker", "pull", "-q", image)
    mount = ("-v", "/srv/tiny:/srv/tiny")
    network = flags or ("--network", "host")
    serve = ("serve", "/srv/tiny", "--host", "0.0.0.0", "--port", str(PORT))
    service.node.exec("docker", "run", "-d", "--name", "foreign", *network, *mount, image, *serve)
    service.eventually(service.answers)


def foreign_process(service: Service) -> None:
    """A process of a transient unit that answers like an engine."""
    service.node.exec("systemd-run", "--unit", "foreign", "python3", "-c", LISTEN)
    service.eventually(service.answers)


def violations(report: dict[str, Any]) -> dict[str, Any]:
    return {each["id"]: each for each in report["violations"]}


def refused(service: Service) -> dict[str, Any]:
    """The service is not stopped, started or believed; what plan, drift, apply and status say is all the same."""
    planned = violations(service.run("plan", status=2))["port-taken"]
    assert "port-taken" in violations(service.run("drift", status=2))
    report = service.apply(status=4)
    outcomes = {each["id"].split()[0]: each["outcome"] for each in report["results"]}
    assert outcomes["unit"] == outcomes["probe"] == "not-attempted"
    found = service.shell.json("status", "-i", "inventory.yml", status=2)
    (rank,) = found["services"][0]["ranks"]
    assert rank["answers"] is not True
    assert service.answers(), "what stands in its way is left alone"
    assert isinstance(planned, dict)
    return planned


@pytest.mark.parametrize("flags", [(), ("-p", f"{PORT}:{PORT}")], ids=["host", "bridge"])
def test_a_foreign_container_on_the_port_is_named_before_anything_is_touched(
    service: Service, flags: tuple[str, ...]
) -> None:
    service.declare()
    foreign_container(service, *flags)
    told = refused(service)["reason"]
    assert "container foreign" in told["message"]
    assert "sparkops adopt" in told["fix"]
    assert service.show("LoadState") == "not-found"

    service.node.exec("docker", "rm", "-f", "foreign")
    service.apply()
    assert service.answers()


def test_a_foreign_process_on_the_port_is_named_with_its_unit(service: Service) -> None:
    service.declare()
    foreign_process(service)
    assert "of foreign.service" in refused(service)["reason"]["message"]
    service.node.exec("systemctl", "stop", "foreign")
    service.apply()


def test_what_takes_the_port_while_the_service_is_stopped_is_never_its_answer(service: Service) -> None:
    service.declare()
    service.apply()
    service.node.exec("systemctl", "stop", UNIT)
    foreign_process(service)
    refused(service)
    report = service.shell.json("start", "qwen", "-i", "inventory.yml", status=4)
    assert "port-taken" in violations(report)
    service.node.exec("systemctl", "stop", "foreign")
    service.shell.json("start", "qwen", "-i", "inventory.yml")
    assert service.run("apply")["steps"] == []


def test_a_unit_that_a_person_starts_beside_a_foreign_listener_fails_at_once(service: Service) -> None:
    """The launcher looks for itself: no plan stands before a boot."""
    service.declare()
    service.apply()
    service.node.exec("systemctl", "stop", UNIT)
    foreign_process(service)
    service.node.exec("systemctl", "start", UNIT, check=False)
    service.eventually(lambda: service.show("ActiveState") == "failed")
    assert service.show("NRestarts") == "0"
    assert "is taken by process" in service.show("StatusText")
    assert "of foreign.service" in service.show("StatusText")


def test_a_container_that_was_renamed_is_still_the_services(service: Service) -> None:
    """P2: it is stopped, and the next one gets the port."""
    service.declare()
    service.apply()
    service.node.exec("docker", "rename", "sparkops-qwen", "mine")
    assert service.run("apply")["steps"] == [], "it is known by its label"
    service.shell.json("stop", "qwen", "-i", "inventory.yml")
    assert service.node.text("docker", "ps", "-aq") == ""
    service.apply()
    assert service.answers()

    service.node.exec("docker", "rename", "sparkops-qwen", "mine")
    service.declare(environment={"GREETING": "hello"})
    service.apply()
    assert service.node.text("docker", "ps", "-a", "--format", "{{.Names}}") == "sparkops-qwen"
    assert service.run("apply")["steps"] == []


def test_a_unit_whose_process_is_not_the_launcher_is_restarted(service: Service) -> None:
    """B4: the environment has the right digest, and the process is another."""
    service.declare()
    service.apply()
    override = "[Service]\nType=simple\nWatchdogSec=0\nExecStart=\nExecStart=/bin/sleep 9999\n"
    service.node.exec("mkdir", "-p", f"/etc/systemd/system/{UNIT}.d")
    service.node.write(f"/etc/systemd/system/{UNIT}.d/mine.conf", override.encode())
    service.node.exec("sh", "-c", f"systemctl daemon-reload && systemctl restart {UNIT}")
    service.node.exec("sh", "-c", f"rm -r /etc/systemd/system/{UNIT}.d && systemctl daemon-reload")
    assert service.show("ActiveState") == "active"
    report = service.run("plan", status=2)
    (unit,) = [each for each in report["steps"] if each["kind"] == "unit"]
    assert "main_process" in unit["changes"]
    service.apply()
    assert service.answers()
    assert service.run("apply")["steps"] == []


def test_stops_and_starts_of_people_do_not_use_up_the_starts_of_an_apply(service: Service) -> None:
    """P1: three starts within the limit's interval, by hand and by apply in turn."""
    service.declare()
    service.apply()
    for _ in range(4):
        service.node.exec("systemctl", "stop", UNIT)
        service.apply()
    assert service.answers()


def test_a_container_that_is_removed_while_its_unit_restarts_heals_by_one_apply(service: Service) -> None:
    """P3."""
    service.declare()
    service.apply()
    service.node.exec("docker", "rm", "-f", "sparkops-qwen")
    service.apply()
    assert service.answers()
    assert service.run("apply")["steps"] == []


def test_a_wrong_key_ends_the_start_at_once_and_is_never_an_illness(service: Service) -> None:
    """The container's own environment has another key than the one that the launcher asks by."""
    service.declare(serve={"api-key": "another"}, environment={"VLLM_API_KEY": "mine"})
    service.apply(status=4)
    assert (service.show("ActiveState"), service.show("NRestarts")) == ("failed", "0")
    assert "refuses the completion that would prove it" in service.show("StatusText")


def test_status_says_of_a_stopped_service_that_it_is_stopped(service: Service) -> None:
    service.declare()
    service.apply()
    service.shell.json("stop", "qwen", "-i", "inventory.yml")
    (rank,) = service.shell.json("status", "-i", "inventory.yml", status=2)["services"][0]["ranks"]
    assert (rank["reason"]["id"], rank["answers"], rank["phase"]) == ("unit-stopped", False, "")
    assert "stopping" not in service.shell.run("status", "-i", "inventory.yml", status=2).stdout


def test_what_an_interruption_costs_stands_in_the_plan(service: Service) -> None:
    began = time.monotonic()
    service.declare("slow=2")
    service.apply()
    service.declare("slow=2", environment={"GREETING": "hello"})
    report = service.run("plan", status=2)
    (unit,) = [each for each in report["steps"] if each["kind"] == "unit"]
    assert 2 <= unit["outage_seconds"] <= time.monotonic() - began
    kept = json.loads(service.node.text("cat", "/var/lib/sparkops/services/qwen/last-start.json"))
    assert 0 < kept["port_seconds"] <= kept["token_seconds"]
    assert "its last start took" in service.shell.run("plan", "inventory.yml", status=2).stdout


def test_an_engine_that_hung_leaves_its_stacks_and_last_lines(service: Service) -> None:
    service.declare(timeouts={"watchdog_seconds": WATCHDOG})
    service.apply()
    pid = service.show("MainPID")
    service.ask("/lab/mode", "hang")
    service.eventually(lambda: service.show("MainPID") not in (pid, "0"))
    service.eventually(service.answers)
    (rank,) = service.shell.json("status", "-i", "inventory.yml")["services"][0]["ranks"]
    text = service.node.text("cat", rank["last_hang"]["path"])
    assert "no completion for" in text
    assert "most recent call first" in text, "the engine wrote its own stacks"
    assert "waits in" in text
    assert service.node.text("stat", "-c", "%a", rank["last_hang"]["path"]) == "600"


def test_an_engine_that_sends_requests_away_is_neither_serving_nor_ill(service: Service) -> None:
    service.declare(timeouts={"watchdog_seconds": WATCHDOG})
    service.apply()
    pid = service.show("MainPID")
    began = int(service.show("WatchdogTimestampMonotonic"))
    service.ask("/lab/mode", "busy")
    report = service.run("drift", status=3)
    assert "completion-sent-away" in json.dumps(report)
    until(lambda: int(service.show("WatchdogTimestampMonotonic")) - began > 1_500_000 * WATCHDOG)
    assert service.show("MainPID") == pid
