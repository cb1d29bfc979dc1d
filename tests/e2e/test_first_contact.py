"""From an address to a plan: a machine that SSH has never met, bare or with an engine of somebody's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import Shell, until
from tests.lab.lab import Lab
from tests.lab.node import Node

SERVED = "/srv/Qwen3.6-35B-A3B-FP8"
"""A folder with the name of a recipe's model; the lab's engine reads the headers of what is in it."""


@pytest.fixture
def stranger(lab: Lab, shell: Shell, tmp_path: Path) -> Shell:
    """A person with the lab's key and an empty known_hosts."""
    config = lab.ssh_config.read_text().replace(str(lab.known_hosts), str(tmp_path / "user_known_hosts"))
    (tmp_path / "ssh_config").write_text(config)
    shell.environment["SPARKOPS_SSH_CONFIG"] = str(tmp_path / "ssh_config")
    return shell


def introduced(shell: Shell, node: Node) -> str:
    """What `init` says, once the fingerprint that it shows was compared with the node's own."""
    address = f"spark@{node.address}"
    refused = shell.run("init", "--from-host", address, status=1).stderr
    (fingerprint,) = set(re.findall(r"--accept-key (SHA256:\S{43})", refused))
    own = node.text("ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub")
    assert fingerprint in own
    return shell.run("init", "--from-host", address, "--accept-key", fingerprint).stdout


def test_init_names_the_node_after_itself_pins_its_key_and_plan_goes_on(stranger: Shell, node: Node) -> None:
    said = introduced(stranger, node)
    text = (stranger.folder / "inventory.yml").read_text()
    inventory = yaml.safe_load(text)
    assert list(inventory["nodes"]) == [node.text("hostname")]
    assert "attic" not in text and "next: look through it, then `sparkops plan`" in said
    assert "`sparkops recipe new ORG/NAME` makes one" in text, "the lab has no memory for one"
    report = stranger.json("plan", status=None)
    assert report["unreachable"] == {}


def test_what_serves_already_is_seen_and_leads_to_adopt(lab: Lab, stranger: Shell, node: Node) -> None:
    image = lab.engine_image.reference
    node.exec("docker", "pull", image)
    header = json.dumps({"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    node.exec("mkdir", "-p", SERVED)
    node.write(f"{SERVED}/config.json", b"{}")
    node.write(f"{SERVED}/model.safetensors", len(header).to_bytes(8, "little") + header + b"\0")
    given = ["-p", "8123:8000", "-v", f"{SERVED}:{SERVED}", image, "serve", SERVED, "--port", "8000"]
    node.exec("docker", "run", "-d", "--name", "mine", *given)
    until(lambda: node.exec("curl", "-sS", "http://127.0.0.1:8123/health", check=False).returncode == 0)
    said = introduced(stranger, node)
    name = node.text("hostname")
    assert f"`sparkops adopt {name} qwen`: mine serves there already" in said
    service = yaml.safe_load((stranger.folder / "inventory.yml").read_text())["services"]["qwen"]
    assert (service["recipe"], service["port"]) == ("qwen3.6-35b-a3b", 8123)
