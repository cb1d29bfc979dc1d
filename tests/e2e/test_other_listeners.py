"""Whose answer, beside the plain cases: sockets of systemd, Docker without its proxy, names for addresses, paused
containers, ports that change hands."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Shell
from tests.e2e.test_service import CLEAR, PORT, UNIT, Service
from tests.e2e.test_whose_answer import foreign_container, refused, violations
from tests.lab.lab import Lab
from tests.lab.node import Node

OTHER = 8001
BRIDGE = {"network": "bridge", "mounts": [{"source": "/srv/tiny", "target": "/srv/tiny"}]}


@pytest.fixture
def service(lab: Lab, shell: Shell, machine: Node) -> Iterator[Service]:
    """Not declared yet; what a test made of it, and what stood in its way, is gone afterwards."""
    yield Service(lab, shell, machine)
    made = "systemctl disable --now web.socket web other; rm -f /etc/systemd/system/web.* /etc/systemd/system/other.*"
    machine.exec("sh", "-c", made, check=False)
    machine.exec("sh", "-c", CLEAR, check=False)


def test_a_socket_unit_on_the_port_is_named_and_not_the_first_process(service: Service) -> None:
    service.declare()
    service.node.write("/etc/systemd/system/web.socket", f"[Socket]\nListenStream={PORT}\n".encode())
    service.node.write("/etc/systemd/system/web.service", b"[Service]\nExecStart=/bin/sleep 9999\n")
    service.node.exec("sh", "-c", "systemctl daemon-reload && systemctl start web.socket")
    told = violations(service.run("plan", status=2))["port-taken-by-process"]["reason"]
    assert "(systemd) of web.socket" in told["message"]
    assert "systemctl stop" in told["fix"]
    service.apply(status=4)
    service.node.exec("systemctl", "stop", "web.socket")
    service.apply()
    service.node.exec("systemctl", "stop", UNIT)
    service.node.exec("systemctl", "start", "web.socket")
    service.node.exec("systemctl", "start", UNIT, check=False)
    service.eventually(lambda: service.show("ActiveState") == "failed")
    assert "for a socket unit" in service.show("StatusText")


def test_a_paused_container_is_let_go_on_by_the_next_apply(service: Service) -> None:
    service.declare()
    service.apply()
    pid = service.show("MainPID")
    service.node.exec("docker", "pause", "sparkops-qwen")
    report = service.run("plan", status=2)
    (unit,) = [each for each in report["steps"] if each["kind"] == "unit"]
    assert (unit["changes"], unit["disruptive"]) == (["paused"], False)
    service.apply()
    assert service.answers()
    assert service.show("MainPID") == pid, "it was not started again"


def test_a_service_at_a_name_for_an_address_is_proven(service: Service) -> None:
    service.declare(vars={"service": {"host": "localhost"}})
    service.apply()
    assert service.answers()
    assert service.run("apply")["steps"] == []


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_a_service_on_dockers_bridge_is_proven(service: Service, host: str) -> None:
    service.declare(container=BRIDGE, vars={"service": {"host": host}})
    service.apply()
    assert service.answers()
    assert service.run("apply")["steps"] == []


@pytest.fixture
def without_proxy(service: Service) -> Iterator[Service]:
    """Docker listens itself for what containers publish."""
    node, path = service.node, "/etc/docker/daemon.json"
    before = node.text("cat", path)
    node.write(path, json.dumps({**json.loads(before), "userland-proxy": False}).encode())
    node.exec("systemctl", "restart", "docker")
    yield service
    node.exec("sh", "-c", CLEAR, check=False)
    node.write(path, before.encode())
    node.exec("systemctl", "restart", "docker")


def test_a_service_on_dockers_bridge_without_a_proxy_is_proven_and_a_foreign_one_is_named(
    without_proxy: Service,
) -> None:
    service = without_proxy
    service.declare(container=BRIDGE)
    service.apply()
    assert service.run("apply")["steps"] == []
    service.node.exec("systemctl", "stop", UNIT)
    foreign_container(service, "-p", f"{PORT}:{PORT}")
    assert "container foreign" in refused(service)["reason"]["message"]
    service.node.exec("docker", "rm", "-f", "foreign")
    service.apply()


def test_what_docker_publishes_at_another_address_is_not_in_the_way(service: Service) -> None:
    address = service.node.text("sh", "-c", "hostname -I | cut -d' ' -f1")
    service.declare(vars={"service": {"host": address}})
    foreign_container(service, "-p", f"127.0.0.1:{PORT}:{PORT}")
    service.apply()
    assert service.run("apply")["steps"] == []


@pytest.mark.parametrize(
    "command", [("sleep", "9999"), pytest.param(("false",), marks=pytest.mark.slow)], ids=["runs", "failed"]
)
def test_a_unit_that_systemd_run_made_under_the_services_name_is_replaced(
    service: Service, command: tuple[str, ...]
) -> None:
    service.node.exec("systemd-run", "--unit", "qwen", *command)
    service.declare()
    service.apply()
    assert service.answers()
    assert service.show("FragmentPath") == f"/etc/systemd/system/{UNIT}"
    assert service.run("apply")["steps"] == []


@pytest.mark.parametrize("container", [{}, pytest.param(BRIDGE, marks=pytest.mark.slow)], ids=["host", "bridge"])
def test_two_services_swap_their_ports(service: Service, container: dict[str, object]) -> None:
    def declare(one: int, two: int) -> None:
        service.declare(**({"container": container} if container else {}))
        path = service.shell.folder / "inventory.yml"
        written = json.loads(path.read_text())
        qwen = written["services"]["qwen"]
        written["services"] = {"qwen": {**qwen, "port": one}, "other": {**qwen, "port": two}}
        path.write_text(json.dumps(written))

    declare(PORT, OTHER)
    service.apply()
    declare(OTHER, PORT)
    service.apply()
    assert service.run("apply")["steps"] == []
    for name, port in (("qwen", OTHER), ("other", PORT)):
        spec = json.loads(service.node.text("cat", f"/etc/sparkops/services/{name}.json"))
        assert spec["port"] == port
        assert service.node.text("systemctl", "show", "-P", "ActiveState", name) == "active"


def test_the_port_of_another_inventorys_service_is_told_before_the_own_one_is_stopped(service: Service) -> None:
    service.declare()
    service.apply()
    path = service.shell.folder / "inventory.yml"
    written = json.loads(path.read_text())
    qwen = written["services"].pop("qwen")

    def declare(port: int) -> None:
        path.write_text(json.dumps({**written, "cluster": "second", "services": {"other": {**qwen, "port": port}}}))

    declare(OTHER)
    service.apply()
    declare(PORT)
    (found,) = service.run("plan", status=2)["violations"]
    assert (found["id"], found["reason"]["args"]["holder"]) == ("port-taken-by-service", "qwen")
    report = service.apply(status=4)
    assert "done" not in {each["outcome"] for each in report["results"] if each["id"].startswith("unit ")}
    assert service.answers()
    assert service.node.text("systemctl", "show", "-P", "ActiveState", "other") == "active", "it was not stopped"
