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
from collections.abc import Iterator
from contextlib import contextmanager
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
JOBS = "/run/sparkops/jobs"


def declare(shell: Shell, node: Node, **resource: Any) -> None:
    """An inventory with one long step."""
    role = {"summary": "One long step", "scope": "node", "resources": [resource]}
    shell.write("roles/long/role.yml", json.dumps(role))
    shell.write(
        "inventory.yml",
        f"version: 1\ncluster: killed\nconnection: {{user: spark, become: true, connect_timeout: 2, keepalive: 1}}\n"
        f"roles: [long]\nnodes: {{{node.name}: {{}}}}\n",
    )


def start(shell: Shell) -> subprocess.Popen[str]:
    return shell.start("apply", "inventory.yml", *ROLE, "--format", "json")


def job(node: Node) -> dict[str, Any]:
    """The one running job: what it is, with its process id; empty without one."""
    script = f"for d in {JOBS}/*/; do flock -n $d/lock true || cat $d/job.json; done 2>/dev/null"
    said = node.text("sh", "-c", script)
    return json.loads(said) if said else {}


def progress(shell: Shell, process: subprocess.Popen[str]) -> list[str]:
    """What the run of this process has told of its long step so far."""
    told = shell.json("history", "--runs")["runs"]
    names = [each["run"] for each in told if each["run"].endswith(f"-apply-{process.pid}")]
    events = [json.loads(line) for name in names for line in shell.run("report", name, "--events").stdout.splitlines()]
    return [event["text"] for event in events if event["event"] == "StepProgress"]


def attached(shell: Shell, node: Node, pid: int) -> None:
    """A new apply follows the job of that process, shows how far it is, and ends well; nothing is left to do."""
    until(lambda: not node.locked())
    assert job(node)["pid"] == pid, "the job went on"
    again = start(shell)
    out, err = again.communicate(timeout=90)
    assert again.returncode == 0, out + err
    assert progress(shell, again), "the running job's progress was shown"
    shell.run("drift", "inventory.yml", *ROLE)
    assert job(node) == {}


def resumed(shell: Shell, node: Node, process: subprocess.Popen[str]) -> None:
    """The apply tells that its job was killed, and the next one brings it there."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 4, out + err
    (found,) = json.loads(out)["results"]
    assert found["reason"]["id"] in ("job-killed", "program-ended")
    shell.run("apply", "inventory.yml", *ROLE)
    shell.run("drift", "inventory.yml", *ROLE)


def end(process: subprocess.Popen[str]) -> None:
    """Leave no process of a test behind."""
    if process.poll() is None:
        process.kill()
        process.communicate()


# Images


class Relay(socketserver.BaseRequestHandler):
    """One connection to the lab's registry, whose answers come at a megabyte a second."""

    def handle(self) -> None:
        with socket.create_connection(self.server.behind) as far:  # type: ignore[attr-defined]
            threading.Thread(target=self._ask, args=(far,), daemon=True).start()
            while data := far.recv(32 << 10):
                try:
                    self.request.sendall(data)
                except OSError:
                    return
                time.sleep(len(data) / 1e6)

    def _ask(self, far: socket.socket) -> None:
        try:
            while data := self.request.recv(32 << 10):
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)
        except OSError:
            return


@contextmanager
def slow_registry(lab: Lab) -> Iterator[str]:
    """A slow way to the lab's registry: its address."""
    with socketserver.ThreadingTCPServer((lab.address, 0), Relay) as server:
        server.daemon_threads = True
        server.block_on_close = False
        host, _, port = lab.registry.host.partition(":")
        server.behind = (host, int(port))  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{lab.address}:{server.server_address[1]}"
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
def pulling(lab: Lab, shell: Shell, machine: Node, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """An apply in the middle of pulling 6 MB over a link of 1 MB/s."""
    name = f"tests/{secrets.token_hex(4)}"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("content")
        entry.size = 6_000_000
        tar.addfile(entry, io.BytesIO(random.Random(name).randbytes(entry.size)))
    lab.registry.push(name, "1", [Layer.written(tmp_path / "layer.tar.gz", out.getvalue())], command=["/content"])
    with slow_registry(lab) as host:
        declare(shell, machine, image=f"{host}/{name}:1")
        process = start(shell)
        until(lambda: any("pulling" in text for text in progress(shell, process)), process)
        yield process
        end(process)


@pytest.fixture
def building(lab: Lab, shell: Shell, machine: Node) -> Iterator[subprocess.Popen[str]]:
    """An apply in the middle of a build whose second step takes four seconds."""
    content = f"FROM {lab.engine_image.pinned}\nRUN sleep 4; echo {secrets.token_hex(4)} > /built\n"
    declare(shell, machine, image=f"local/{secrets.token_hex(4)}:1", content=content)
    process = start(shell)
    until(lambda: any("step 2" in text for text in progress(shell, process)), process, 90)
    yield process
    end(process)


@pytest.mark.parametrize("work", ["pulling", "building"])
def test_the_next_apply_follows_the_image_of_a_killed_controller(
    shell: Shell, machine: Node, work: str, request: pytest.FixtureRequest
) -> None:
    process = request.getfixturevalue(work)
    pid = job(machine)["pid"]
    process.kill()
    process.communicate()
    attached(shell, machine, pid)


@pytest.mark.parametrize("work", ["pulling", "building"])
def test_an_image_whose_job_is_killed_is_brought_by_the_next_apply(
    shell: Shell, machine: Node, work: str, request: pytest.FixtureRequest
) -> None:
    process = request.getfixturevalue(work)
    machine.exec("kill", "-9", str(job(machine)["pid"]))
    resumed(shell, machine, process)


# Checkpoints and whole nodes


@pytest.fixture
def fetching(shell: Shell, node: Node, hub: Hub, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """An apply in the middle of fetching three shards, the last of which is slow; the others are verified."""
    model = tmp_path / "model"
    model.mkdir()
    for number in (1, 2, 3):
        (model / f"model-{number}.safetensors").write_bytes(random.Random(number).randbytes(SHARD))
    hub.add_repo("org/long", model)
    hub.fail("model-3*", Fault(rate=250_000))
    manner = {"adopt": [], "segment": 200_000, "connections": 1}
    declare(shell, node, checkpoint=FOLDER, repository="org/long", endpoint=hub.endpoint, **manner)
    process = start(shell)
    proven = f"grep -l proven {PARTIAL}/.sparkops/content/*.json 2>/dev/null | wc -l"
    until(lambda: node.text("sh", "-c", proven) == "2", process)
    until(lambda: hub.bytes_sent("model-3*") > 300_000, process)
    yield process
    end(process)


def fetched_once(hub: Hub) -> None:
    for number in (1, 2):
        assert hub.bytes_sent(f"model-{number}*") == SHARD, "a verified shard is not fetched twice"


def test_a_node_that_is_rebooted_in_the_middle_of_a_job_goes_on_from_what_it_has(
    shell: Shell, node: Node, hub: Hub, fetching: subprocess.Popen[str]
) -> None:
    node.kill()
    out, err = fetching.communicate(timeout=150)
    assert fetching.returncode == 4, out + err
    node.start()
    assert not node.exists(JOBS), "/run is lost with the node"
    assert not node.exists(FOLDER)
    hub.heal()
    shell.run("apply", "inventory.yml", *ROLE)
    fetched_once(hub)
    assert hub.bytes_sent("model-3*") < 2 * SHARD, "it went on in the middle of the third"
    shell.run("drift", "inventory.yml", *ROLE)
    assert not node.exists(PARTIAL)


@pytest.mark.parametrize("who", ["controller", "job"])
def test_a_fetch_outlives_its_controller_and_is_resumed_without_its_job(
    shell: Shell, node: Node, hub: Hub, fetching: subprocess.Popen[str], who: str
) -> None:
    pid = job(node)["pid"]
    if who == "controller":
        fetching.kill()
        fetching.communicate()
        attached(shell, node, pid)
    else:
        node.exec("kill", "-9", str(pid))
        resumed(shell, node, fetching)
    fetched_once(hub)


def test_a_second_interrupt_leaves_at_once_and_the_same_command_resumes(shell: Shell, machine: Node) -> None:
    """A file whose validation takes long is no step that the first interrupt leaves."""
    machine.write("/srv/slow.conf", b"old")
    check = ["/bin/sh", "-c", "test -e /run/quick || sleep 20"]
    declare(shell, machine, file="/srv/slow.conf", content="new", validate=check)
    process = start(shell)
    until(lambda: machine.exec("sh", "-c", "ls -A /srv | grep -q '^.sparkops-'", check=False).returncode == 0, process)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None, "the first one lets the step finish"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=3)
    assert process.returncode == 130
    assert "the same command resumes" in err
    until(lambda: not machine.locked())
    assert machine.read("/srv/slow.conf") == b"old"
    machine.write("/run/quick", b"")
    shell.run("apply", "inventory.yml", *ROLE)
    assert machine.read("/srv/slow.conf") == b"new"
    assert machine.text("ls", "-A", "/srv") == "slow.conf", "nothing is left of the write that was cut off"
