"""Taking over a Spark that already serves: a foreign container, its model's folder, a unit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Shell, until
from tests.e2e.test_moved_checkpoint import INVENTORY, ROLES
from tests.lab import model
from tests.lab.hub import Hub
from tests.lab.lab import Lab
from tests.lab.node import Node

OLD = "/srv/models/tiny"
DAMAGED = "model-00002-of-00004.safetensors"


class Grown:
    """A node as a person has set it up: a model folder, an engine in a container of its own."""

    def __init__(self, lab: Lab, shell: Shell, node: Node, hub: Hub, made: Path) -> None:
        self.image, self.shell, self.node, self.hub = lab.engine_image.reference, shell, node, hub
        hub.add_repo("org/tiny", model.write(made))
        self.files = {path.name: path.read_bytes() for path in made.iterdir()}
        node.exec("mkdir", "-p", OLD)
        for name, data in self.files.items():
            node.write(f"{OLD}/{name}", data)
        text = INVENTORY.format(node=node.name, image=self.image, hub=hub.endpoint)
        shell.write("inventory.yml", text.replace("user: spark, become: true", "user: root"))
        node.exec("docker", "pull", self.image)

    def damage(self) -> None:
        """One bit of a weight: the size stays, and the engine loads it."""
        good = self.files[DAMAGED]
        self.node.write(f"{OLD}/{DAMAGED}", good[:-1] + bytes([good[-1] ^ 1]))

    def run(self, *more: str) -> None:
        words = ["--max-model-len=4096", "--port", "8000", "--api-key", "planted-key"]
        given = ["-p", "8000:8000", "-v", f"{OLD}:/models/tiny", "-e", "HF_TOKEN=planted-token", *more]
        self.node.exec("docker", "run", "-d", "--name", "vllm", *given, self.image, "serve", "/models/tiny", *words)

    def ports(self) -> str:
        return self.node.text("docker", "ps", "-a", "--format", "{{.Names}} {{.State}}")


@pytest.fixture
def grown(lab: Lab, shell: Shell, node: Node, hub: Hub, tmp_path: Path) -> Grown:
    return Grown(lab, shell, node, hub, tmp_path / "tiny")


def test_a_container_and_its_model_are_taken_over_and_right_files_are_not_fetched_again(grown: Grown) -> None:
    node, shell = grown.node, grown.shell
    grown.damage()
    grown.run("--restart", "unless-stopped")
    shown = shell.run("adopt", status=2)
    assert "planted" not in shown.stdout + shown.stderr
    assert "pass --yes to take it over" in shown.stderr
    found = shell.json("adopt", status=2)
    differences = {each["what"]: (each["found"], each["declared"]) for each in found["container"]["differences"]}
    assert differences["service.serve.max-model-len"] == ("4096", "(none)")
    assert differences["service.serve.api-key"] == ("***", "(none)")
    assert differences["service.environment.HF_TOKEN"] == ("***", "(none)")
    assert differences["restart policy"] == ("unless-stopped", "no")
    assert differences["service.container.network"] == ("bridge", "host")
    assert differences["service.container.mounts /models/tiny"] == (OLD, "(none)")
    assert "image" not in differences
    assert found["checkpoint"]["path"] == OLD
    assert found["checkpoint"]["wrong"] == [DAMAGED]
    assert found["checkpoint"]["missing"] == []
    assert grown.ports() == "vllm running", "a look touches nothing"
    assert not node.exists("/var/lib/sparkops/models")

    grown.hub.forget()
    taken = shell.json("adopt", node.name, "tiny", "--yes")
    assert grown.ports() == "vllm-before-sparkops exited"
    shell.run("apply", "inventory.yml", *ROLES, "--yes")
    fetched = {name for name in grown.files if grown.hub.bytes_sent(f"*{name}")}
    assert fetched == {DAMAGED}
    assert '"choices"' in node.text(
        "curl", "-sS", "-d", '{"model":"/model","prompt":"x","max_tokens":1}', "http://127.0.0.1:8000/v1/completions"
    )
    assert shell.json("drift", "inventory.yml", *ROLES)["steps"] == []
    assert node.exists(f"{OLD}/{DAMAGED}"), "the old folder stays"
    assert "adopt" in shell.run("history").stdout

    for line in taken["back"]:
        node.exec("sh", "-ec", line)
    assert grown.ports() == "vllm running"
    assert node.text("docker", "inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", "vllm") == "unless-stopped"


@pytest.mark.slow
def test_a_unit_that_runs_the_container_is_disabled_and_one_of_the_declared_name_is_kept_aside(grown: Grown) -> None:
    node, shell = grown.node, grown.shell
    text = f"""[Service]
ExecStart=/usr/bin/docker run --rm --name vllm -v {OLD}:/models/tiny -p 8000:8000 {grown.image} serve /models/tiny
ExecStop=/usr/bin/docker stop vllm
[Install]
WantedBy=multi-user.target
"""
    node.write("/etc/systemd/system/tiny.service", text.encode())
    node.exec("systemctl", "enable", "--now", "tiny.service")
    until(lambda: grown.ports() == "vllm running")

    found = shell.json("adopt", "--yes")
    (unit,) = found["units"]
    assert unit["name"] == "tiny.service"
    assert "-ExecStart=/usr/bin/docker run" in unit["diff"]
    assert found["checkpoint"]["wrong"] == []
    assert grown.ports() == ""
    assert node.read("/var/lib/sparkops/adopted/tiny.service") == text.encode()
    shell.run("apply", "inventory.yml", *ROLES, "--yes")
    assert grown.ports() == "sparkops-tiny running"

    for line in found["back"]:
        node.exec("sh", "-ec", line)
    until(lambda: grown.ports() == "vllm running")


def test_what_cannot_be_undone_or_is_not_clear_is_refused(grown: Grown) -> None:
    assert "no container or unit of others" in grown.shell.run("adopt").stdout
    grown.run("--rm")
    refused = grown.shell.run("adopt", "--yes", status=4)
    assert "stopping it would delete it" in refused.stderr
    assert grown.ports() == "vllm running"
    grown.node.exec("docker", "run", "-d", "--name", "second", "-v", f"{OLD}:{OLD}", grown.image, "serve", OLD)
    assert "choose by --container" in grown.shell.run("adopt", "--yes", status=1).stderr
    second = grown.shell.json("adopt", "--container", "second", "--yes")
    assert json.dumps(second["back"]).count("second-before-sparkops") == 1
    assert grown.shell.run("adopt", "--container", "third", status=1).stderr
    assert "name the node and the service" in grown.shell.run("adopt", grown.node.name, "other", status=1).stderr
