"""What is no longer declared: seen, told, and removed only when asked for; and two clusters on one node."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import Shell
from tests.e2e.test_service import Service
from tests.lab.lab import Lab
from tests.lab.node import Node

RECORD = "/var/lib/sparkops/claims/attic.json"


def role(shell: Shell, name: str, *resources: dict[str, Any], scope: str = "node") -> None:
    """A role of the user's own with these resources."""
    content = {"summary": f"The role {name}", "scope": scope, "resources": list(resources)}
    shell.write(f"roles/{name}/role.yml", json.dumps(content, indent=1))


def unit(name: str, **more: Any) -> dict[str, Any]:
    text = "[Service]\nEnvironment=SPARKOPS_INPUTS=1\nExecStart=/usr/bin/sleep infinity\n"
    text += "[Install]\nWantedBy=multi-user.target\n"
    return {"unit": f"{name}.service", "content": text, "inputs": "1", "enabled": True, "running": True, **more}


def declare(
    shell: Shell, node: Node, *roles: str, cluster: str = "attic", file: str = "inventory.yml", **more: Any
) -> None:
    """An inventory whose node has these roles and no other: those built in for nodes are shadowed by empty ones."""
    for name in ("host", "driver", "fabric"):
        role(shell, name)
    inventory = {
        "version": 1,
        "cluster": cluster,
        "connection": {"user": "root"},
        "nodes": {node.name: {"roles": list(roles), **more}},
    }
    shell.write(file, json.dumps(inventory, indent=1))


def orphans(report: dict[str, Any]) -> dict[str, str]:
    """What is no longer declared, and why it would be left."""
    return {f"{each['kind']} {each['name']}": each["kept"] for each in report["orphans"]}


def claims(node: Node, record: str = RECORD) -> dict[str, Any]:
    found = json.loads(node.read(record))
    assert isinstance(found, dict)
    return found


def test_a_removed_role_is_seen_and_taken_away_only_when_asked(shell: Shell, node: Node) -> None:
    role(shell, "kept", {"file": "/etc/kept", "content": "kept\n"})
    role(
        shell,
        "gone",
        {"directory": "/etc/gone"},
        {"file": "/etc/gone/settings", "content": "one\n"},
        {"link": "/etc/gone/link", "target": "settings"},
        unit("gone"),
    )
    declare(shell, node, "kept", "gone")
    shell.run("apply", "inventory.yml")
    shell.run("drift", "inventory.yml")

    declare(shell, node, "kept")
    assert orphans(shell.json("drift", "inventory.yml", status=2)) == {
        "unit gone.service": "",
        "file /etc/gone/settings": "",
        "link /etc/gone/link": "",
        "directory /etc/gone": "",
    }
    assert shell.json("drift", "inventory.yml", "--role", "kept")["orphans"] == [], "a part of it makes no orphans"
    told = shell.run("apply", "inventory.yml")
    assert "no longer declared" in told.stdout
    assert node.exists("/etc/gone/settings")
    assert node.text("systemctl", "is-active", "gone.service") == "active"

    refused = shell.run("apply", "inventory.yml", "--prune", "--role", "kept", status=1)
    assert "--prune needs the whole inventory" in refused.stderr
    report = shell.json("apply", "inventory.yml", "--prune", "--yes")
    assert {step["action"] for step in report["steps"]} == {"delete"}
    assert not node.exists("/etc/gone")
    assert node.text("systemctl", "show", "-P", "LoadState", "gone.service") == "not-found"
    assert node.exists("/etc/kept")
    assert set(claims(node)) == {"file /etc/kept"}
    shell.run("drift", "inventory.yml")


def test_the_last_role_of_a_node_leaves_orphans_too(shell: Shell, node: Node) -> None:
    role(shell, "gone", {"file": "/etc/gone", "content": "one\n"})
    declare(shell, node, "gone")
    shell.run("apply", "inventory.yml")
    declare(shell, node)
    assert orphans(shell.json("plan", "inventory.yml", status=2)) == {"file /etc/gone": ""}
    shell.run("apply", "inventory.yml", "--prune")
    assert not node.exists("/etc/gone")


def test_what_was_right_before_is_claimed_and_a_second_apply_writes_nothing(shell: Shell, node: Node) -> None:
    node.write("/etc/motto", b"as it should be\n")
    role(shell, "motto", {"file": "/etc/motto", "content": "as it should be\n"})
    declare(shell, node, "motto")
    shell.run("drift", "inventory.yml")
    assert not node.exists(RECORD), "a look writes nothing"
    assert shell.json("apply", "inventory.yml")["steps"] == []
    (claim,) = claims(node).values()
    assert claim["phase"] == "ours"
    written = node.text("stat", "-c", "%i %Y", RECORD)
    shell.run("apply", "inventory.yml")
    assert node.text("stat", "-c", "%i %Y", RECORD) == written


def test_a_file_edited_by_hand_is_not_pruned(shell: Shell, node: Node) -> None:
    role(shell, "keep", {"file": "/etc/keep", "content": "x\n"})
    secret = {"file": "/etc/gone-secret", "content": "{{ gone.key }}"}
    role(shell, "gone", {"file": "/etc/gone-a", "content": "a\n"}, {"file": "/etc/gone-b", "content": "b\n"}, secret)
    content = json.loads((shell.folder / "roles/gone/role.yml").read_text())
    content["variables"] = {"type": "object", "properties": {"key": {"type": "string", "secret": True}}}
    shell.write("roles/gone/role.yml", json.dumps(content))
    shell.write("key", "planted-secret")
    declare(shell, node, "keep", "gone")
    text = (shell.folder / "inventory.yml").read_text()
    shell.write("inventory.yml", text[:-1].rstrip() + ',\n "vars": {"gone": {"key": !file key}}}\n')
    shell.run("apply", "inventory.yml")
    assert node.read("/etc/gone-secret") == b"planted-secret"
    assert claims(node)["file /etc/gone-secret"]["content"][0].startswith("hmac:")

    node.write("/etc/gone-b", b"b, and what a person added\n")
    declare(shell, node, "keep")
    found = orphans(shell.json("drift", "inventory.yml", status=2))
    assert found == {
        "file /etc/gone-a": "",
        "file /etc/gone-secret": "",
        "file /etc/gone-b": "it was edited since sparkops wrote it",
    }
    report = shell.json("apply", "inventory.yml", "--prune")
    assert "edited" in json.dumps(report["orphans"])
    assert node.read("/etc/gone-b") == b"b, and what a person added\n"
    assert not node.exists("/etc/gone-a")
    assert not node.exists("/etc/gone-secret")
    assert shell.json("drift", "inventory.yml")["orphans"] == [], "told once, then let go"


def test_a_renamed_service_gives_its_port_up_before_the_new_one_starts(shell: Shell, node: Node) -> None:
    role(shell, "web", unit("old", port=8000), {"file": "/etc/web", "content": "old\n"})
    declare(shell, node, "web")
    shell.run("apply", "inventory.yml")

    role(shell, "web", unit("new", port=8000), {"file": "/etc/web", "content": "new\n"})
    report = shell.json("apply", "inventory.yml", status=4)
    (violation,) = report["violations"]
    assert violation["reason"]["id"] == "orphan-on-port"
    assert violation["reason"]["args"] == {"kind": "unit", "name": "old.service", "port": 8000}
    assert node.text("systemctl", "is-active", "old.service") == "active"
    assert not node.exists("/etc/systemd/system/new.service")

    report = shell.json("apply", "inventory.yml", "--prune", "--yes")
    (new,) = [step for step in report["steps"] if step["id"].startswith("unit new")]
    assert f"unit old.service @{node.name}" in new["needs"]
    assert node.text("systemctl", "is-active", "new.service") == "active"
    assert not node.exists("/etc/systemd/system/old.service")
    shell.run("drift", "inventory.yml")


def test_two_clusters_live_side_by_side_until_they_claim_one_thing(shell: Shell, node: Node) -> None:
    shared = {"directory": "/etc/both"}, {"file": "/etc/both/tool", "content": "tool\n", "shared": True}
    role(shell, "one", *shared, {"file": "/etc/both/one", "content": "1\n"})
    role(shell, "two", *shared, {"file": "/etc/both/two", "content": "2\n"})
    declare(shell, node, "one")
    declare(shell, node, "two", cluster="cellar", file="other.yml")
    shell.run("apply", "inventory.yml")
    shell.run("apply", "other.yml")
    shell.run("drift", "inventory.yml")

    declare(shell, node, "one", "two", cluster="cellar", file="other.yml")
    report = shell.json("apply", "other.yml", status=4)
    assert [each["resource"] for each in report["violations"]] == [f"file /etc/both/one @{node.name}"]
    assert report["violations"][0]["reason"]["args"]["cluster"] == "attic"

    declare(shell, node, cluster="cellar", file="other.yml")
    shell.run("apply", "other.yml", "--prune")
    assert not node.exists("/etc/both/two")
    assert node.exists("/etc/both/tool"), "the other cluster uses it"
    shell.run("drift", "inventory.yml")
    shell.run("drift", "other.yml")


def test_a_cluster_gets_another_name_and_nothing_is_restarted(shell: Shell, node: Node) -> None:
    """Its things stay its own, also what is no longer declared; the former name may go from the inventory then."""
    role(shell, "kept", {"file": "/etc/kept", "content": "one\n"}, unit("kept"))
    role(shell, "gone", {"file": "/etc/gone", "content": "one\n"})
    declare(shell, node, "kept", "gone")
    shell.run("apply", "inventory.yml")
    pid = node.text("systemctl", "show", "-P", "MainPID", "kept.service")

    declare(shell, node, "kept", cluster="rack")
    refused = shell.json("plan", "inventory.yml", status=2)
    assert {each["id"] for each in refused["violations"]} == {"claim-of-other-cluster"}

    text = json.dumps({**json.loads((shell.folder / "inventory.yml").read_text()), "renamed_from": "attic"})
    shell.write("inventory.yml", text)
    plan = shell.json("plan", "inventory.yml", status=2)
    assert plan["steps"] == [] and plan["violations"] == []
    assert "cluster-renamed" in {each["id"] for each in plan["notices"]}
    assert orphans(plan) == {"file /etc/gone": ""}
    assert node.exists("/var/lib/sparkops/claims/attic.json"), "a look moves nothing"
    report = shell.json("apply", "inventory.yml", "--prune")
    assert [step["id"] for step in report["steps"]] == [f"file /etc/gone @{node.name}"]
    assert not node.exists("/var/lib/sparkops/claims/attic.json")
    assert node.text("systemctl", "show", "-P", "MainPID", "kept.service") == pid
    assert "cluster-rename-done" in {each["id"] for each in shell.json("drift", "inventory.yml")["notices"]}

    declare(shell, node, "kept", cluster="rack")
    assert "cluster-rename-done" not in {each["id"] for each in shell.json("drift", "inventory.yml")["notices"]}


def test_a_retired_node_is_left_as_it_was_but_for_what_protects_or_holds_data(shell: Shell, node: Node) -> None:
    role(
        shell,
        "web",
        {"directory": "/etc/web"},
        {"file": "/etc/web/page", "content": "hello\n"},
        {"directory": "/srv/data"},
        unit("web"),
    )
    declare(shell, node, "web")
    shell.run("apply", "inventory.yml")
    node.write("/srv/data/precious", b"data")

    declare(shell, node, "web", state="retired")
    shell.run("apply", "inventory.yml", "--yes")
    assert node.text("systemctl", "show", "-P", "LoadState", "web.service") == "not-found"
    assert not node.exists("/etc/web")
    assert node.exists("/srv/data/precious")
    assert orphans(shell.json("drift", "inventory.yml")) == {"directory /srv/data": "it is not empty"}


@pytest.mark.parametrize("broken", ["no json", "[]"])
def test_a_record_that_cannot_be_read_is_told_and_nothing_is_pruned(shell: Shell, node: Node, broken: str) -> None:
    role(shell, "gone", {"file": "/etc/gone", "content": "one\n"})
    declare(shell, node, "gone")
    shell.run("apply", "inventory.yml")
    node.write(RECORD, broken.encode(), mode=0o600)
    declare(shell, node)
    report = shell.json("apply", "inventory.yml", "--prune", status=3)
    assert report["unknown"][f"claims @{node.name}"]["id"] == "claims-unreadable"
    assert node.exists("/etc/gone")


class Renaming(Service):
    """The service of `test_service`, as the whole of its inventory and under a name of choice."""

    def declare(self, mode: str = "", **more: Any) -> None:
        name = more.pop("name", "qwen")
        super().declare(mode, **more)
        for each in ("host", "driver", "fabric"):
            role(self.shell, each)
        role(self.shell, "uniform", scope="service")
        inventory = json.loads((self.shell.folder / "inventory.yml").read_text())
        inventory["services"] = {name: inventory["services"]["qwen"]}
        self.shell.write("inventory.yml", json.dumps(inventory, indent=1))

    def run(self, command: str, *words: str, status: int | None = 0) -> dict[str, Any]:
        return self.shell.json(command, "inventory.yml", *words, status=status)


def test_a_service_is_renamed_then_removed_and_its_image_and_model_stay(lab: Lab, shell: Shell, node: Node) -> None:
    service = Renaming(lab, shell, node)
    service.declare()
    service.apply()
    assert service.answers()

    service.declare(name="coder")
    report = service.apply(status=4)
    (violation,) = report["violations"]
    assert violation["id"] == "orphan-on-port"
    service.run("apply", "--prune", "--yes")
    assert service.answers()
    assert node.text("docker", "ps", "-a", "--format", "{{.Names}}") == "sparkops-coder"
    assert not node.exists("/etc/sparkops/services/qwen.json")
    assert service.show("LoadState") == "not-found"
    service.run("drift")

    service.declare(name="coder", state="retired")
    service.apply()
    assert node.text("docker", "ps", "-aq") == ""
    assert not node.exists("/etc/sparkops")
    assert not node.exists("/usr/local/lib/sparkops")
    assert node.exists("/srv/tiny/config.json")
    assert node.text("docker", "images", "-q") != ""
    left = orphans(service.run("drift"))
    assert [key.partition(" ")[0] for key in left] == ["image"]


@pytest.mark.slow
def test_a_node_and_its_service_are_renamed_at_once(lab: Lab, shell: Shell, node: Node) -> None:
    """P20: the old service holds the port under the node's old name; the one command that helps is named."""
    service = Renaming(lab, shell, node)
    service.declare()
    service.apply()
    service.declare(name="coder")
    inventory = json.loads((shell.folder / "inventory.yml").read_text())
    inventory["nodes"] = {"alpha": {"host": node.name}}
    inventory["services"]["coder"]["nodes"] = ["alpha"]
    shell.write("inventory.yml", json.dumps(inventory, indent=1))
    (violation,) = service.apply(status=4)["violations"]
    assert violation["id"] == "orphan-on-port"
    assert "`sparkops apply --prune`" in violation["reason"]["fix"]
    service.run("apply", "--prune", "--yes")
    assert service.answers()
    assert node.text("docker", "ps", "-a", "--format", "{{.Names}}") == "sparkops-coder"
    service.run("drift")


def test_a_removed_service_goes_with_a_prune(lab: Lab, shell: Shell, node: Node) -> None:
    service = Renaming(lab, shell, node)
    service.declare()
    service.apply()
    inventory = json.loads((shell.folder / "inventory.yml").read_text())
    shell.write("inventory.yml", json.dumps({**inventory, "services": {}}))
    found = orphans(service.run("drift", status=2))
    assert found["unit qwen.service"] == ""
    service.run("apply", "--prune", "--yes")
    assert service.show("LoadState") == "not-found"
    assert not node.exists("/etc/sparkops")
    assert node.text("docker", "images", "-q") != ""
