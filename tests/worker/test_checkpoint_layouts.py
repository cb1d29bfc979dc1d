"""What other tools leave on a node is proven and taken over by hard links, and stays as it is.

The hub's client (2.x) makes its own folders here, against the lab's hub. Its store shared by all repositories needs
the hub's other transport, so it is made of such a cache by hand; so are the folders of albond's and eugr's scripts,
which both start from that cache (huggingface_hub 2.4; albond install.sh; eugr hf-download.sh).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkops.core.plan import Step
from sparkops.resources.checkpoint import Checkpoint
from sparkops.worker.calls import Call
from sparkops.worker.kinds import checkpoint
from sparkops.worker.system import jobs
from tests.lab.hub import Hub

REPO = "org/tiny"
SIZES = {"model-1.safetensors": 700_001, "model-2.safetensors": 300_000, "config.json": 77, "extra/note.txt": 9}
WEIGHTS = sum(size for name, size in SIZES.items() if name.endswith(".safetensors"))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder, chance = tmp_path_factory.mktemp("model"), random.Random(1)
    for name, size in SIZES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(chance.randbytes(size))
    with Hub() as running:
        running.add_repo(REPO, folder)
        yield running


@pytest.fixture(scope="module")
def downloaded(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`huggingface/`, the client's home with its cache, and `local/`, what it leaves with `local_dir`."""
    folder = tmp_path_factory.mktemp("client")
    code = (
        "import sys; from huggingface_hub import snapshot_download as get;"
        "get(sys.argv[1]); get(sys.argv[1], local_dir=sys.argv[2])"
    )
    environment = {
        "HF_HOME": str(folder / "huggingface"), "HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1",
        "PATH": os.defpath,
    }  # fmt: skip
    argv = [sys.executable, "-c", code, REPO, str(folder / "local")]
    subprocess.run(argv, env=environment, check=True, capture_output=True)
    return folder


@pytest.fixture
def home(downloaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of these, for one test."""
    monkeypatch.setattr(jobs, "RUN", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(downloaded, tmp_path / "home", symlinks=True))


def repo(home: Path) -> Path:
    return home / "huggingface" / "hub" / "models--org--tiny"


def blob(home: Path, name: str) -> Path:
    (link,) = repo(home).glob(f"snapshots/*/{name}")
    return link.parent / link.readlink()


def share(home: Path) -> Path:
    """The weights into the store that all repositories share, as the client lays it out; where the store is."""
    store = home / "huggingface" / "hub" / "blobs"
    xet = {}
    for number, name in enumerate(SIZES):
        if name.endswith(".safetensors"):
            one, digest = blob(home, name), f"{number + 10:064x}"
            xet[name] = digest
            (store / digest[:2]).mkdir(parents=True, exist_ok=True)
            os.rename(one, store / digest[:2] / digest)
            one.symlink_to(os.path.relpath(store / digest[:2] / digest, one.parent.resolve()))
    (store / ".huggingface-shared-blobs").write_text("1")
    (tree,) = repo(home).glob("trees/*.json")
    listing = json.loads(tree.read_text())
    for name, digest in xet.items():
        listing["files"][name]["xet_hash"] = digest
    tree.write_text(json.dumps(listing))
    return store


def seen(folder: Path) -> dict[str, object]:
    """Everything in a folder: links by where they lead, files by content, time and mode."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[str(path)] = os.readlink(path)
        elif path.is_file():
            found[str(path)] = (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
    return found


def bring(hub: Hub, folder: Path, *adopt: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """Bring the checkpoint; the bytes of weights that the hub sent, and the notices' arguments by id."""
    one = Checkpoint(
        node="n1", name=str(folder), state_dir=str(folder.parent.parent / "state"), repository=REPO,
        endpoint=hub.endpoint, adopt=tuple(map(str, adopt)), stall=2.0,
    ).prepare()  # fmt: skip
    step = Step(id=one.id, kind=one.kind, node=one.node, action="create", before=None, after=one.desired(), changes=())
    hub.forget()
    said: list[dict[str, Any]] = []
    before = checkpoint.observe(one.ask())
    checkpoint.converge(Call(1, said.append, threading.Event()), one.ask(), before, one.desired(), one.act(step))
    found = checkpoint.observe(one.ask())
    assert found is not None and found["hashed"]
    notices = [message["progress"]["notice"] for message in said if "notice" in message["progress"]]
    return hub.bytes_sent("*.safetensors"), {notice["id"]: notice["args"] for notice in notices}


def test_the_clients_cache(hub: Hub, home: Path, tmp_path: Path) -> None:
    before = seen(home)
    sent, said = bring(hub, tmp_path / "models" / "tiny", home / "huggingface")
    assert sent == 0 and said["files-adopted"]["ways"] == ["4 by link"]
    assert seen(home) == before


def test_a_folder_that_the_client_filled(hub: Hub, home: Path, tmp_path: Path) -> None:
    before = seen(home)
    sent, said = bring(hub, tmp_path / "models" / "tiny", home / "local")
    assert sent == 0 and said["files-adopted"]["ways"] == ["4 by link"]
    assert seen(home) == before


def test_the_folder_itself_that_the_client_filled(hub: Hub, home: Path) -> None:
    before = seen(home / "local")
    assert (home / "local" / ".cache" / "huggingface").is_dir()
    sent, _ = bring(hub, home / "local")
    assert sent == 0
    assert seen(home / "local").items() >= before.items()


def test_a_cache_whose_weights_lie_in_the_shared_store(hub: Hub, home: Path, tmp_path: Path) -> None:
    share(home)
    before = seen(home)
    sent, said = bring(hub, tmp_path / "models" / "tiny", home / "huggingface")
    assert sent == 0 and said["files-adopted"]["ways"] == ["4 by link"]
    assert not (tmp_path / "models" / "tiny" / "model-1.safetensors").is_symlink()
    assert seen(home) == before


def test_a_repositorys_folder_that_was_copied_without_the_shared_store(hub: Hub, home: Path, tmp_path: Path) -> None:
    """As eugr's and sparkrun's copies between nodes left it: links that lead nowhere."""
    shutil.rmtree(share(home))
    sent, said = bring(hub, tmp_path / "models" / "tiny", home / "huggingface")
    assert sent == WEIGHTS
    assert said["files-adopted"]["ways"] == ["2 by link"]
    assert said["adopt-links-dangling"]["count"] >= 2


def test_what_only_the_shared_store_still_has_is_found_by_the_clients_listing(
    hub: Hub, home: Path, tmp_path: Path
) -> None:
    share(home)
    for link in (*repo(home).glob("blobs/*"), *repo(home).glob("snapshots/*/*.safetensors")):
        if link.is_symlink():
            link.unlink()
    sent, _ = bring(hub, tmp_path / "models" / "tiny", home / "huggingface")
    assert sent == 0


@pytest.mark.parametrize("text", ["", "[]", '{"files": 3}', '{"files": {"a": 3}}', "[" * 100_000])
def test_a_listing_that_is_none_counts_for_nothing(hub: Hub, home: Path, tmp_path: Path, text: str) -> None:
    (tree,) = repo(home).glob("trees/*.json")
    tree.write_text(text)
    sent, said = bring(hub, tmp_path / "models" / "tiny", home / "huggingface")
    assert sent == 0
    assert said["adopt-listing-unreadable"]["first"] == str(tree)


def test_an_install_of_albonds(hub: Hub, home: Path, tmp_path: Path) -> None:
    """The base in the client's cache; a folder of its own with the small files copied and the shards rewritten."""
    hybrid = home / "models" / "qwen35-122b-hybrid-int4fp8"
    shutil.copytree(home / "local", hybrid, ignore=shutil.ignore_patterns(".cache"))
    (hybrid / "model-1.safetensors").write_bytes(b"x" * SIZES["model-1.safetensors"])
    (hybrid / "model-2.safetensors").write_bytes(b"longer" * 100_000)
    shutil.rmtree(repo(home) / "snapshots")
    before = seen(home)
    sent, said = bring(hub, tmp_path / "models" / "tiny", hybrid)
    assert sent == WEIGHTS
    assert said["files-adopted"]["ways"] == ["2 by link"]
    assert said["adopted-file-wrong"]["source"] == f"{hybrid}/model-1.safetensors"
    assert said["adopt-sizes-differ"]["count"] == 1
    assert said["adopt-sizes-differ"]["first"] == f"{hybrid}/model-2.safetensors"
    assert seen(home) == before
