"""Long steps whose controller, worker, job or node ends in the middle: what runs goes on or is resumed, and the second
Ctrl-C leaves at once."""

from __future__ import annotations

import io
import json
import random
import secrets
import signal
import socket
import socketserver
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Shell, until
from tests.lab.hub import Fault, Hub
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.registry import Layer

ROLE = ("--role", "long")
FOLDER = "/data/model"
PARTIAL = "/data/.model.sparkops-partial"
SHARD = 1_500_000
LAST = 9_000_000
GOT = 300_000
"""Bytes of the last shard that have come when the fault does."""
JOBS = "/run/sparkops/jobs"


def declare(shell: Shell, node: Node, **resource: Any) -> None:
    """An inventory with one long step."""
    role = {"summary": "One long step", "scope": "node", "resources": [resource]}
    shell.write("roles/long/role.yml", json.dumps(role))
    shell.write(
        "inventory.yml",
        f"version: 1\ncluster: killed\nconnection: {{user: spark, become: true, connect_timeout: 6, keepalive: 2}}\n"
        f"roles: [long]\nnodes: {{{node.name}: {{}}}}\n",
    )


def start(shell: Shell) -> subprocess.Popen[str]:
    return shell.start("apply", "inventory.yml", *ROLE, "--format", "json")


def job(node: Node) -> dict[str, Any]:
    """The one running job: what it is, with its process id; empty without one."""
    script = f"for d in {JOBS}/*/; do flock -n $d/lock true || cat $d/job.json; done 2>/dev/null"
    said = node.text("sh", "-c", script)
    return json.loads(said) if said else {}


@dataclass(frozen=True)
class Work:
    """A command in the middle of a long step, which is not done before `let_go` or within a minute and a half."""

    process: subprocess.Popen[str]
    let_go: Callable[[], object]

    def ends(self, again: subprocess.Popen[str]) -> None:
        """The step goes on, also what of it begins only now, and the command that follows it ends well."""

        def over() -> bool:
            self.let_go()
            return again.poll() is not None

        until(over, seconds=180)
        out, err = again.communicate()
        assert again.returncode == 0, out + err


def attached(shell: Shell, node: Node, pid: int, work: Work) -> None:
    """A new apply follows the job of that process, shows how far it is, and ends well; nothing is left to do."""
    until(lambda: not node.locked())
    assert job(node)["pid"] == pid, "the job went on"
    again = start(shell)
    until(lambda: shell.told(again), again)  # the running job's progress
    work.ends(again)
    shell.run("drift", "inventory.yml", *ROLE)
    assert job(node) == {}


def resumed(shell: Shell, work: Work) -> None:
    """The apply tells that its job was killed, and the next one brings it there."""
    out, err = work.process.communicate(timeout=120)
    assert work.process.returncode == 4, out + err
    (found,) = json.loads(out)["results"]
    assert found["reason"]["id"] in ("job-killed", "program-ended")
    work.ends(start(shell))
    shell.run("drift", "inventory.yml", *ROLE)


def end(process: subprocess.Popen[str]) -> None:
    """Leave no process of a test behind."""
    if process.poll() is None:
        process.kill()
        process.communicate()


# Images


class Relay(socketserver.BaseRequestHandler):
    """One connection to the lab's registry, whose answers come at 64 kB a second until the server lets them go."""

    def handle(self) -> None:
        with socket.create_connection(self.server.behind) as far:  # type: ignore[attr-defined]
            threading.Thread(target=self._ask, args=(far,), daemon=True).start()
            while data := far.recv(32 << 10):
                try:
                    self.request.sendall(data)
                except OSError:
                    return
                self.server.free.wait(len(data) / 64e3)  # type: ignore[attr-defined]

    def _ask(self, far: socket.socket) -> None:
        try:
            while data := self.request.recv(32 << 10):
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)
        except OSError:
            return


@contextmanager
def slow_registry(lab: Lab) -> Iterator[tuple[str, Callable[[], None]]]:
    """A slow way to the lab's registry: its address, and what ends the slowness."""
    with socketserver.ThreadingTCPServer((lab.address, 0), Relay) as server:
        server.daemon_threads = True
        server.block_on_close = False
        host, _, port = lab.registry.host.partition(":")
        server.behind, server.free = (host, int(port)), threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{lab.address}:{server.server_address[1]}", server.free.set  # type: ignore[attr-defined]
        server.shutdown()


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Node]:
    """One node for the tests that leave it as it was; its Docker takes any port of the lab for a registry."""
    made = lab.add_node()
    settings = json.loads(made.read("/etc/docker/daemon.json"))
    settings["insecure-registries"].append(f"{lab.address}/32")
    made.write("/etc/docker/daemon.json", json.dumps(settings).encode())
    made.exec("systemctl", "reload", "docker")
    yield made
    lab.remove_node(made)


@pytest.fixture
def pulling(lab: Lab, shell: Shell, machine: Node, tmp_path: Path) -> Iterator[Work]:
    """An apply in the middle of pulling 6 MB over a slow link."""
    name = f"tests/{secrets.token_hex(4)}"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("content")
        entry.size = 6_000_000
        tar.addfile(entry, io.BytesIO(random.Random(name).randbytes(entry.size)))
    lab.registry.push(name, "1", [Layer.written(tmp_path / "layer.tar.gz", out.getvalue())], command=["/content"])
    with slow_registry(lab) as (host, let_go):
        declare(shell, machine, image=f"{host}/{name}:1")
        process = start(shell)
        until(lambda: "pulling" in str(shell.told(process)), process)
        yield Work(process, let_go)
        end(process)


@pytest.fixture
def building(lab: Lab, shell: Shell, machine: Node) -> Iterator[Work]:
    """An apply in the middle of a build's second step."""
    content = f"FROM {lab.engine_image.pinned}\nRUN sleep 90; echo {secrets.token_hex(4)} > /built\n"
    declare(shell, machine, image=f"local/{secrets.token_hex(4)}:1", content=content)
    process = start(shell)
    until(lambda: "step 2" in str(shell.told(process)), process)
    yield Work(process, lambda: machine.exec("pkill", "-x", "sleep", check=False))
    end(process)


@pytest.mark.parametrize("work", ["pulling", "building"])
def test_the_next_apply_follows_the_image_of_a_killed_controller(
    shell: Shell, machine: Node, work: str, request: pytest.FixtureRequest
) -> None:
    found: Work = request.getfixturevalue(work)
    pid = job(machine)["pid"]
    found.process.kill()
    found.process.communicate()
    attached(shell, machine, pid, found)


@pytest.mark.parametrize("work", ["pulling", "building"])
def test_an_image_whose_job_is_killed_is_brought_by_the_next_apply(
    shell: Shell, machine: Node, work: str, request: pytest.FixtureRequest
) -> None:
    found: Work = request.getfixturevalue(work)
    machine.exec("kill", "-9", str(job(machine)["pid"]))
    resumed(shell, found)


# Checkpoints and whole nodes


@pytest.fixture
def fetching(shell: Shell, node: Node, hub: Hub, tmp_path: Path) -> Iterator[Work]:
    """An apply in the middle of fetching three shards, the last of which is slow; the others are verified."""
    model = tmp_path / "model"
    model.mkdir()
    for number, size in {1: SHARD, 2: SHARD, 3: LAST}.items():
        (model / f"model-{number}.safetensors").write_bytes(random.Random(number).randbytes(size))
    hub.add_repo("org/long", model)
    hub.fail("model-3*", Fault(rate=1e5))
    manner = {"adopt": [], "segment": 200_000, "connections": 1}
    declare(shell, node, checkpoint=FOLDER, repository="org/long", endpoint=hub.endpoint, **manner)
    process = start(shell)
    proven = f"grep -l proven {PARTIAL}/.sparkops/content/*.json 2>/dev/null | wc -l"
    until(lambda: node.text("sh", "-c", proven) == "2", process)
    until(lambda: hub.bytes_sent("model-3*") > GOT, process)
    yield Work(process, hub.heal)
    end(process)


def fetched_once(hub: Hub) -> None:
    for number in (1, 2):
        assert hub.bytes_sent(f"model-{number}*") == SHARD, "a verified shard is not fetched twice"


@pytest.mark.slow
def test_a_node_that_is_rebooted_in_the_middle_of_a_job_goes_on_from_what_it_has(
    shell: Shell, node: Node, hub: Hub, fetching: Work
) -> None:
    node.kill()
    out, err = fetching.process.communicate(timeout=240)
    assert fetching.process.returncode == 4, out + err
    node.start()
    assert not node.exists(JOBS), "/run is lost with the node"
    assert not node.exists(FOLDER)
    hub.heal()
    shell.run("apply", "inventory.yml", *ROLE)
    fetched_once(hub)
    assert hub.bytes_sent("model-3*") < LAST + GOT, "it went on in the middle of the third"
    shell.run("drift", "inventory.yml", *ROLE)
    assert not node.exists(PARTIAL)


@pytest.mark.parametrize("who", ["controller", "job"])
def test_a_fetch_outlives_its_controller_and_is_resumed_without_its_job(
    shell: Shell, node: Node, hub: Hub, fetching: Work, who: str
) -> None:
    pid = job(node)["pid"]
    if who == "controller":
        fetching.process.kill()
        fetching.process.communicate()
        attached(shell, node, pid, fetching)
    else:
        node.exec("kill", "-9", str(pid))
        resumed(shell, fetching)
    fetched_once(hub)


def test_a_second_interrupt_leaves_at_once_and_the_same_command_resumes(shell: Shell, machine: Node) -> None:
    """A file whose validation takes long is no step that the first interrupt leaves."""
    machine.write("/srv/slow.conf", b"old")
    check = ["/bin/sh", "-c", "test -e /run/quick || sleep 50"]
    declare(shell, machine, file="/srv/slow.conf", content="new", validate=check)
    process = start(shell)
    until(lambda: machine.exec("sh", "-c", "ls -A /srv | grep -q '^.sparkops-'", check=False).returncode == 0, process)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None, "the first one lets the step finish"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command resumes" in err
    until(lambda: not machine.locked())
    assert machine.read("/srv/slow.conf") == b"old"
    machine.write("/run/quick", b"")
    shell.run("apply", "inventory.yml", *ROLE)
    assert machine.read("/srv/slow.conf") == b"new"
    assert machine.text("ls", "-A", "/srv") == "slow.conf", "nothing is left of the write that was cut off"
