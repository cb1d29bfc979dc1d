"""What goes wrong on real nodes, through the command line: each fault has clear words with the way out and the right
exit status, leaves nothing half-written, and the next `apply` heals it."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Shell, until
from tests.e2e.test_main_job import complete
from tests.lab import model as tiny
from tests.lab.hub import Fault, Hub
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.rootfs import WARDEN_PASSWORD

REPO = "org/tiny"
FOLDER = "/data/tiny"
PARTIAL = "/data/.tiny.sparkops-partial"
CLAIMS = "/var/lib/sparkops/claims/faults.json"
NOTE = "/etc/sparkops-note"
ROLE = f"""\
    summary: A file, to see whether the node was reached
    scope: node
    resources:
      - file: {NOTE}
        content: reached
    """


@dataclass
class Cluster:
    """The one inventory of this module: a note on every node and, where asked for, a service on the first one.

    `roles` are those that run.
    """

    lab: Lab
    shell: Shell
    hub: Hub
    roles: tuple[str, ...] = ("note",)

    def declare(self, *nodes: Node, connection: str = "user: spark", more: str = "", **service: Any) -> None:
        """Nodes with a note, and a service whose variables are `service`, if there are any."""
        self.shell.write("roles/note/role.yml", ROLE)
        lines = [f"  {node.name}: {{host: {node.name}}}" for node in nodes]
        services = json.dumps({"tiny": {**self._service(nodes[0]), **service}} if service else {})
        text = (
            f"version: 1\ncluster: faults\nroles: [note]\n"
            f"connection: {{become: true, connect_timeout: 6, keepalive: 2, {connection}}}\n"
            f"nodes:\n{chr(10).join(lines)}\n{more}\nservices: {services}\n"
        )
        (self.shell.folder / "inventory.yml").write_text(text)

    def _service(self, node: Node) -> dict[str, Any]:
        return {
            "nodes": [node.name],
            "port": 8000,
            "image": {"pull": self.lab.engine_image.reference},
            "checkpoint": {"repository": REPO, "endpoint": self.hub.endpoint, "folder": FOLDER},
            "command": ["serve"],
            "gpus": None,
            "limits": {"shm_size_gib": None, "ulimits": {"memlock": None, "stack": None, "nofile": None}},
            "health": {"limit_seconds": 15},
        }

    def _words(self, command: str) -> list[str]:
        answer = ["--yes"] if command == "apply" else []
        return [command, "inventory.yml", *answer, *(word for role in self.roles for word in ("--role", role))]

    def run(self, command: str, status: int = 0, **more: Any) -> dict[str, Any]:
        return self.shell.json(*self._words(command), status=status, **more)

    def said(self, command: str, status: int, **more: Any) -> str:
        """What a person reads, in one line: words may be wrapped anywhere."""
        done = self.shell.run(*self._words(command), status=status, **more)
        return " ".join((done.stdout + done.stderr).split())

    def start(self) -> subprocess.Popen[str]:
        return self.shell.start(*self._words("apply"), "--format", "json")

    def healed(self, **more: Any) -> None:
        """The next apply brings it there, and nothing is left to do."""
        self.run("apply", **more)
        self.run("drift", **more)


@pytest.fixture
def cluster(lab: Lab, shell: Shell, hub: Hub) -> Cluster:
    return Cluster(lab, shell, hub)


@pytest.fixture
def model(tmp_path: Path, hub: Hub) -> Path:
    folder = tmp_path / "model"
    tiny.write(folder)
    hub.add_repo(REPO, folder)
    return folder


@pytest.fixture(scope="module")
def quiet(lab: Lab) -> Iterator[Node]:
    """One node for all tests that are refused before they reach it, or that clean up."""
    made = lab.add_node()
    yield made
    lab.remove_node(made)


@pytest.fixture(autouse=True)
def unwritten(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "quiet" in request.fixturenames:
        request.getfixturevalue("quiet").exec("rm", "-rf", NOTE, FOLDER, PARTIAL)


def slow(hub: Hub, model: Path, size: int, rate: float) -> None:
    """A shard of `size` bytes that comes slowly."""
    (model / "model-large.safetensors").write_bytes(random.Random(1).randbytes(size))
    hub.add_repo(REPO, model)
    hub.fail("model-large*", Fault(rate=rate))


def kilobytes(node: Node, path: str) -> int:
    return int(node.text("sh", "-c", f"du -sk {path} 2>/dev/null | cut -f1") or 0)


def sums(node: Node) -> dict[str, str]:
    script = f"cd {FOLDER} && find . -type f -not -path './.sparkops/*' -exec sha256sum {{}} +"
    return {
        path[2:]: digest for digest, path in (line.split("  ") for line in node.text("sh", "-c", script).split("\n"))
    }


def local_sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def result(report: dict[str, Any], kind: str) -> dict[str, Any]:
    (found,) = [each for each in report["results"] if each["id"].startswith(f"{kind} ")]
    assert isinstance(found, dict)
    return found


def ended(process: subprocess.Popen[str], status: int, seconds: float = 180) -> dict[str, Any]:
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == status, f"exit status {process.returncode}:\n{out}\n{err}"
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


# Host keys


@pytest.fixture
def other_key(tmp_path: Path) -> str:
    """The public key of a machine that is not there."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    return " ".join((tmp_path / "other.pub").read_text().split()[:2])


@pytest.fixture
def own_known_hosts(cluster: Cluster, tmp_path: Path) -> Path:
    """The user's known_hosts as a file of this test's, empty at first."""
    known = tmp_path / "user_known_hosts"
    known.write_text("")
    config = cluster.lab.ssh_config.read_text().replace(str(cluster.lab.known_hosts), str(known))
    (tmp_path / "ssh_config").write_text(config)
    cluster.shell.environment["SPARKOPS_SSH_CONFIG"] = str(tmp_path / "ssh_config")
    return known


def test_a_key_other_than_the_pinned_one_is_refused(cluster: Cluster, quiet: Node, other_key: str) -> None:
    cluster.declare(quiet, connection=f"user: spark, host_key: {other_key}")
    said = cluster.said("plan", 3)
    assert "HOST KEY" in said and "host_key" in said
    assert "→" in said
    cluster.run("apply", 3)
    assert not quiet.exists(NOTE)
    cluster.declare(quiet, connection=f"user: spark, host_key: {quiet.host_key}")
    cluster.healed()


def test_a_key_other_than_the_known_one_is_refused_and_never_replaced(
    cluster: Cluster, quiet: Node, other_key: str, own_known_hosts: Path
) -> None:
    own_known_hosts.write_text(f"{quiet.name} {other_key}\n")
    cluster.declare(quiet)
    said = cluster.said("apply", 3)
    assert "HAS CHANGED" in said and f"{own_known_hosts}:1" in said
    refused = cluster.shell.run("trust", "--yes", status=3)
    assert "HAS CHANGED" in refused.stderr
    assert not (cluster.shell.folder / "known_hosts").exists()
    assert not quiet.exists(NOTE)
    own_known_hosts.write_text("")
    cluster.shell.run("trust", "--yes")
    cluster.healed()


def test_an_unknown_key_is_refused_until_somebody_vouches_for_it(
    cluster: Cluster, quiet: Node, own_known_hosts: Path
) -> None:
    cluster.declare(quiet)
    said = cluster.said("apply", 3)
    assert "SHA256:" in said and f"sparkops trust {quiet.name}" in said
    assert not quiet.exists(NOTE)
    assert "error[host-key-unconfirmed]" in cluster.shell.run("trust", quiet.name, status=1).stderr
    assert not (cluster.shell.folder / "known_hosts").exists()
    shown = cluster.shell.run("trust", quiet.name, "--yes").stdout
    assert "new" in shown and "added to" in shown
    assert own_known_hosts.read_text() == "", "the user's own file is left alone"
    cluster.healed()


# sudo


def test_a_wrong_sudo_password_is_tried_once_on_one_node(cluster: Cluster, quiet: Node) -> None:
    def wrong_tries() -> int:
        return quiet.text("journalctl", "--no-pager", "-q", "-t", "sudo").count("authentication failure;")

    twice = f"  second: {{host: {quiet.name}, connection: {{state_dir: /var/lib/sparkops-second}}}}"
    cluster.declare(quiet, connection="user: warden, become_password: !env SUDO", more=twice)
    before = wrong_tries()
    report = cluster.run("apply", 3, environment={"SUDO": "wrong-one"})
    why = json.dumps(report["unreachable"])
    assert set(report["unreachable"]) == {quiet.name, "second"}
    assert "refused the sudo password" in why or "sudo refused" in why
    assert "not tried" in why
    assert wrong_tries() == before + 1
    assert "wrong-one" not in json.dumps(report)
    assert not quiet.exists(NOTE)

    unset = cluster.said("apply", 1)
    assert "SUDO" in unset and "→" in unset
    cluster.declare(quiet, connection="user: warden, become_password: !env SUDO")
    cluster.healed(environment={"SUDO": WARDEN_PASSWORD})


# Nodes that are down


def test_a_node_that_is_down_is_told_in_time_and_holds_no_other(cluster: Cluster, quiet: Node, node: Node) -> None:
    cluster.declare(quiet, node)
    for refuse, words in ((True, "refuses connections"), (False, "does not answer within 6 s")):
        node.cut(refuse=refuse)
        try:
            began = time.monotonic()
            report = cluster.run("apply", 3)
            assert time.monotonic() - began < 60, "TCP itself waits for two minutes"
            assert words in report["unreachable"][node.name]["message"]
            assert report["unreachable"][node.name]["fix"]
        finally:
            node.restore(refuse=refuse)
    assert quiet.exists(NOTE)
    node.kill()
    report = cluster.run("drift", 3)
    assert set(report["unreachable"]) == {node.name}
    node.start()
    cluster.healed()


# Faults in mid-apply


WORKER = "int.from_bytes[(]take"


@pytest.fixture
def fetching(cluster: Cluster, node: Node, model: Path) -> subprocess.Popen[str]:
    """An apply in the middle of fetching 6 MB, for which it takes a minute or until the hub heals."""
    slow(cluster.hub, model, 6_000_000, 1e5)
    cluster.roles = ("checkpoint",)
    cluster.declare(node, port=8000)
    process = cluster.start()
    until(lambda: kilobytes(node, PARTIAL) > 500, process)
    return process


@pytest.mark.slow
def test_a_node_that_freezes_in_mid_apply_is_reported_and_its_job_goes_on(
    cluster: Cluster, node: Node, model: Path, fetching: subprocess.Popen[str]
) -> None:
    with node.paused():
        report = ended(fetching, 4, 240)
        assert not node.exists(FOLDER)
    cluster.hub.heal()
    found = result(report, "checkpoint")
    assert found["outcome"] == "unknown"
    assert "no answer for" in found["reason"]["message"] or "no sign of life" in found["reason"]["message"]
    cluster.healed()
    assert sums(node) == local_sums(model)


def test_a_node_that_dies_in_mid_apply_goes_on_after_its_start(
    cluster: Cluster, node: Node, model: Path, fetching: subprocess.Popen[str]
) -> None:
    node.kill()
    report = ended(fetching, 4, 240)
    assert result(report, "checkpoint")["reason"]["id"] == "connection-lost"
    assert cluster.run("drift", 3)["unreachable"]
    cluster.hub.heal()
    node.start()
    assert not node.exists(FOLDER)
    cluster.healed()
    assert sums(node) == local_sums(model)


def test_a_worker_that_is_killed_in_mid_apply_is_started_again(
    cluster: Cluster, node: Node, model: Path, fetching: subprocess.Popen[str]
) -> None:
    node.exec("pkill", "-9", "-f", WORKER)
    until(lambda: node.exec("pgrep", "-f", WORKER, check=False).returncode == 0, fetching)
    cluster.hub.heal()
    report = ended(fetching, 0)
    assert result(report, "checkpoint")["outcome"] == "done"
    assert sums(node) == local_sums(model)
    assert cluster.hub.bytes_sent("model-large*") == 6_000_000, "the job went on, nothing was fetched twice"


@pytest.mark.slow
def test_a_cut_that_the_run_outlasts_is_no_failure_and_one_that_it_does_not_leaves_no_lock(
    cluster: Cluster, node: Node, model: Path, fetching: subprocess.Popen[str]
) -> None:
    node.cut()
    until(lambda: node.exec("pgrep", "-f", WORKER, check=False).returncode == 1)
    node.restore()
    cluster.hub.heal()
    report = ended(fetching, 0)
    assert result(report, "checkpoint")["outcome"] == "done"
    cluster.declare(node, port=8001)
    cluster.run("apply", 0)


@pytest.mark.slow
def test_a_controller_that_slept_for_longer_than_the_lock_lasts_goes_on(
    cluster: Cluster, node: Node, model: Path, fetching: subprocess.Popen[str]
) -> None:
    fetching.send_signal(signal.SIGSTOP)
    until(lambda: node.exec("pgrep", "-f", WORKER, check=False).returncode == 1)
    fetching.send_signal(signal.SIGCONT)
    cluster.hub.heal()
    report = ended(fetching, 0)
    assert result(report, "checkpoint")["outcome"] == "done"
    assert sums(node) == local_sums(model)


def test_a_controller_that_is_killed_in_mid_apply_leaves_nothing_that_the_next_one_minds(
    cluster: Cluster, node: Node, model: Path, fetching: subprocess.Popen[str]
) -> None:
    fetching.send_signal(signal.SIGKILL)
    fetching.wait()
    cluster.hub.heal()
    cluster.healed()
    assert sums(node) == local_sums(model)
    assert cluster.hub.bytes_sent("model-large*") == 6_000_000, "the job went on, nothing was fetched twice"


def test_a_second_apply_at_once_is_told_who_holds_the_node(
    cluster: Cluster, node: Node, fetching: subprocess.Popen[str]
) -> None:
    said = cluster.said("apply", 75)
    assert "error[node-locked]" in said and node.name in said and "apply inventory.yml" in said
    assert "→ wait until it is done" in said
    cluster.run("drift", 2)
    cluster.hub.heal()
    ended(fetching, 0)
    cluster.healed()


# What is declared and can't be had


def test_an_image_that_no_registry_has_is_told(cluster: Cluster, quiet: Node) -> None:
    cluster.roles = ("image", "service", "health")
    missing = f"{cluster.lab.registry.host}/lab/engin:7"
    cluster.declare(quiet, image={"pull": missing}, checkpoint={"repository": None}, model="/none")
    report = cluster.run("apply", 4)
    found = result(report, "image")
    assert found["reason"]["id"] in ("image-not-in-registry", "image-repository-missing", "image-tag-missing")
    assert found["reason"]["args"]["name"] == missing
    assert {each["outcome"] for each in report["results"] if each["id"].startswith(("unit", "probe"))} == {
        "not-attempted"
    }
    assert not quiet.exists("/etc/systemd/system/tiny.service")
    cluster.roles = ("image",)
    cluster.declare(quiet, checkpoint={"repository": None})
    cluster.healed()


def test_a_revision_that_does_not_exist_is_told_with_the_nearest_one(
    cluster: Cluster, quiet: Node, model: Path
) -> None:
    cluster.roles = ("checkpoint",)
    place = {"repository": REPO, "endpoint": cluster.hub.endpoint, "folder": FOLDER}
    cluster.declare(quiet, checkpoint={**place, "revision": "mian"})
    said = cluster.said("plan", 3)
    assert "no such revision" in said and "did you mean main?" in said
    cluster.run("apply", 3)
    assert not quiet.exists(FOLDER)
    cluster.declare(quiet, checkpoint={**place, "revision": "main"})
    cluster.healed()


# Disks


def test_a_rotten_shard_of_the_same_size_is_seen_and_fetched_alone(cluster: Cluster, quiet: Node, model: Path) -> None:
    cluster.roles = ("checkpoint",)
    cluster.declare(quiet, port=8000)
    cluster.healed()
    shard = sorted(path.name for path in model.glob("*.safetensors"))[0]
    quiet.exec("sh", "-c", f"printf rot | dd of={FOLDER}/{shard} bs=1 seek=5000 conv=notrunc")
    assert shard in cluster.said("drift", 2)
    cluster.hub.forget()
    cluster.healed()
    assert sums(quiet) == local_sums(model)
    assert {request.file for request in cluster.hub.requests if request.file} == {shard}


def test_a_full_disk_is_told_before_and_in_the_middle_and_heals_when_it_is_freed(
    cluster: Cluster, node: Node, model: Path
) -> None:
    node.tmpfs("/data", "16m")
    node.exec("dd", "if=/dev/zero", "of=/data/filler", "bs=64k", "count=192")
    slow(cluster.hub, model, 6_000_000, 1e5)
    cluster.roles = ("checkpoint",)
    cluster.declare(node, port=8000)
    cluster.hub.forget()
    found = result(cluster.run("apply", 4), "checkpoint")
    assert found["reason"]["id"] in ("disk-space-too-small", "image-space-missing")
    assert cluster.hub.bytes_sent() == 0

    node.exec("rm", "/data/filler")
    process = cluster.start()
    until(lambda: kilobytes(node, PARTIAL) > 500, process)
    node.exec("sh", "-c", "dd if=/dev/zero of=/data/filler bs=64k; true")
    found = result(ended(process, 4), "checkpoint")
    assert found["reason"]["id"] in ("disk-full", "image-disk-full")
    assert not node.exists(FOLDER)
    node.exec("rm", "/data/filler")
    cluster.hub.heal()
    cluster.healed()
    assert sums(node) == local_sums(model)


# Engines


def test_an_engine_that_does_not_come_up_is_told_with_its_words_and_the_next_apply_heals(
    cluster: Cluster, node: Node, model: Path
) -> None:
    cluster.roles = ("image", "checkpoint", "service", "health")
    short = {"restart_seconds": 1, "stop_seconds": 20, "probe_seconds": 20}

    def engine(mode: str, seconds: int) -> None:
        limits = {"first_boot_seconds": seconds, "cold_start_seconds": seconds, **short}
        cluster.declare(node, environment={"LAB_ENGINE": mode}, timeouts=limits)

    engine("crash", 120)
    said = cluster.said("apply", 4)
    assert "block_size (4176)" in said
    assert "set serve: {max-num-batched-tokens: 4176} or more" in said

    engine("never-ready", 3)
    found = result(cluster.run("apply", 4), "probe")
    assert "no completion within 3 s" in found["reason"]["message"] + found["detail"], found
    assert "Initializing a V1 LLM engine" in found["detail"]
    assert "first_boot_seconds" in found["reason"]["fix"], found
    assert "block_size" not in found["detail"], "the crash was another run's"

    engine("", 120)
    cluster.healed()
    assert complete(node, 8000)["choices"]


def test_the_first_interrupt_leaves_what_only_waits(cluster: Cluster, node: Node, model: Path) -> None:
    cluster.roles = ("image", "checkpoint", "service", "health")
    timeouts = {"first_boot_seconds": 600, "cold_start_seconds": 600}
    cluster.declare(node, environment={"LAB_ENGINE": "never-ready"}, timeouts=timeouts)
    running = cluster.start()
    until(lambda: "sparkops-tiny" in node.text("docker", "ps", "--format", "{{.Names}}"), running, 240)
    until(lambda: json.loads(node.read(CLAIMS)).get("unit tiny.service", {}).get("phase") == "ours", running)
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=120)
    report = json.loads(out)
    assert running.returncode == report["exit_status"] == 130
    assert {result["outcome"] for result in report["results"]} == {"done", "interrupted"}
    cluster.declare(node, environment={})
    cluster.healed()
