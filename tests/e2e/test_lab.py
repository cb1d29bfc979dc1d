"""The lab's own truth: what every other end-to-end test takes for granted about its nodes and services.

Slow, because it changes with the lab only; test_fresh_node.py has the least of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

from tests.lab import Lab, Node, model
from tests.lab.dockerd import daemon_of
from tests.lab.fixtures import NodeFactory
from tests.lab.hub import Fault, Hub
from tests.lab.images import Image
from tests.lab.machine import LabError, wait_until
from tests.lab.rootfs import WARDEN_PASSWORD

pytestmark = pytest.mark.slow


def post(node: Node, url: str, body: object, *, patience: float = 30) -> dict[str, object]:
    """POST JSON from within the node."""
    sent = ["curl", "-sS", "-m", f"{patience:g}", "-H", "Content-Type: application/json", "-d", json.dumps(body), url]
    answer: dict[str, object] = json.loads(node.exec(*sent, timeout=patience + 10).stdout)
    return answer


def status(node: Node, url: str) -> int:
    """HTTP status of a GET from within the node; 0 where nothing answers."""
    said = node.exec("curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", url, check=False)
    return int(said.stdout or 0)


def run_engine(node: Node, image: Image, *, mode: str = "", folder: str = "/srv/model") -> str:
    """Start the small engine in the node's own Docker; returns its address there."""
    docker = ["docker", "run", "-d", "--name", "engine", "-p", "8000:8000", "-e", f"LAB_ENGINE={mode}"]
    serve = [image.pinned, "serve", "/model", "--served-model-name", "tiny", "--max-model-len", "4096"]
    node.exec(*docker, "-v", f"{folder}:/model:ro", *serve)
    return "http://127.0.0.1:8000"


def give_model(node: Node, folder: Path) -> None:
    """Put the tiny model at /srv/model."""
    for path in sorted(model.write(folder).iterdir()):
        node.write(f"/srv/model/{path.name}", path.read_bytes())


def test_the_labs_own_docker_is_found_by_what_it_wrote_itself(lab: Lab, tmp_path: Path) -> None:
    """So that it is ended though whoever started it was killed before it noted anything."""
    if lab.engine.own:
        daemon = daemon_of(lab.state)
        assert daemon is not None and daemon.alive
    assert daemon_of(tmp_path) is None
    (tmp_path / "dockerd.pid").write_text(str(os.getpid()))
    assert daemon_of(tmp_path) is None, "another process has the number now"


def test_sudo_asks_warden_for_a_password_and_spark_for_none(node: Node) -> None:
    sudo = ("sudo", "-S", "-k", "-p", "''", "id", "-u")
    assert node.ssh("sudo", "-n", "id", "-u", user="spark").stdout == b"0\n"
    assert node.ssh(*sudo, user="warden", input=b"wrong\n").returncode != 0
    assert node.ssh(*sudo, user="warden", input=WARDEN_PASSWORD.encode() + b"\n").stdout == b"0\n"


def test_the_gpu_reads_as_gb10_and_its_driver_can_be_replaced(node: Node) -> None:
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader"]
    assert node.text(*query) == "NVIDIA GB10, 580.95.05, [N/A], 12.1"
    said = json.loads(node.read("/etc/lab/nvidia.json"))
    node.write("/etc/lab/nvidia.json", json.dumps({**said, "driver_version": "590.48.01"}).encode())
    assert "590.48.01" in node.text(*query)
    assert "Driver Version: 590.48.01" in node.text("nvidia-smi")


def test_a_node_reads_back_what_is_written(node: Node) -> None:
    content = bytes(range(256)) * 100
    node.write("/srv/a b/c'd", content, mode=0o600)
    assert node.read("/srv/a b/c'd") == content
    assert node.text("stat", "-c", "%a", "/srv/a b/c'd") == "600"


def test_a_reboot_brings_back_units_containers_address_and_key(lab: Lab, node: Node, tmp_path: Path) -> None:
    give_model(node, tmp_path)
    run_engine(node, lab.engine_image)
    node.exec("docker", "update", "--restart", "always", "engine")
    before = node.boot_time
    node.restart()
    assert node.boot_time != before
    assert node.ssh("systemctl is-system-running").stdout.strip() == b"running"
    assert wait_until(lambda: status(node, "http://127.0.0.1:8000/health") == 200, 90)


def test_a_power_loss_ends_everything_at_once_and_the_disk_stays(node: Node) -> None:
    node.write("/srv/kept", b"x")
    node.kill()
    assert not node.greets()
    node.start()
    assert node.read("/srv/kept") == b"x"


def test_a_paused_node_connects_but_does_not_greet(node: Node) -> None:
    with node.paused():
        assert not node.greets()
    assert node.greets()


@pytest.mark.parametrize("refuse", [False, True])
def test_a_cut_node_is_silent_or_refuses(node: Node, refuse: bool) -> None:
    node.cut(refuse=refuse)
    assert not node.greets()
    node.restore(refuse=refuse)
    assert node.greets()


def test_a_full_disk_is_truly_full(node: Node) -> None:
    node.tmpfs("/data", "1m")
    with pytest.raises(LabError, match="No space left on device"):
        node.exec("dd", "if=/dev/zero", "of=/data/x", "bs=64k", "count=32")


def test_nodes_see_each_other_over_the_fabric_with_jumbo_frames(lab: Lab, nodes: Callable[[int], list[Node]]) -> None:
    one, two = nodes(2)
    one.plug(lab.fabric())
    two.plug(lab.fabric())
    assert "1 received" in one.text("ping", "-M", "do", "-s", "8900", "-c", "1", "-W", "2", two.fabric_address)
    two.unplug(lab.fabric())
    assert one.exec("ping", "-c", "1", "-W", "1", two.fabric_address, check=False).returncode != 0


def test_an_image_is_pulled_by_digest_and_pushed_from_a_node(lab: Lab, node_factory: NodeFactory) -> None:
    image = lab.engine_image
    one, two = node_factory(), node_factory()
    one.exec("docker", "pull", "-q", image.pinned)
    copy = f"{lab.registry.host}/test/copy:{one.name}"
    one.exec("docker", "tag", image.pinned, copy)
    one.exec("docker", "push", "-q", copy)
    digest = lab.registry.digest("test/copy", one.name)
    two.exec("docker", "pull", "-q", f"{lab.registry.host}/test/copy@{digest}")
    ids = {node.text("docker", "image", "ls", "--no-trunc", "-q").split()[0] for node in (one, two)}
    assert len(ids) == 1


def test_the_private_registry_wants_its_password(lab: Lab, node: Node) -> None:
    private, image = lab.private_registry, lab.engine_image
    reference = f"{private.host}/{image.name}@{image.digest}"
    assert node.exec("docker", "pull", "-q", reference, check=False).returncode != 0
    login = ["docker", "login", "--username", private.user, "--password-stdin", private.host]
    node.exec(*login, input=private.password.encode())
    node.exec("docker", "pull", "-q", reference)


def test_the_small_engine_answers_in_a_nested_container(lab: Lab, node: Node, tmp_path: Path) -> None:
    give_model(node, tmp_path)
    url = run_engine(node, lab.engine_image)
    assert wait_until(lambda: status(node, f"{url}/health") == 200, 90)
    answer = post(node, f"{url}/v1/completions", {"model": "tiny", "prompt": "one two", "max_tokens": 4})
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert 'vllm:generation_tokens_total{engine="0",model_name="tiny"} 4.0' in node.text("curl", "-s", f"{url}/metrics")


def test_a_hung_engine_is_healthy_and_generates_nothing(lab: Lab, node: Node, tmp_path: Path) -> None:
    give_model(node, tmp_path)
    url = run_engine(node, lab.engine_image, mode="hang")
    assert wait_until(lambda: status(node, f"{url}/health") == 200, 90)
    with pytest.raises(LabError, match="timed out"):
        post(node, f"{url}/v1/completions", {"model": "tiny", "prompt": "x"}, patience=2)
    assert status(node, f"{url}/health") == 200
    node.exec("curl", "-sS", "-d", "", f"{url}/lab/mode")
    assert post(node, f"{url}/v1/completions", {"model": "tiny", "prompt": "x"})["object"] == "text_completion"


def test_the_small_engine_refuses_a_shard_cut_short_and_stops_on_term(lab: Lab, node: Node, tmp_path: Path) -> None:
    give_model(node, tmp_path)
    url = run_engine(node, lab.engine_image)
    assert wait_until(lambda: status(node, f"{url}/health") == 200, 90)
    node.exec("docker", "stop", "-t", "10", "engine")
    assert node.text("docker", "inspect", "-f", "{{.State.ExitCode}}", "engine") == "0"
    node.exec("truncate", "-s", "1000000", "/srv/model/model-00002-of-00004.safetensors")
    node.exec("docker", "start", "engine")
    assert node.text("docker", "wait", "engine") == "1"
    assert "not fully covered" in node.exec("docker", "logs", "engine").stderr.decode()


def test_a_container_over_its_memory_is_killed(lab: Lab, node: Node) -> None:
    greedy = ["docker", "run", "--name", "greedy", "-m", "48m", "--memory-swap", "48m", "--entrypoint", "python3"]
    ended = node.exec(*greedy, lab.engine_image.pinned, "-c", "x = bytearray(1 << 30)", check=False)
    assert ended.returncode == 137
    assert node.text("docker", "inspect", "-f", "{{.State.OOMKilled}}", "greedy") == "true"


@pytest.fixture
def tiny(hub: Hub, tmp_path: Path) -> str:
    """The tiny model on the test's hub; its commit."""
    return hub.add_repo("lab/tiny", model.write(tmp_path / "tiny"))


def fetch(hub: Hub, repo: str, into: Path, **more: object) -> Path:
    """Download by the real client in a process of its own, so that nothing is remembered between tests."""
    code = (
        "import json, sys; from huggingface_hub import snapshot_download\n"
        "print(snapshot_download(**json.loads(sys.argv[1])))"
    )
    given = json.dumps({"repo_id": repo, "local_dir": str(into), "endpoint": hub.endpoint, **more})
    subprocess.run([sys.executable, "-c", code, given], check=True, capture_output=True)
    return into


def test_the_real_client_fetches_and_verifies_a_pinned_commit(hub: Hub, tiny: str, tmp_path: Path) -> None:
    hub.page_size = 3
    folder = fetch(hub, "lab/tiny", tmp_path / "got", revision=tiny)
    checked = HfApi(endpoint=hub.endpoint).verify_repo_checksums("lab/tiny", revision=tiny, local_dir=str(folder))
    assert (checked.checked_count, checked.mismatches, checked.missing_paths) == (9, [], [])


def test_a_branch_moves_and_a_commit_stays(hub: Hub, tiny: str, tmp_path: Path) -> None:
    later = hub.add_repo("lab/tiny", model.write(tmp_path / "other", seed=1))
    api = HfApi(endpoint=hub.endpoint)
    assert api.model_info("lab/tiny").sha == later != tiny
    assert api.model_info("lab/tiny", revision=tiny).sha == tiny


def test_a_dropped_connection_is_resumed_by_range(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "w.safetensors").write_bytes(bytes(25 << 20))
    hub.add_repo("lab/big", tmp_path / "big")
    hub.fail("w.safetensors", Fault(drop_after=12 << 20), times=1)
    folder = fetch(hub, "lab/big", tmp_path / "got")
    assert (folder / "w.safetensors").stat().st_size == 25 << 20
    gets = [(r.status, r.range) for r in hub.requests_for("w.safetensors") if r.origin == "store"]
    assert gets == [(200, None), (206, "bytes=10485760-")]


def test_a_corrupt_shard_of_the_right_size_passes_the_client_but_not_its_checksum(
    hub: Hub, tiny: str, tmp_path: Path
) -> None:
    hub.fail("model-00002-*", Fault(corrupt_at=1000))
    folder = fetch(hub, "lab/tiny", tmp_path / "got", revision=tiny)
    checked = HfApi(endpoint=hub.endpoint).verify_repo_checksums("lab/tiny", revision=tiny, local_dir=str(folder))
    assert [wrong["path"] for wrong in checked.mismatches] == ["model-00002-of-00004.safetensors"]


def test_a_busy_hub_is_asked_again_after_the_time_it_names(hub: Hub, tiny: str, tmp_path: Path) -> None:
    hub.fail("model-00001-*", Fault(status=429, retry_after=1), times=1)
    began = time.monotonic()
    fetch(hub, "lab/tiny", tmp_path / "got", revision=tiny)
    assert time.monotonic() - began >= 1


def test_gated_and_missing_repositories_are_told_apart(hub: Hub, tiny: str, tmp_path: Path) -> None:
    hub.add_repo("lab/gated", tmp_path / "tiny", gated=True)
    hub.grant("open-sesame", "lab/gated")
    fetch(hub, "lab/gated", tmp_path / "got", token="open-sesame")
    with pytest.raises(GatedRepoError):
        snapshot_download("lab/gated", local_dir=tmp_path / "no", endpoint=hub.endpoint)
    with pytest.raises(HfHubHTTPError, match="Invalid username or password") as missing:
        HfApi(endpoint=hub.endpoint, token=False).model_info("lab/none")
    assert not isinstance(missing.value, GatedRepoError)
    stored = [r.authorization for r in hub.requests if r.origin == "store"]
    assert stored
    assert not any(stored)


def test_a_moved_repository_is_found_under_its_old_name(hub: Hub, tiny: str) -> None:
    hub.move_repo("lab/tiny", "lab/renamed")
    assert HfApi(endpoint=hub.endpoint).model_info("lab/tiny").sha == tiny


def test_a_node_reaches_the_standing_hub(lab: Lab, node: Node) -> None:
    said = json.loads(node.text("curl", "-sS", f"{lab.hub}/api/models/lab/tiny-moe"))
    assert said["sha"] == lab.model_commit
    shard = f"{lab.hub}/lab/tiny-moe/resolve/main/model-00001-of-00004.safetensors"
    assert (
        node.text("sh", "-c", f"curl -sSL {shard} | sha256sum").split()[0]
        == (node.text("curl", "-sSI", shard).lower().partition('x-linked-etag: "')[2][:64])
    )
