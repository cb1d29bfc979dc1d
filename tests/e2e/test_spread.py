"""Content from node to node over a second network: each byte leaves the hub once, and what breaks is resumed."""

from __future__ import annotations

import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Shell, until
from tests.lab.hub import Fault, Hub
from tests.lab.lab import Lab
from tests.lab.node import FABRIC_SUBNET, Node
from tests.lab.registry import Layer
from tests.worker import checkpoints_made as made

REPO = "org/tiny"
FOLDER = "/var/lib/sparkops/models/org--tiny/main"
APPLY = ("apply", "inventory.yml", "--yes", "--role", "checkpoint")


@pytest.fixture
def model(tmp_path: Path, hub: Hub) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for number in range(4):
        (folder / f"model-{number}.safetensors").write_bytes(random.Random(number).randbytes(3 << 20))
    (folder / "config.json").write_text("{}")
    hub.add_repo(REPO, folder)
    return folder


class Cluster:
    """Some nodes with one service, and their addresses on the fabric."""

    def __init__(
        self, shell: Shell, nodes: list[Node], hub: Hub, lab: Lab, more: str = "", *, image: str = "pull: none"
    ) -> None:
        self.shell, self.nodes, self.hub, self.lab = shell, nodes, hub, lab
        for node in nodes:
            node.plug(lab.fabric())
        lines = [f"  {node.name}: {{fabric: {{address: {node.fabric_address}}}}}\n" for node in nodes]
        shell.write(
            "inventory.yml",
            f"version: 1\ncluster: test\nconnection: {{user: spark, become: true}}\nnodes:\n{''.join(lines)}"
            f"services:\n  tiny:\n    nodes: [{', '.join(node.name for node in nodes)}]\n    image: {{{image}}}\n"
            f'    checkpoint: {{repository: {REPO}, endpoint: "{hub.endpoint}"{more}}}\n',
        )

    def address(self, number: int) -> str:
        return self.nodes[number].fabric_address

    def sums(self, node: Node) -> str:
        return node.text("sh", "-c", f"cd {FOLDER} && sha256sum *.safetensors config.json")

    def jobs(self, node: Node) -> str:
        return node.text("sh", "-c", "cat /run/sparkops/jobs/*/job.json 2>/dev/null || true")

    def listening(self, node: Node) -> list[str]:
        """Addresses and ports that others could reach, but for sshd's."""
        found = [line.split()[3] for line in node.text("ss", "-Hltn").splitlines()]
        return [each for each in found if not each.startswith("127.") and not each.endswith(":22")]

    def quiet(self) -> None:
        """Wait until the relays have ended; no helper folder, and no key, is left."""
        until(lambda: all(FABRIC_SUBNET not in "".join(self.listening(node)) for node in self.nodes))
        for node in self.nodes:
            found = node.exec(
                "grep", "-rlE", "PRIVATE KEY|BEGIN CERT", "/run/sparkops", "/var/lib/sparkops", check=False
            )
            assert found.stdout == b""
            assert node.text("ls", "-A", "/var/lib/sparkops/models/org--tiny").split() == ["main"]


@pytest.fixture
def cluster(
    shell: Shell, nodes: Callable[[int], list[Node]], hub: Hub, model: Path, lab: Lab
) -> Callable[..., Cluster]:
    return lambda count, more="": Cluster(shell, nodes(count), hub, lab, more)


def test_each_byte_leaves_the_hub_once_and_the_others_form_a_chain_on_the_fabric(
    cluster: Callable[..., Cluster], model: Path
) -> None:
    here = cluster(3)
    planned = here.shell.run("plan", "inventory.yml", "--role", "checkpoint", status=2).stdout
    one, two, three = here.nodes
    assert f"@{two.name}: from {one.name} over {here.address(0)}" in planned
    assert f"@{three.name}: from {two.name} over {here.address(1)}" in planned
    here.hub.fail("model-*", Fault(rate=100_000))
    running = here.shell.start(*APPLY)
    until(lambda: bool(here.listening(one)) and bool(here.listening(two)), running)
    assert {address.rpartition(":")[0] for address in here.listening(one)} == {here.address(0)}
    processes = one.text("sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' '")
    assert "PRIVATE KEY" not in processes
    here.hub.heal()
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, out + err
    assert here.hub.bytes_sent("model-*") == 4 * (3 << 20)
    assert here.sums(one) == here.sums(two) == here.sums(three)
    here.quiet()
    here.shell.run("drift", "inventory.yml", "--role", "checkpoint")


def test_a_killed_controller_is_not_missed_and_a_killed_source_is_named_and_resumed(
    cluster: Callable[..., Cluster],
) -> None:
    here = cluster(2)
    one, two = here.nodes
    here.hub.fail("model-*", Fault(rate=40_000))
    running = here.shell.start(*APPLY)
    until(lambda: "checkpoint /" in here.jobs(two) and bool(here.listening(one)))
    running.kill()
    running.communicate()
    script = (
        "import json,sys;[print(json.load(open(p))['pid']) for p in sys.argv[1:] if 'checkpoint /' in open(p).read()]"
    )
    pid = one.text("sh", "-c", f'python3 -c "{script}" $(ls /run/sparkops/jobs/*/job.json)').split()[0]
    one.exec("/bin/kill", "-s", "KILL", "--", f"-{pid}")
    here.hub.heal()
    done = here.shell.run(*APPLY)
    assert here.sums(one) == here.sums(two)
    assert here.hub.bytes_sent("model-*") < 2 * 4 * (3 << 20), done.stdout
    here.quiet()


def test_a_cut_link_is_told_and_the_management_address_used(cluster: Callable[..., Cluster]) -> None:
    here = cluster(2)
    one, two = here.nodes
    two.unplug(here.lab.fabric())
    done = here.shell.run(*APPLY)
    said = done.stdout + done.stderr
    assert f"{one.name} can't be reached at {here.address(0)}" in said
    assert "which may be slower" in said
    assert here.hub.bytes_sent("model-*") == 4 * (3 << 20)
    assert here.sums(one) == here.sums(two)
    one.unplug(here.lab.fabric())
    two.exec("rm", "-r", FOLDER)
    done = here.shell.run(*APPLY)
    assert f"can't listen on {here.address(0)}" in done.stdout + done.stderr
    assert here.hub.bytes_sent("model-*") == 4 * (3 << 20)


def test_a_full_disk_at_the_receiver_is_told_and_later_it_comes_from_the_node_that_has_it(
    cluster: Callable[..., Cluster],
) -> None:
    here = cluster(2, ", folder: /small/tiny")
    one, two = here.nodes
    two.tmpfs("/small", "8m")
    done = here.shell.run(*APPLY, status=4)
    assert f"checkpoint /small/tiny @{two.name}" in done.stdout
    assert "not enough space for /small/tiny" in done.stdout
    until(lambda: not here.listening(one))
    two.exec("mount", "-o", "remount,size=40m", "/small")
    here.hub.forget()
    here.shell.run(*APPLY)
    assert here.hub.bytes_sent("model-*") == 0
    assert two.text("ls", "/small/tiny") == one.text("ls", "/small/tiny")


def test_what_steps_build_is_built_by_one_node_and_received_by_the_other(
    shell: Shell, nodes: Callable[[int], list[Node]], hub: Hub, lab: Lab, tmp_path: Path
) -> None:
    hub.add_repo(REPO, made.save(tmp_path / "int4", made.autoround(made.SMALL), made.autoround_config(made.SMALL)))
    hub.add_repo("org/fp8", made.save(tmp_path / "fp8", made.fp8(made.SMALL), made.config(made.SMALL), shards=2))
    here = Cluster(shell, nodes(2), hub, lab, ", folder: /srv/built, steps: [hybrid: {donor: org/fp8}, lm_head: int8]")
    one, two = here.nodes
    done = shell.run(*APPLY)
    assert (
        f"built_checkpoint /srv/built @{two.name}: from {one.name} over {here.address(0)}" in done.stdout + done.stderr
    )
    asked = [
        (each.file, each.range) for each in hub.requests if each.file.endswith("-of-00002.safetensors") and each.sent
    ]
    assert asked and len(set(asked)) == len(asked), "the donor was read twice"
    sums = "cd /srv/built && sha256sum *.* .sparkops/manifest.json"
    assert one.text("sh", "-c", sums) == two.text("sh", "-c", sums)
    assert shell.json("drift", "inventory.yml", "--role", "checkpoint")["steps"] == []
    two.exec("rm", "-r", "/srv/built")
    hub.forget()
    shell.run(*APPLY)
    assert hub.bytes_sent() == 0
    assert one.text("sh", "-c", sums) == two.text("sh", "-c", sums)


def test_an_image_is_built_by_one_node_and_received_by_the_other(
    shell: Shell, nodes: Callable[[int], list[Node]], hub: Hub, lab: Lab
) -> None:
    shell.write("templates/Dockerfile.tiny.j2", 'FROM scratch\nCOPY content /content\nENV A=1\nCMD ["/content"]\n')
    (shell.folder / "content").write_bytes(random.Random(1).randbytes(5 << 20))
    build = "build: {tag: local/tiny:1, template: Dockerfile.tiny.j2, checks: [], files: {/content: {file: content}}}"
    here = Cluster(shell, nodes(2), hub, lab, image=build)
    one, two = here.nodes
    role = ("inventory.yml", "--role", "image")
    done = shell.run("apply", *role, "--yes")
    assert f"image local/tiny:1 @{two.name}: from {one.name} over {here.address(0)}" in done.stdout + done.stderr
    assert '"function": "receive"' in here.jobs(two)
    assert '"function": "build"' not in here.jobs(two)
    layers = ("docker", "image", "inspect", "-f", "{{json .RootFS.Layers}} {{json .Config.Labels}}", "local/tiny:1")
    assert one.text(*layers) == two.text(*layers)
    assert two.text("docker", "images", "-aq").split() == two.text("docker", "images", "-q", "local/tiny:1").split()
    assert "as declared" in shell.run("apply", *role).stdout
    until(lambda: not here.listening(one))


def test_a_tag_that_nothing_pins_is_pulled_by_one_node_and_the_same_image_loaded_by_the_other(
    shell: Shell, nodes: Callable[[int], list[Node]], hub: Hub, lab: Lab, tmp_path: Path
) -> None:
    (tmp_path / "content").write_bytes(random.Random(1).randbytes(1 << 20))
    with tarfile.open(tmp_path / "layer.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "content", "content")
    lab.registry.push("tests/spread", "1", [Layer.of(tmp_path / "layer.tar.gz")], command=["/content"])
    reference = lab.registry.reference("tests/spread", "1")
    here = Cluster(shell, nodes(2), hub, lab, image=f"pull: '{reference}'")
    one, two = here.nodes
    role = ("inventory.yml", "--role", "image")
    shell.run("apply", *role, "--yes")
    digests = ("docker", "image", "inspect", "-f", "{{len .RepoDigests}}", reference)
    assert (one.text(*digests).strip(), two.text(*digests).strip()) == ("1", "0")
    assert "as declared" in shell.run("apply", *role).stdout
