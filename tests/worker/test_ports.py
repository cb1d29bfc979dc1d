"""Whose a port is, on real sockets of real processes; Docker answers from a value."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
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


def test_dockers_proxy_of_an_ipv6_address_is_its_containers_too(
    other: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = listening.owner(os.getpid())
    monkeypatch.setattr(listening, "owner", lambda pid, proc: own._replace(relayed="fd00::2"))
    there = {"bridge": {"IPAddress": "172.17.0.2", "GlobalIPv6Address": "fd00::2"}}
    assert ports.held(other[0], "0.0.0.0", lambda: {"Id": "a", "NetworkSettings": {"Networks": there}}).own


@pytest.mark.parametrize(("identity", "own"), [("a", True), ("b", False)])
def test_where_docker_listens_itself_the_container_counts_that_it_publishes(
    other: tuple[int, int], monkeypatch: pytest.MonkeyPatch, engine: list[dict[str, Any]], identity: str, own: bool
) -> None:
    """`userland-proxy: false`: the service's own container was called foreign, and the plan said to adopt Docker."""
    port, _ = other
    there = listening.owner(os.getpid())
    monkeypatch.setattr(listening, "owner", lambda pid, proc: there._replace(process="dockerd", unit="docker.service"))
    published = {"IP": "0.0.0.0", "PublicPort": port, "Type": "tcp"}
    engine.append({"Id": "a", "Names": ["/web"], "Labels": {}, "Ports": [published]})
    held = ports.held(port, "0.0.0.0", lambda: {"Id": identity})
    assert held.own is own
    assert own or (held.foreign is not None and ports.words(held.foreign) == "container web")


@pytest.mark.parametrize(
    ("address", "host", "taken"),
    [
        ("127.0.0.1", "192.168.1.11", False),
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("0.0.0.0", "192.168.1.11", True),
        ("::", "0.0.0.0", True),
        ("", "192.168.1.11", True),
    ],
)
def test_a_port_that_docker_publishes_at_another_address_is_not_in_the_way(
    engine: list[dict[str, Any]], address: str, host: str, taken: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    published = {"IP": address, "PublicPort": port, "Type": "tcp"}
    engine.append({"Id": "a", "Names": ["/web"], "Labels": {}, "Ports": [published]})
    assert (ports.held(port, host, lambda: None).foreign is not None) is taken


def test_a_container_that_docker_does_not_know_is_named_with_its_unit(
    other: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """podman's: `sparkops adopt` could not take it over."""
    there = listening.owner(os.getpid())
    scope = f"libpod-{'d' * 64}.scope"
    monkeypatch.setattr(listening, "owner", lambda pid, proc: there._replace(container="d" * 64, unit=scope))
    monkeypatch.setattr(docker, "inspect_container", lambda name: None)
    foreign = ports.held(other[0], "0.0.0.0", lambda: None).foreign
    assert foreign is not None
    assert (foreign["container"], foreign["unit"]) == ("d" * 12, scope)


SOCKETS = "Id=a.socket\nListen=/run/a (Stream)\nListen=[::]:{0}1 (Stream)\n\nId=web.socket\nListen={1}{0} (Stream)\n"


@pytest.mark.parametrize("address", ["[::]:", "0.0.0.0:", ""])
def test_what_systemd_itself_listens_for_is_named_by_its_socket_unit(
    other: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    port, _ = other
    there = listening.owner(os.getpid())
    init = there._replace(pid=1, process="systemd", unit="init.scope")
    monkeypatch.setattr(listening, "owner", lambda pid, proc: init)
    (tmp_path / "said").write_text(SOCKETS.format(port, address))
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\ncat {tmp_path}/said\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    foreign = ports.held(port, "0.0.0.0", lambda: None).foreign
    assert foreign is not None
    assert ports.words(foreign) == "process 1 (systemd) of web.socket"
    (tmp_path / "systemctl").write_text("#!/bin/sh\nsleep 0; exit 1\n")
    again = ports.held(port, "0.0.0.0", lambda: None).foreign
    assert again is not None and again["unit"] == "init.scope"


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
