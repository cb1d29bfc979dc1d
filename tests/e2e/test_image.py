"""Images on a real engine and a real registry: pulled, built, loaded, relayed; and what is said when it can't be."""

from __future__ import annotations

import gzip
import io
import secrets
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sparkops.core.report import Result
from sparkops.core.secrets import Secret
from sparkops.core.states import Unknown
from sparkops.reconcile.observe import observe
from sparkops.resources.image import Image
from tests.docker_config import DockerConfig, entry
from tests.e2e.applying import Applying, applying
from tests.e2e.conftest import until
from tests.lab.fixtures import NodeFactory
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.registry import Layer, Pushed

PYTHON = ["/usr/bin/python3", "-c", "import json"]


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Node]:
    """One node for all tests that don't mind each other's images."""
    node = lab.add_node()
    node.exec("sh", "-c", f"echo {lab.address} plain.test >> /etc/hosts")
    yield node
    lab.remove_node(node)


@pytest.fixture(scope="module")
def on(lab: Lab, machine: Node) -> Iterator[Applying]:
    with applying(lab, [machine.name], "image") as here:
        yield here


@pytest.fixture
def pushed(lab: Lab, tmp_path: Path) -> Push:
    return Push(lab, tmp_path)


class Push:
    """Small images of one file, in a repository of their own."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.name = f"tests/{secrets.token_hex(4)}"

    def __call__(self, tag: str, content: str = "", size: int = 0, **more: Any) -> Pushed:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            entry = tarfile.TarInfo("content")
            data = content.encode() + secrets.token_bytes(size)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        path = self.folder / f"{secrets.token_hex(4)}.tar.gz"
        path.write_bytes(gzip.compress(out.getvalue(), mtime=0))
        return self.lab.registry.push(self.name, tag, [Layer.of(path)], command=["/content"], **more)

    def at(self, tag: str) -> str:
        return self.lab.registry.reference(self.name, tag)


def image(node: Node, name: str, **more: Any) -> Image:
    return Image(node=node.name, name=name, **more)


def state(on: Applying, wanted: Image) -> Mapping[str, Any]:
    """What the node answers for an image that is there."""
    found = observe(on.fleet, [wanted]).found[wanted.id]
    assert isinstance(found, Mapping), found
    return found


def failure(results: tuple[Result, ...]) -> Result:
    (result,) = results
    assert result.outcome == "failed"
    return result


def native(node: Node) -> str:
    return node.text("docker", "version", "-f", "{{.Server.Arch}}")


def test_a_tag_is_pulled_and_the_second_apply_has_nothing_to_do(on: Applying, machine: Node, pushed: Push) -> None:
    made = pushed("1", "one", size=200_000)
    wanted = image(machine, pushed.at("1"))
    on.settle(wanted)
    found = state(on, wanted)
    assert found["digest"] == made.digest
    assert found["platform"] == f"linux/{native(machine)}"
    assert found["manifest"] is None, "this engine does not tell it"


def test_a_digest_is_pulled_and_proven(on: Applying, machine: Node, pushed: Push) -> None:
    made = pushed("1", "one")
    wanted = image(machine, f"{pushed.at('1').rpartition(':')[0]}@{made.digest}")
    on.settle(wanted)
    assert state(on, wanted)["digest"] == made.digest


def test_a_pinned_tag_names_the_pinned_image_and_moves_when_the_pin_does(
    on: Applying, machine: Node, pushed: Push
) -> None:
    old = pushed("1", "old")
    new = pushed("1", "new")
    on.settle(image(machine, pushed.at("1"), digest=old.digest))
    moved = image(machine, pushed.at("1"), digest=new.digest)
    assert [(each.action, each.changes) for each in on.plan(moved).steps] == [("update", ("digest",))]
    on.settle(moved)
    assert machine.text("docker", "image", "inspect", "-f", "{{json .RepoDigests}}", pushed.at("1")).count(new.digest)


def test_a_tag_that_moves_in_the_registry_is_not_followed_unasked(on: Applying, machine: Node, pushed: Push) -> None:
    old = pushed("1", "old")
    wanted = image(machine, pushed.at("1"))
    on.settle(wanted)
    pushed("1", "new")
    assert on.plan(wanted).steps == ()
    assert state(on, wanted)["digest"] == old.digest


def test_another_image_under_the_pinned_tag_is_replaced(on: Applying, machine: Node, pushed: Push) -> None:
    right, other = pushed("1", "right"), pushed("2", "other")
    wanted = image(machine, pushed.at("1"), digest=right.digest)
    on.settle(wanted, image(machine, pushed.at("2"), digest=other.digest))
    machine.exec("docker", "tag", pushed.at("2"), pushed.at("1"))
    on.settle(wanted)


def test_an_image_that_is_not_in_the_registry_names_the_nearest_tags(on: Applying, machine: Node, pushed: Push) -> None:
    pushed("v0.26.0")
    result = failure(on.apply(image(machine, pushed.at("v0.62.0"))))
    assert result.reason.id == "image-tag-missing"
    assert "v0.26.0" in result.reason.args["tags"]


def test_a_repository_that_does_not_exist_is_said_so(on: Applying, machine: Node, lab: Lab) -> None:
    result = failure(on.apply(image(machine, lab.registry.reference("tests/nowhere", "1"))))
    assert result.reason.id == "image-repository-missing"


def test_an_image_of_another_platform_is_refused(on: Applying, machine: Node, pushed: Push) -> None:
    foreign = "arm64" if native(machine) == "amd64" else "amd64"
    pushed("1", architectures=[foreign])
    result = failure(on.apply(image(machine, pushed.at("1"))))
    assert result.reason.id == "image-platform-missing"
    assert result.reason.args["platform"] == f"linux/{native(machine)}"


def test_credentials_open_the_private_registry_and_stay_nowhere(
    on: Applying, machine: Node, lab: Lab, pushed: Push, docker_config: DockerConfig
) -> None:
    pushed("1", "secret image")
    private = lab.private_registry
    name = private.reference(pushed.name, "1")
    refused = failure(on.apply(image(machine, name)))
    assert refused.reason.id == "image-access-denied"
    wrong = failure(on.apply(image(machine, name, username=private.user, password=Secret("wrong"))))
    assert wrong.reason.id == "image-login-refused"
    on.settle(image(machine, name, username=private.user, password=Secret(private.password)))
    nothing_left(machine, private.password)


@pytest.mark.parametrize("helper", [False, True], ids=["config.json", "credential helper"])
def test_docker_login_on_the_controller_opens_the_private_registry_for_pulls_and_bases(
    on: Applying, machine: Node, lab: Lab, pushed: Push, docker_config: DockerConfig, helper: bool
) -> None:
    pushed("1", "secret image")
    private = lab.private_registry
    name = private.reference(pushed.name, "1")
    if helper:
        docker_config.write(
            {"credHelpers": {private.host: "lab"}}, lab={private.host: (private.user, private.password)}
        )
    else:
        docker_config.write({"auths": {private.host: entry(private.user, private.password)}})
    on.settle(image(machine, "local/on-private:1", content=f'FROM {name}\nCMD ["x"]\n'))
    machine.exec("docker", "rmi", "-f", name, "local/on-private:1")
    on.settle(image(machine, name))
    machine.exec("docker", "rmi", "-f", name)
    nothing_left(machine, private.password)


def nothing_left(machine: Node, password: str) -> None:
    """The node keeps no credentials."""
    assert not machine.exists("/root/.docker/config.json")
    left = machine.exec("grep", "-rlF", password, "/run/sparkops", "/var/lib/sparkops", check=False)
    assert left.stdout == b""


def test_a_registry_that_does_not_answer_is_explained(on: Applying, machine: Node, lab: Lab) -> None:
    closed = failure(on.apply(image(machine, f"{lab.address}:9/x/y:1")))
    assert closed.reason.id == "image-registry-unreachable"


def test_a_registry_without_tls_is_explained(on: Applying, machine: Node) -> None:
    one = image(machine, "plain.test:5000/x/y:1")
    until(lambda: "no such host" not in failure(on.apply(one)).reason.text)  # the engine remembers /etc/hosts for 5 s
    refused = failure(on.apply(one))
    assert refused.reason.id == "image-registry-plain-http"


def test_a_name_that_does_not_resolve_is_explained(on: Applying, machine: Node) -> None:
    refused = failure(on.apply(image(machine, "nowhere.invalid/x/y:1")))
    assert refused.reason.id == "image-registry-unreachable"


DOCKERFILE = "FROM {base}\nRUN {run}\nCOPY opt/a.txt /opt/a.txt\n"


def build(node: Node, lab: Lab, name: str, run: str = "echo built > /built", text: str = "a", **more: Any) -> Image:
    content = DOCKERFILE.format(base=lab.engine_image.pinned, run=run)
    return image(node, name, content=content, files={"/opt/a.txt": text}, **{"checks": [PYTHON], **more})


def test_a_build_happens_once_and_again_only_for_other_inputs(on: Applying, machine: Node, lab: Lab) -> None:
    first = build(machine, lab, "local/built:1")
    on.settle(first)
    label = '{{index .Config.Labels "sparkops.build"}}'
    assert machine.text("docker", "image", "inspect", "-f", label, "local/built:1") == first.origin.build
    assert on.plan(build(machine, lab, "local/built:1")).steps == ()
    other = build(machine, lab, "local/built:1", text="b")
    assert [(each.action, each.changes) for each in on.plan(other).steps] == [("update", ("build",))]
    on.settle(other)
    said = machine.text("docker", "run", "--rm", "--entrypoint", "cat", "local/built:1", "/opt/a.txt", "/built")
    assert said == "bbuilt"


def test_a_failing_step_is_reported_with_its_last_lines(on: Applying, machine: Node, lab: Lab) -> None:
    result = failure(on.apply(build(machine, lab, "local/failing:1", run="echo the reason; exit 3")))
    assert "at step 2 of 4 (RUN echo the reason; exit 3)" in result.reason.text
    assert "the reason" in result.detail


def test_an_image_that_fails_its_check_leaves_the_old_one_its_name(on: Applying, machine: Node, lab: Lab) -> None:
    good = build(machine, lab, "local/checked:1")
    on.settle(good)
    bad = build(machine, lab, "local/checked:1", checks=[["/usr/bin/python3", "-c", "raise SystemExit('no CUDA')"]])
    result = failure(on.apply(bad))
    assert "fails its check" in result.reason.text and "no CUDA" in result.reason.text
    assert on.plan(good).steps == ()


def test_an_archive_is_sent_and_compared_by_content(
    lab: Lab, machine: Node, on: Applying, node: Node, pushed: Push, tmp_path: Path
) -> None:
    pushed("1", "for the air gap", size=600_000)
    pulled = image(machine, pushed.at("1"))
    on.settle(pulled)
    archive = tmp_path / "image.tar"
    archive.write_bytes(machine.exec("docker", "save", pushed.at("1")).stdout)
    loaded = image(node, "local/loaded:1", archive="image.tar", folder=str(tmp_path))
    with applying(lab, [node.name], "image") as there:
        there.settle(loaded)
        found = state(there, loaded)
        assert found["digest"] == "" and found["content"] == state(on, pulled)["content"]
        assert there.plan(image(node, "local/loaded:1", archive="image.tar", folder=str(tmp_path))).steps == ()


def test_a_removed_image_is_gone_and_one_in_use_is_not_touched(on: Applying, machine: Node, lab: Lab) -> None:
    on.settle(image(machine, lab.engine_image.reference))
    machine.exec("docker", "tag", lab.engine_image.reference, "local/unwanted:1")
    on.settle(image(machine, "local/unwanted:1", state="absent"))
    machine.exec("docker", "tag", lab.engine_image.reference, "local/used:1")
    machine.exec("docker", "create", "--name", "user", "local/used:1")
    machine.exec("docker", "rmi", lab.engine_image.reference, check=False)
    result = failure(on.apply(image(machine, "local/used:1", state="absent")))
    assert "is in use" in result.reason.text
    machine.exec("docker", "rm", "user")


def test_a_stopped_engine_is_unknown_and_nothing_is_done(lab: Lab, node_factory: NodeFactory) -> None:
    node = node_factory()
    node.exec("systemctl", "stop", "docker.service", "docker.socket")
    with applying(lab, [node.name], "image") as there:
        planned = there.plan(image(node, lab.engine_image.reference))
    assert planned.steps == () and planned.exit_status == 3
    (why,) = planned.unknown.values()
    assert isinstance(why, Unknown) and why.id == "docker-stopped"


def test_an_engine_that_hangs_is_unknown(lab: Lab, node_factory: NodeFactory) -> None:
    node = node_factory()
    node.exec("sh", "-c", "kill -STOP $(cat /var/run/docker.pid)")
    try:
        with applying(lab, [node.name], "image") as there:
            (why,) = there.plan(image(node, lab.engine_image.reference)).unknown.values()
    finally:
        node.exec("sh", "-c", "kill -CONT $(cat /var/run/docker.pid)")
    assert why.id == "docker-silent"
