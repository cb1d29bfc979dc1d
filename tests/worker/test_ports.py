"""Whose a port is, on real sockets of real processes; Docker answers from a value."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sparkops.programs import docker
from sparkops.programs.launch import listening
from sparkops.programs.launch.listening import Unseen
from sparkops.worker.calls import Unknown
from sparkops.worker.system import ports
from tests.errors import fails

LISTENER = """
import socket, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
time.sleep(60)
"""


@pytest.fixture
def other() -> Iterator[tuple[int, int]]:
    """Port and id of a process that listens."""
    with subprocess.Popen([sys.executable, "-c", LISTENER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process.pid
        process.kill()


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The containers that Docker lists; none at first."""
    listed: list[dict[str, Any]] = []
    monkeypatch.setattr(docker, "containers", lambda *_, **__: listed)
    return listed


def test_what_listens_is_named_by_its_process(other: tuple[int, int]) -> None:
    port, pid = other
    held = ports.held(port, "0.0.0.0", lambda: None)
    assert not held.own
    assert held.foreign is not None
    assert held.foreign["pid"] == pid
    assert ports.words(held.foreign).startswith(f"process {pid} (python")


def test_a_port_on_which_nothing_listens_is_nobodys(engine: list[dict[str, Any]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert ports.held(port, "0.0.0.0", lambda: None) == ports.Held(False, None)


def test_what_docker_publishes_without_a_proxy_is_the_containers(engine: list[dict[str, Any]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    engine.append({"Id": "a", "Names": ["/old"], "Labels": {}, "Ports": [{"PublicPort": port, "Type": "tcp"}]})
    held = ports.held(port, "0.0.0.0", lambda: None)
    assert held.foreign is not None
    assert ports.words(held.foreign) == "container old"
    assert ports.held(port, "0.0.0.0", lambda: {"Id": "a"}) == ports.Held(True, None)
    engine[0]["Ports"][0]["Type"] = "udp"
    assert ports.held(port, "0.0.0.0", lambda: None) == ports.Held(False, None)


@pytest.mark.parametrize(
    ("reason", "free"),
    [("docker-stopped", True), ("docker-not-installed", True), ("docker-silent", False), ("docker-starting", False)],
)
def test_a_port_is_free_only_where_docker_said_so_or_is_not_there(
    monkeypatch: pytest.MonkeyPatch, reason: str, free: bool
) -> None:
    def silent(**_: object) -> list[object]:
        raise Unknown.of(reason)

    monkeypatch.setattr(docker, "containers", silent)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    if free:
        assert ports.held(port, "0.0.0.0", lambda: None) == ports.Held(False, None)
    else:
        with fails(reason, Unknown):
            ports.held(port, "0.0.0.0", lambda: None)


def test_dockers_proxy_is_its_containers(other: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    port, _ = other
    own = listening.owner(os.getpid())
    monkeypatch.setattr(listening, "owner", lambda pid, proc: own._replace(relayed="172.17.0.2", unit="docker.service"))
    found = {"Id": "a", "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}}}
    assert ports.held(port, "0.0.0.0", lambda: found).own
    other_address = {"Id": "b", "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.3"}}}}
    assert not ports.held(port, "0.0.0.0", lambda: other_address).own


def test_a_service_that_starts_again_meanwhile_is_not_foreign(
    other: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe said that a container listened in the place of the service that it was itself."""
    own = listening.owner(os.getpid())
    monkeypatch.setattr(listening, "owner", lambda pid, proc: own._replace(container="b"))
    monkeypatch.setattr(docker, "inspect_container", lambda name: None)
    looks = iter([{"Id": "a"}, {"Id": "b"}])
    assert ports.held(other[0], "0.0.0.0", lambda: next(looks)) == ports.Held(True, None)


def test_a_process_that_ends_while_it_is_looked_at_is_nobody(
    other: tuple[int, int], monkeypatch: pytest.MonkeyPatch, engine: list[dict[str, Any]]
) -> None:
    gone = listening.Owner(1, "unknown", "", "")
    there = iter([{"7": [gone]}, {}])
    monkeypatch.setattr(listening, "owners", lambda inodes: next(there))
    assert ports.held(other[0], "0.0.0.0", lambda: None) == ports.Held(False, None)


def test_what_cannot_be_seen_is_unknown(other: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def unseen(inodes: set[str]) -> Any:
        raise Unseen("only root can see which process listens")

    monkeypatch.setattr(listening, "owners", unseen)
    with fails("port-owner-unknown", Unknown):
        ports.held(other[0], "0.0.0.0", lambda: None)
