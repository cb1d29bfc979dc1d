"""`sparkops remove`: a bare node, applied to and taken back, differs in what the command named and in nothing else."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Shell, until
from tests.e2e.test_host import declare as declare_host
from tests.e2e.test_orphans import Renaming, claims, declare, role, unit
from tests.lab import model
from tests.lab.hub import Hub
from tests.lab.lab import Lab
from tests.lab.node import Node

SNAPSHOT = """
import hashlib, json, os, stat
SKIPPED = {"/proc", "/sys", "/dev", "/run", "/tmp", "/var/lib/docker", "/var/log", "/var/cache", "/var/lib/apt",
           "/var/lib/systemd", "/var/lib/containerd", "/srv/tiny"}
found = {}
for folder, folders, files in os.walk("/"):
    folders[:] = [each for each in folders if os.path.join(folder, each) not in SKIPPED]
    for name in folders + files:
        path = os.path.join(folder, name)
        status = os.lstat(path)
        what = ""
        if stat.S_ISREG(status.st_mode):
            what = hashlib.sha256(open(path, "rb").read()).hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            what = os.readlink(path)
        found[path] = [oct(status.st_mode), status.st_uid, status.st_gid, what]
print(json.dumps(found))
"""


def snapshot(node: Node) -> dict[str, Any]:
    """Every path of the node with type, mode, owner and content; but for what the system itself writes all the time."""
    found = json.loads(node.text("python3", "-c", SNAPSHOT))
    assert isinstance(found, dict)
    return found


def differing(before: dict[str, Any], node: Node) -> set[str]:
    """The paths that came, went or changed."""
    now = snapshot(node)
    return {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)}


def staying(report: dict[str, Any]) -> dict[str, str]:
    """What the command said to stay, and why."""
    return {f"{each['kind']} {each['name']}": each["kept"] for each in report["orphans"]}


def leaving(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The notices of what was asked for and stays."""
    return [notice for notice in report["notices"] if notice["id"] == "removal-leaves"]


def gone(report: dict[str, Any]) -> set[str]:
    assert {step["action"] for step in report["steps"]} <= {"delete"}
    return {step["id"].partition(" @")[0] for step in report["steps"]}


def test_a_bare_node_is_bare_again(lab: Lab, shell: Shell, node: Node, hub: Hub, tmp_path: Path) -> None:
    hub.add_repo("org/tiny", model.write(tmp_path / "tiny"))
    node.write("/etc/was-there", b"somebody else's\n", mode=0o640)
    node.exec("sh", "-c", "chown daemon:adm /etc/was-there; ln -s /etc/hosts /etc/link-was-there")
    node.write("/etc/as-declared", b"the same\n")
    node.exec("mkdir", "-p", "/etc/folder")
    node.exec("docker", "images", "-q")
    checkpoint = "/var/lib/sparkops/models/org--tiny/main"
    service = Renaming(lab, shell, node)
    before = snapshot(node)
    service.declare()
    role(
        shell,
        "things",
        {"directory": "/etc/folder"},
        {"file": "/etc/folder/one", "content": "one\n"},
        {"directory": "/etc/ours"},
        {"file": "/etc/ours/secret", "content": "{{ things.key }}"},
        {"link": "/etc/ours/link", "target": "secret"},
        {"file": "/etc/was-there", "content": "ours\n", "owner": "root", "mode": "0600"},
        {"link": "/etc/link-was-there", "target": "/etc/ours"},
        {"file": "/etc/as-declared", "content": "the same\n"},
        {"sysctl": "net.ipv4.ip_default_ttl", "value": 64},
        {"checkpoint": checkpoint, "repository": "org/tiny", "endpoint": hub.endpoint, "adopt": []},
        unit("ours"),
    )
    content = json.loads((shell.folder / "roles/things/role.yml").read_text())
    content["variables"] = {
        "type": "object",
        "properties": {"key": {"type": "string", "description": "a key", "secret": True}},
    }
    shell.write("roles/things/role.yml", json.dumps(content))
    inventory = json.loads((shell.folder / "inventory.yml").read_text())
    inventory["nodes"][node.name] = {"roles": ["things"]}
    text = json.dumps(inventory, indent=1)[:-1].rstrip() + ',\n "vars": {"things": {"key": !env KEY}}}\n'
    shell.write("inventory.yml", text)
    shell.environment["KEY"] = "planted"
    service.run("apply", "--yes")
    assert service.answers()
    assert node.exists("/etc/ours/secret")

    look = shell.json("remove", node.name, "--check", status=2)
    assert staying(look) == {
        "file /etc/as-declared": "it was there before sparkops",
        "directory /etc/folder": "it was there before sparkops",
        "sysctl net.ipv4.ip_default_ttl": "sparkops never removes sysctls unasked",
        f"checkpoint {checkpoint}": "sparkops never removes checkpoints unasked",
        f"image {lab.engine_image.reference}": "sparkops never removes images unasked",
    }
    assert service.answers(), "a look touches nothing"
    assert "removal-unconfirmed" in shell.run("remove", node.name, status=1).stderr
    assert service.answers()

    report = shell.json("remove", node.name, "--sysctl", "--checkpoints", "--images", "--yes", "-m", "sold")
    assert {"unit qwen.service", "unit ours.service", "link /etc/ours/link", "directory /etc/ours"} <= gone(report)
    assert "removal-declared" in [notice["id"] for notice in report["notices"]]
    assert differing(before, node) == set()
    assert node.text("docker", "ps", "-aq") == ""
    assert node.text("docker", "images", "-q") == ""
    assert not node.exists("/run/sparkops")
    assert node.text("systemctl", "show", "-P", "LoadState", "ours.service") == "not-found"
    assert shell.json("remove", node.name, "--check")["steps"] == []
    service.run("apply", "--yes")
    assert service.answers(), "and it can be put there again"


def test_what_the_role_host_set_up_goes_too(shell: Shell, node: Node) -> None:
    before = snapshot(node)
    declare_host(shell, node)
    shell.run("apply", "inventory.yml", "--role", "host", "--yes", status=None)
    assert node.exists("/etc/systemd/system/ssh.service.d/60-sparkops.conf")
    shell.run("remove", node.name, "--yes")
    assert differing(before, node) == set()
    assert node.text("systemctl", "show", "-P", "NeedDaemonReload", "ssh.service") == "no"


def test_a_service_goes_and_another_stays_also_when_it_is_no_longer_declared(
    lab: Lab, shell: Shell, node: Node
) -> None:
    service = Renaming(lab, shell, node)
    service.declare()
    role(shell, "note", {"file": "/etc/note-{{ service.name }}", "content": "x\n"}, scope="service")
    inventory = json.loads((shell.folder / "inventory.yml").read_text())
    (one,) = inventory["services"].values()
    one["roles"] = ["note"]
    both = {"qwen": one, "coder": {**one, "port": 8001}}
    shell.write("inventory.yml", json.dumps({**inventory, "services": both}, indent=1))
    service.run("apply", "--yes")

    report = shell.json("remove", "coder", "--yes")
    services = "/etc/sparkops/services"
    kept = "generation /var/lib/sparkops/generations/coder"
    assert gone(report) == {"unit coder.service", f"file {services}/coder.json", "file /etc/note-coder", kept}
    assert service.answers()
    assert node.text("docker", "ps", "-a", "--format", "{{.Names}}") == "sparkops-qwen"
    assert node.exists("/var/lib/sparkops/history.jsonl")
    both.pop("coder")
    shell.write("inventory.yml", json.dumps({**inventory, "services": both}, indent=1))
    service.run("drift")

    shell.write("inventory.yml", json.dumps({**inventory, "services": {}}, indent=1))
    assert "removal-of-unknown" in shell.run("remove", "three", "--yes", status=1).stderr
    assert service.answers()
    node.write("/etc/note-qwen", b"x, and what a person added\n")
    report = shell.json("remove", "qwen", "--yes")
    assert {"unit qwen.service", f"file {services}/qwen.json"} <= gone(report)
    assert staying(report)["file /etc/note-qwen"] == "it was edited since sparkops wrote it"
    assert node.read("/etc/note-qwen") == b"x, and what a person added\n"
    assert node.text("docker", "ps", "-aq") == ""


def test_what_another_cluster_or_container_uses_stays(shell: Shell, node: Node, lab: Lab) -> None:
    shared = {"directory": "/etc/both"}, {"file": "/etc/both/tool", "content": "tool\n", "shared": True}
    role(shell, "one", *shared, {"file": "/etc/both/one", "content": "1\n"}, {"image": lab.engine_image.reference})
    role(shell, "two", *shared, {"file": "/etc/both/two", "content": "2\n"})
    declare(shell, node, "one")
    declare(shell, node, "two", cluster="cellar", file="other.yml")
    shell.run("apply", "inventory.yml")
    shell.run("apply", "other.yml")
    node.exec("docker", "create", "--name", "somebodys", lab.engine_image.reference, "serve", "x")
    other = claims(node, "/var/lib/sparkops/claims/cellar.json")

    report = shell.json("remove", node.name, "--images", "--yes")
    left = {notice["args"]["resource"]: notice["args"]["reason"]["id"] for notice in leaving(report)}
    assert left.pop(f"image {lab.engine_image.reference} @{node.name}") == "gc-used-by-container"
    assert staying(report)["file /etc/both/tool"] == "the cluster cellar uses it too"
    assert not node.exists("/etc/both/one")

    node.exec("docker", "rm", "somebodys")
    report = shell.json("remove", node.name, "--images", "--yes")
    (state,) = [notice["args"]["reason"] for notice in leaving(report)]
    assert state == {"id": "own-state-of-cluster", "args": {"clusters": ["cellar"]}}
    assert node.text("docker", "images", "-q") == ""
    assert claims(node, "/var/lib/sparkops/claims/cellar.json") == other
    shell.run("drift", "other.yml")
    shell.run("remove", node.name, "-i", "other.yml", "--yes")
    assert not node.exists("/etc/both")
    assert not node.exists("/var/lib/sparkops")


def test_a_removal_that_was_killed_is_resumed(shell: Shell, node: Node) -> None:
    before = snapshot(node)
    slow = "[Service]\nExecStart=/usr/bin/sleep infinity\nExecStop=/usr/bin/sleep 8\n"
    slow += "[Install]\nWantedBy=multi-user.target\n"
    files = [{"file": f"/etc/f{number}", "content": f"{number}\n"} for number in range(20)]
    role(shell, "things", *files, {"unit": "slow.service", "content": slow, "enabled": True, "running": True})
    declare(shell, node, "things")
    shell.run("apply", "inventory.yml")
    process = shell.start("remove", node.name, "--yes")
    until(lambda: node.exec("systemctl", "is-active", "slow.service", check=False).stdout == b"deactivating\n", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: node.exec("systemctl", "is-active", "slow.service", check=False).stdout == b"inactive\n")
    shell.run("remove", node.name, "--yes")
    assert differing(before, node) == set()
