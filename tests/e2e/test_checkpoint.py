"""Checkpoints on real nodes: by SSH, as another user than root, from a hub that fails on demand."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sparkops.checkpoints.hub import HubUnreachable
from sparkops.core.plan import Step
from sparkops.core.report import Result
from sparkops.resources.checkpoint import Checkpoint
from tests.e2e.applying import Applying, applying
from tests.e2e.conftest import Shell, until
from tests.errors import fails
from tests.lab import model as tiny
from tests.lab.hub import Fault, Hub
from tests.lab.lab import Lab
from tests.lab.node import Node

REPO = "org/tiny"
FOLDER = "/var/lib/sparkops/models/org--tiny/main"
PARTIAL = "/var/lib/sparkops/models/org--tiny/.main.sparkops-partial"
Declare = Callable[..., Checkpoint]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def road(lab: Lab, node: Node) -> Iterator[Applying]:
    with applying(lab, [node.name], "checkpoint") as found:
        yield found


@pytest.fixture
def model(tmp_path: Path, hub: Hub) -> Path:
    folder = tmp_path / "model"
    tiny.write(folder)
    hub.add_repo(REPO, folder)
    return folder


@pytest.fixture
def declare(node: Node, hub: Hub, model: Path) -> Declare:
    def make(**more: object) -> Checkpoint:
        given = {"name": FOLDER, "repository": REPO, "endpoint": hub.endpoint, "owner": "spark", "stall": 20.0, **more}
        return Checkpoint(node=node.name, **given).prepare()  # type: ignore[arg-type]

    return make


def sums(node: Node, folder: str) -> dict[str, str]:
    """SHA-256 by path of what stands in a folder, without sparkops' own."""
    script = f"cd {folder} && find . -type f -not -path './.sparkops/*' -exec sha256sum {{}} +"
    lines = node.text("sh", "-c", script).splitlines()
    return {path[2:]: digest for digest, path in (line.split("  ") for line in lines)}


def local_sums(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def failed(results: tuple[Result, ...]) -> Result:
    (result,) = results
    assert result.outcome == "failed", result
    return result


def job(node: Node) -> dict[str, int]:
    """The description of the running job."""
    text = node.text("sh", "-c", "cat /run/sparkops/jobs/*/job.json 2>/dev/null || true")
    return json.loads(text) if text else {}


def arrived(node: Node) -> int:
    """Bytes that the journals in the staging folder tell."""
    script = f"cat {PARTIAL}/.sparkops/content/*.json 2>/dev/null || true"
    text = node.text("sh", "-c", script)
    decoder, total = json.JSONDecoder(), 0
    while text:
        note, end = decoder.raw_decode(text)
        total += sum(stop - start for start, stop in note.get("done", []))
        text = text[end:]
    return total


def slow_model(hub: Hub, model: Path, size: int, rate: float) -> None:
    """A large shard that comes slowly."""
    (model / "model-large.safetensors").write_bytes(random.Random(1).randbytes(size))
    hub.add_repo(REPO, model)
    hub.fail("model-large*", Fault(rate=rate))


def test_the_node_fetches_as_the_owner_and_a_second_apply_asks_nobody(
    node: Node, road: Applying, hub: Hub, model: Path, declare: Declare
) -> None:
    one = declare()
    road.settle(one)
    assert sums(node, FOLDER) == local_sums(model)
    assert set(node.text("sh", "-c", f"find {FOLDER} -printf '%u\n'").split()) == {"spark"}
    assert one.manifest is not None
    pinned = declare(revision=one.manifest.commit, name=FOLDER)
    hub.forget()
    hub.fail("*", Fault(stage="info", status=429))
    hub.fail("*", Fault(stage="tree", status=503))
    assert road.plan(declare(revision=one.manifest.commit)).steps == ()
    assert road.plan(pinned).exit_status == 0
    assert hub.requests == ()
    with pytest.raises(HubUnreachable):
        declare()


def test_a_moved_branch_is_seen_and_followed(
    node: Node, road: Applying, hub: Hub, model: Path, declare: Declare
) -> None:
    road.settle(declare())
    (model / "config.json").write_text('{"changed": true}')
    hub.add_repo(REPO, model)
    (step,) = road.plan(declare()).steps
    assert {"commit", "manifest"} <= set(step.changes)
    hub.forget()
    road.settle(declare())
    assert sums(node, FOLDER) == local_sums(model)
    assert hub.bytes_sent("*.safetensors") == 0


def test_a_rotten_shard_of_the_same_size_is_repaired_by_fetching_it_alone(
    node: Node, road: Applying, hub: Hub, model: Path, declare: Declare
) -> None:
    road.settle(declare())
    shard = sorted(path.name for path in model.glob("*.safetensors"))[0]
    node.exec("sh", "-c", f"printf rot | dd of={FOLDER}/{shard} bs=1 seek=5000 conv=notrunc")
    (step,) = road.plan(declare()).steps
    assert step.changes == ("unverified",)
    assert step.before is not None and step.before["unverified"] == [shard]
    hub.forget()
    road.settle(declare())
    assert sums(node, FOLDER) == local_sums(model)
    assert {request.file for request in hub.requests if request.file} == {shard}
    assert hub.bytes_sent(shard) == (model / shard).stat().st_size


def test_a_killed_job_goes_on_with_less_than_a_segment_fetched_twice(
    node: Node, road: Applying, hub: Hub, model: Path, declare: Declare
) -> None:
    size, segment = 12 << 20, 4 << 20
    slow_model(hub, model, size, 3e5)
    one = declare(segment=segment, connections=3, include=("model-large*",))
    results: list[tuple[Result, ...]] = []
    running = threading.Thread(target=lambda: results.append(road.apply(one)))
    running.start()
    until(lambda: arrived(node) > 3 << 20)
    node.exec("kill", "-9", str(job(node)["pid"]))
    running.join(120)
    assert failed(results[0]).reason.id in ("job-killed", "program-ended")
    assert not node.exists(FOLDER)
    until(lambda: node.exec("pgrep", "-u", "spark", "python3", check=False).returncode != 0)
    hub.heal()
    until(lambda: not hub.answering)
    first = hub.bytes_sent("model-large*")
    road.settle(one)
    assert sums(node, FOLDER) == {"model-large.safetensors": local_sums(model)["model-large.safetensors"]}
    again = hub.bytes_sent("model-large*") - first
    assert again <= size - (3 << 20)


def test_a_laptop_that_goes_away_leaves_the_job_running_and_the_next_run_attaches(
    lab: Lab, node: Node, hub: Hub, model: Path, declare: Declare
) -> None:
    slow_model(hub, model, 4 << 20, 9e4)
    one = declare(segment=1 << 20, connections=1)
    with applying(lab, [node.name], "checkpoint") as road:
        running = threading.Thread(target=lambda: road.apply(one), daemon=True)
        running.start()
        until(lambda: arrived(node) > 100_000)
        pid = job(node)["pid"]
    running.join(120)
    assert node.exec("test", "-d", f"/proc/{pid}", check=False).returncode == 0
    hub.heal()
    with applying(lab, [node.name], "checkpoint") as road:
        road.settle(one)
    assert job(node)["pid"] == pid
    assert sums(node, FOLDER) == local_sums(model)
    assert hub.bytes_sent("model-large*") == 4 << 20


def test_a_small_disk_is_told_first_and_a_filled_one_when_it_is_full(
    node: Node, road: Applying, hub: Hub, model: Path, declare: Declare
) -> None:
    node.tmpfs("/data", "8m")
    large = {"name": "/data/tiny", "segment": 1 << 20, "connections": 1}
    slow_model(hub, model, 7 << 20, 9e4)
    hub.forget()
    result = failed(road.apply(declare(**large)))
    assert result.reason.id == "disk-space-too-small"
    assert result.reason.args["folder"] == "/data/tiny"
    assert hub.bytes_sent() == 0

    node.exec("umount", "/data")
    node.tmpfs("/data", "20m")
    results: list[tuple[Result, ...]] = []
    running = threading.Thread(target=lambda: results.append(road.apply(declare(**large))))
    running.start()
    until(lambda: int(node.text("sh", "-c", "du -s /data | cut -f1")) > 1000)
    node.exec("sh", "-c", "dd if=/dev/zero of=/data/filler bs=64k; true")
    running.join(120)
    result = failed(results[0])
    assert (result.reason.id, result.reason.args["path"]) == ("disk-full", "/data/tiny")
    assert not node.exists("/data/tiny")
    node.exec("rm", "/data/filler")
    hub.heal()
    road.settle(declare(**large))
    assert sums(node, "/data/tiny") == local_sums(model)


def test_what_a_node_can_not_get_is_told_and_heals(
    node: Node, road: Applying, hub: Hub, model: Path, declare: Declare
) -> None:
    hub.fail("*.safetensors", Fault(corrupt_at=10))
    why = failed(road.apply(declare())).reason.text
    assert "its content is sha256:" in why and "the manifest says sha256:" in why
    hub.heal()
    hub.fail("*.safetensors", Fault(drop_after=30_000), times=3)
    hub.fail("*.safetensors", Fault(status=503), times=1)
    hub.fail("config.json", Fault(ignore_range=True))
    road.settle(declare())
    assert sums(node, FOLDER) == local_sums(model)


def test_a_gated_repository_and_a_second_builder_are_told(
    node: Node, lab: Lab, road: Applying, hub: Hub, model: Path, declare: Declare
) -> None:
    one = declare()
    hub.add_repo(REPO, model, gated=True)
    why = failed(road.apply(one)).reason.text
    assert "the repository is gated" in why and "this node's token has no access" in why
    assert not node.exists(FOLDER)
    hub.add_repo(REPO, model)
    slow_model(hub, model, 3 << 20, 9e4)
    first, other = declare(segment=1 << 20, connections=1), declare(include=("config.json",))
    results: list[tuple[Result, ...]] = []
    running = threading.Thread(target=lambda: results.append(road.apply(first)))
    running.start()
    until(lambda: arrived(node) > 100_000)
    session = road.fleet.session(node.name)
    create = Step(
        id=other.id, kind=other.kind, node=other.node, action="create", before=None, after=other.desired(), changes=()
    )
    with fails("job-busy"):
        session.call("checkpoint.missing", {"ask": other.ask(), "act": dict(other.act(create))})
    hub.heal()
    running.join(120)
    assert sums(node, FOLDER) == local_sums(model)


def real_cache(hub: Hub, folder: Path) -> bytes:
    """What the hub's own client leaves as its cache, as a tar of `huggingface/`."""
    code = "import sys; from huggingface_hub import snapshot_download; snapshot_download(sys.argv[1])"
    environment = {"HF_HOME": str(folder / "huggingface"), "HF_ENDPOINT": hub.endpoint, "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code, REPO], env=environment, check=True, capture_output=True)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(folder / "huggingface", "huggingface")
    return out.getvalue()


def test_a_cache_of_the_real_client_is_taken_over_without_a_byte_from_the_hub(
    node: Node, road: Applying, hub: Hub, model: Path, declare: Declare, tmp_path: Path
) -> None:
    node.exec("mkdir", "-p", "/home/spark/.cache")
    node.exec("tar", "-x", "-C", "/home/spark/.cache", input=real_cache(hub, tmp_path))
    node.exec("chown", "-R", "spark:", "/home/spark/.cache")
    hub.forget()
    road.settle(declare())
    assert hub.bytes_sent() == 0
    assert sums(node, FOLDER) == local_sums(model)
    shard = sorted(path.name for path in model.glob("*.safetensors"))[0]
    assert node.text("stat", "-c", "%h", f"{FOLDER}/{shard}") == "2"


def test_a_node_without_a_way_to_the_hub_gets_it_pushed_and_an_interrupted_push_goes_on(
    node: Node, lab: Lab, model: Path, tmp_path: Path
) -> None:
    with Hub("127.0.0.1") as hub:
        hub.add_repo(REPO, model)
        one = Checkpoint(
            node=node.name, name=FOLDER, repository=REPO, endpoint=hub.endpoint, source="push", local=str(model),
            owner="spark",
        ).prepare()  # fmt: skip
        with applying(lab, [node.name], "checkpoint") as road:
            assert one.manifest is not None
            create = Step(
                id=one.id, kind=one.kind, node=one.node, action="create", before=None, after=one.desired(), changes=()
            )
            whole = dict(one.act(create))
            session = road.fleet.session(node.name)
            missing = session.call("checkpoint.missing", {"ask": one.ask(), "act": whole})
            path, size, oid, there = max(missing, key=lambda each: each[1])
            assert there == 0
            head = (model / path).read_bytes()[: size // 2]
            place = {"folder": FOLDER, "oid": oid, "size": size, "offset": 0}
            for _ in session.send("checkpoint.put", place, [head]):
                pass
            again = session.call("checkpoint.missing", {"ask": one.ask(), "act": whole})
            assert [each[3] for each in again if each[0] == path] == [len(head)]
            road.settle(one)
        assert sums(node, FOLDER) == local_sums(model)
        assert set(node.text("sh", "-c", f"find {FOLDER} -printf '%u\n'").split()) == {"spark"}
        assert hub.bytes_sent() == 0


def test_a_damaged_push_is_not_published(node: Node, road: Applying, hub: Hub, model: Path, declare: Declare) -> None:
    shard = sorted(model.glob("*.safetensors"))[0]
    good = shard.read_bytes()
    shard.write_bytes(b"x" * len(good))
    one = declare(source="push", local=str(model))
    assert failed(road.apply(one)).reason.id == "files-not-pushed"
    assert not node.exists(FOLDER)
    shard.write_bytes(good)
    road.settle(one)


def test_a_pushed_checkpoint_without_a_folder_here_comes_through_the_controllers_cache(
    node: Node, road: Applying, hub: Hub, model: Path, declare: Declare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    road.settle(declare(source="push"))
    assert sums(node, FOLDER) == local_sums(model)


def test_an_owner_that_changes_is_followed_without_fetching(road: Applying, hub: Hub, declare: Declare) -> None:
    road.settle(declare())
    hub.forget()
    (step,) = road.plan(declare(owner="warden")).steps
    assert step.changes == ("owner",)
    road.settle(declare(owner="warden"))
    assert hub.bytes_sent() == 0


def test_the_role_brings_it_by_the_command_line_and_says_what_the_hub_refuses(
    shell: Shell, node: Node, hub: Hub, model: Path
) -> None:
    def inventory(checkpoint: str) -> None:
        shell.write(
            "inventory.yml",
            f"version: 1\ncluster: test\nconnection: {{user: spark, become: true}}\n"
            f"nodes:\n  {node.name}: {{}}\n"
            f"services:\n  tiny:\n    nodes: [{node.name}]\n    port: 8000\n    image: {{pull: none}}\n"
            f'    checkpoint: {{repository: {REPO}, endpoint: "{hub.endpoint}", {checkpoint}}}\n',
        )

    only = ("--role", "checkpoint")
    inventory("revision: mian")
    report = json.dumps(shell.json("drift", "inventory.yml", *only, status=3))
    assert "no such revision" in report and "did you mean main?" in report
    hub.add_repo(REPO, model, gated=True)
    hub.grant("hf_token", REPO)
    inventory("revision: main")
    assert "accept the licence" in json.dumps(shell.json("drift", "inventory.yml", *only, status=3))
    inventory("token: !env HF_TOKEN")
    secret = {"HF_TOKEN": "hf_token"}
    shell.run("plan", "inventory.yml", *only, status=2, environment=secret)
    done = shell.run("apply", "inventory.yml", "--yes", *only, environment=secret)
    assert "hf_token" not in done.stdout + done.stderr
    assert sums(node, FOLDER) == local_sums(model)
    assert node.text("stat", "-c", "%U", FOLDER) == "spark"
    assert node.exec("grep", "-rq", "hf_token", "/run/sparkops", "/var/lib/sparkops", check=False).returncode == 1
    shell.run("drift", "inventory.yml", *only, environment=secret)


def test_verify_reads_only_what_changed_unless_it_is_to_read_all_and_names_what_is_wrong(
    shell: Shell, node: Node, hub: Hub, model: Path
) -> None:
    shell.write(
        "inventory.yml",
        f"version: 1\ncluster: test\nconnection: {{user: spark, become: true}}\nnodes:\n  {node.name}: {{}}\n"
        f"services:\n  tiny:\n    nodes: [{node.name}]\n    image: {{pull: none}}\n"
        f'    checkpoint: {{repository: {REPO}, endpoint: "{hub.endpoint}"}}\n',
    )
    early = shell.json("checkpoint", "verify", status=2)["checkpoints"][0]
    assert "sparkops apply" in early["reason"]["fix"]
    shell.run("apply", "inventory.yml", "--yes", "--role", "checkpoint")
    hub.stop()
    (found,) = shell.json("checkpoint", "verify", "tiny")["checkpoints"]
    assert (found["hashed"], found["files"]) == (0, len(local_sums(model)))
    (found,) = shell.json("checkpoint", "verify", node.name, "--deep")["checkpoints"]
    assert found["hashed"] == found["size"] > 0
    assert found["hashed_at"].endswith("Z")
    assert f"unchanged, hashed {found['hashed_at']}" in shell.run("checkpoint", "verify").stdout
    shard = sorted(model.glob("*.safetensors"))[0].name
    node.exec("sh", "-c", f"cd {FOLDER} && printf x | dd of={shard} bs=1 seek=2000 conv=notrunc && rm config.json")
    (found,) = shell.json("checkpoint", "verify", status=2)["checkpoints"]
    assert (found["missing"], found["wrong"]) == (["config.json"], [shard])
    assert 0 < found["hashed"] < found["size"]
    text = shell.run("checkpoint", "verify", status=2).stdout
    assert f"1 file with other content: {shard}" in text and "1 file missing: config.json" in text
    (found,) = shell.json("checkpoint", "verify", status=2)["checkpoints"]
    assert found["hashed"] == 0, "a content that is known to be wrong is not read again"
