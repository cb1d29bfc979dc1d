"""What belongs to somebody else on real nodes: kept, named or refused; and a Docker that does not serve is told apart.

The commands that messages name are run as they stand there: after them one apply converges.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Shell, until
from tests.lab import model as tiny
from tests.lab.hub import Hub
from tests.lab.lab import Lab
from tests.lab.node import Node

REPO = "org/tiny"
FOLDER = "/srv/tiny"
NOTE = "/etc/sparkops-note"


class Cluster:
    """One inventory of a file and a checkpoint on one node."""

    def __init__(self, shell: Shell, node: Node, hub: Hub, image: str) -> None:
        self.shell, self.node, self.hub, self.image = shell, node, hub, image

    def declare(self, folder: str = FOLDER, file: str = NOTE) -> None:
        resources: list[dict[str, Any]] = [
            {"file": file, "content": "reached"},
            {"checkpoint": folder, "repository": REPO, "endpoint": self.hub.endpoint, "adopt": []},
        ]
        self._write("own", resources)

    def declare_image(self) -> None:
        expect = {"version": {"verdicts": "docker", "accept": ["*"]}}
        self._write("own", [{"require": "docker", "expect": expect}, {"image": self.image}])

    def _write(self, role: str, resources: list[dict[str, Any]]) -> None:
        text = json.dumps({"summary": "own", "scope": "node", "resources": resources})
        self.shell.write(f"roles/{role}/role.yml", text)
        inventory = {
            "version": 1,
            "cluster": "files",
            "connection": {"user": "spark", "become": True, "connect_timeout": 10},
            "roles": [role],
            "nodes": {self.node.name: {"host": self.node.name}},
        }
        self.shell.write("inventory.yml", json.dumps(inventory))

    def run(self, verb: str, status: int | None) -> dict[str, Any]:
        more = ["--yes"] if verb == "apply" else []
        return self.shell.json(verb, "inventory.yml", "--role", "own", *more, status=status)

    def refused(self, verb: str) -> str:
        done = self.shell.run(verb, "inventory.yml", status=1)
        return done.stdout + done.stderr

    def settled(self) -> None:
        self.run("apply", 0)
        self.run("drift", 0)


@pytest.fixture
def cluster(lab: Lab, shell: Shell, machine: Node, hub: Hub, tmp_path: Path) -> Iterator[Cluster]:
    tiny.write(tmp_path / "model")
    hub.add_repo(REPO, tmp_path / "model")
    yield Cluster(shell, machine, hub, lab.engine_image.reference)
    machine.exec("rm", "-rf", FOLDER, NOTE)


def notices(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in report["notices"]}


def command(fix: str) -> str:
    """The first command that a way out names."""
    found = re.search(r"`([^`]+)`", fix)
    assert found is not None, fix
    return found[1]


def statuses(node: Node, folder: str) -> str:
    script = f"cd {folder} && find . -path ./.sparkops -prune -o -printf '%p %U %G %m %T@ %l\\n' | sort"
    return node.text("sh", "-c", script)


def test_what_people_keep_in_a_folder_that_is_taken_over_stays_as_it_is(cluster: Cluster) -> None:
    node = cluster.node
    node.exec(
        "sh",
        "-c",
        f"""set -e; mkdir -p {FOLDER}/alice/private {FOLDER}/upload
        echo mine > {FOLDER}/alice/private/diary; ln -s nowhere {FOLDER}/alice/link; echo 'import os' > {FOLDER}/evil.py
        chown -R spark:spark {FOLDER}/alice; chmod 700 {FOLDER}/alice/private; chmod 1777 {FOLDER}/upload""",
    )
    before = set(statuses(node, FOLDER).splitlines())
    cluster.declare()
    cluster.settled()
    lost = {line for line in before - set(statuses(node, FOLDER).splitlines()) if not line.startswith(". ")}
    assert lost == set()
    named = notices(cluster.run("plan", 0))["checkpoint-foreign-files"]
    assert named["args"]["files"] == ["evil.py"]
    node.exec("rm", f"{FOLDER}/evil.py")
    assert "checkpoint-foreign-files" not in notices(cluster.run("drift", 0))


@pytest.mark.parametrize(
    "folder", ["/etc", "/home", "/home/spark", "/usr/share", "/var/lib/docker", "/boot", "/proc/1"]
)
def test_a_folder_of_the_system_or_of_a_person_is_refused_before_any_node_is_asked(
    cluster: Cluster, folder: str
) -> None:
    cluster.declare(folder)
    for verb in ("lint", "plan"):
        assert folder in cluster.refused(verb)


@pytest.mark.parametrize("file", ["/", "/etc", "/proc/sys/vm/swappiness", "/dev/null", "/home"])
def test_a_file_in_the_place_of_a_folder_or_of_the_kernel_is_refused_in_lint(cluster: Cluster, file: str) -> None:
    cluster.declare(file=file)
    assert file in cluster.refused("lint")


def test_a_home_of_another_path_and_a_mount_point_are_refused_by_the_node(cluster: Cluster) -> None:
    node = cluster.node
    node.exec(
        "sh",
        "-c",
        "useradd -M -d /srv/people/bob bob; mkdir -p /srv/people/bob /srv/disk; "
        "mount -t tmpfs -o size=1m tmpfs /srv/disk; ln -sfn /etc /srv/elsewhere",
    )
    try:
        for folder in ("/srv/people/bob", "/srv/people", "/srv/disk", "/srv/elsewhere/models"):
            cluster.declare(folder)
            report = cluster.run("plan", 2)
            assert [each["id"][:7] for each in report["violations"]] == ["folder-"], (folder, report)
    finally:
        node.exec("sh", "-c", "umount /srv/disk; userdel bob; rm -rf /srv/people /srv/disk /srv/elsewhere")


@pytest.mark.parametrize(
    "deny", [f"chown root {FOLDER}/config.json && chmod 600 {FOLDER}/config.json", f"chmod 000 {FOLDER}/*.safetensors"]
)
def test_files_that_their_owner_may_not_read_converge_with_one_apply(cluster: Cluster, deny: str) -> None:
    cluster.node.exec("sh", "-c", f"mkdir -p {FOLDER}; chown spark {FOLDER}")
    cluster.declare()
    cluster.settled()
    cluster.node.exec("sh", "-c", deny)
    cluster.settled()


def test_a_directory_at_the_path_of_a_file_is_told_by_the_plan_with_the_command(cluster: Cluster) -> None:
    cluster.declare()
    cluster.node.exec("mkdir", "-p", f"{NOTE}/inside")
    try:
        report = cluster.run("plan", 2)
        (found,) = [each for each in report["violations"] if each["id"] == "path-occupied"]
        cluster.run("apply", 4)
        cluster.node.exec("sh", "-c", command(found["reason"]["fix"]))
        cluster.settled()
        assert cluster.node.exists(f"{NOTE}.before-sparkops/inside")
    finally:
        cluster.node.exec("rm", "-rf", f"{NOTE}.before-sparkops")


@pytest.mark.parametrize(
    ("ruin", "id", "mend"),
    [
        ("rm -f /var/lib/sparkops/lock; mkdir /var/lib/sparkops/lock", "own-path-occupied", ""),
        ("mount -t tmpfs -o ro,mode=700 tmpfs /var/lib/sparkops",
         "own-folder-read-only", "umount /var/lib/sparkops"),
    ],
)  # fmt: skip
def test_a_state_folder_that_can_not_be_used_is_told_with_the_command(
    cluster: Cluster, ruin: str, id: str, mend: str
) -> None:
    cluster.declare()
    cluster.settled()
    cluster.node.exec("sh", "-c", f"rm {NOTE}; {ruin}")
    try:
        done = cluster.shell.run("apply", "inventory.yml", "--role", "own", "--yes", status=4)
        words = " ".join(done.stderr.split())
        assert words.startswith(f"error[{id}]") and "/var/lib/sparkops" in words
        assert not cluster.node.exists(NOTE)
        cluster.node.exec("sh", "-c", command(words[words.index("→") :]))
        cluster.settled()
    finally:
        cluster.node.exec("sh", "-c", f"{mend or 'true'}; rm -rf /var/lib/sparkops/lock.aside", check=False)


MOVED = "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H unix:///run/moved.sock\n"
DROP_IN = "/etc/systemd/system/docker.service.d/moved.conf"
STATES = {
    "docker-stopped": ("systemctl stop docker.socket docker.service", "true"),
    "docker-masked": (
        "systemctl stop docker.socket docker.service; systemctl mask docker.socket docker.service",
        "true",
    ),
    "docker-failed": (
        "systemctl stop docker.socket docker.service; cp /etc/docker/daemon.json /root/;"
        "echo { > /etc/docker/daemon.json;"
        "systemctl start docker.socket docker.service; systemctl stop docker.socket; systemctl start docker.service",
        "cp /root/daemon.json /etc/docker/daemon.json",
    ),
    "docker-elsewhere": (
        f"systemctl stop docker.socket docker.service; mkdir -p {DROP_IN.rpartition('/')[0]};"
        f"printf '{MOVED}' > {DROP_IN}; systemctl daemon-reload; systemctl start docker.service;"
        "rm -f /run/docker.sock",
        "true",
    ),
    "docker-deaf": ("rm -f /run/docker.sock", "true"),
}


@pytest.fixture
def served(cluster: Cluster) -> Iterator[Node]:
    node = cluster.node
    yield node
    node.exec("sh", "-c", f"[ ! -f /root/daemon.json ] || mv /root/daemon.json /etc/docker/;"
              f"rm -f {DROP_IN} /run/docker.sock;"
              "systemctl unmask docker.socket docker.service;"
              "systemctl daemon-reload; systemctl stop docker.service docker.socket; systemctl reset-failed;"
              "systemctl start docker.socket docker.service", check=False)  # fmt: skip


@pytest.mark.parametrize("id", STATES)
def test_why_docker_does_not_serve_is_told_with_the_one_command_that_helps(
    cluster: Cluster, served: Node, id: str
) -> None:
    ruin, repair = STATES[id]
    cluster.declare_image()
    cluster.settled()
    served.exec("sh", "-c", ruin, check=False)
    report = cluster.run("plan", 2)
    (why,) = report["unknown"].values()
    (violation,) = report["violations"]
    assert why["id"] == id
    assert violation["id"] == "docker.absent"
    assert violation["reason"]["fix"] == why["fix"]
    served.exec("sh", "-c", repair)
    commands = [each for each in re.findall(r"`([^`]+)`", why["fix"]) if each.startswith(("systemctl", "ln"))]
    served.exec("sh", "-c", commands[-1], check=False)
    until(lambda: served.exec("docker", "version", check=False).returncode == 0)
    cluster.settled()
