"""`only: indexed`: the shards that the index names and what is no weights; an index is never believed blindly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkops.checkpoints.hub import Hub
from sparkops.checkpoints.indexed import INDEX, LARGEST, index_of, named, only
from sparkops.checkpoints.manifest import Manifest, ManifestError, ManifestFile
from sparkops.core.wording import Message
from sparkops.resources.checkpoint import Checkpoint
from tests.errors import fails
from tests.lab.hub import Fault
from tests.lab.hub import Hub as LabHub

COMMIT = "0" * 40
NAMES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def manifest(*paths: str, size: int = 10) -> Manifest:
    files = (ManifestFile(path, size, f"sha256:{number:064x}") for number, path in enumerate(paths))
    return Manifest("org/tiny", COMMIT, tuple(files))


def index(**weight_map: str) -> bytes:
    return json.dumps({"metadata": {"total_size": 3}, "weight_map": weight_map}).encode()


def test_other_formats_and_copies_of_the_weights_are_left_out_and_all_else_stays() -> None:
    whole = manifest(
        *NAMES, INDEX, "config.json", "tokenizer.model", "LICENSE", "original/consolidated.00.pth", "metal/model.bin",
        "model.gguf", "onnx/model.ONNX", "README.md", "model-00001-of-00001.safetensors",
    )  # fmt: skip
    weights = named(index(a=NAMES[0], b=NAMES[1], c=NAMES[0]), whole)
    kept = [file.path for file in only(whole, weights).files]
    assert kept == sorted([*NAMES, INDEX, "config.json", "tokenizer.model", "LICENSE", "README.md"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (index(a="ghost.safetensors"), "'ghost.safetensors' for 'a', which is no file of the commit"),
        (index(a="../../etc/passwd"), "no file of the commit"),
        (index(), "names no file"),
        (b"{}", "names no file"),
        (b"", "it ends too early"),
        (b'{"weight_map": {"a": "config.json"}, "weight_map": {}}', "'weight_map' twice"),
        (b'{"weight_map": {"a": "config.json", "a": "config.json"}}', "'a' twice"),
        (b'{"weight_map": {"a": 3}}', "'3' stands where a string was expected"),
        (b'{"weight_map": [' + b"[]," * 100_000, "where an object was expected"),
        (b'{"metadata": {"x": ' + b"[" * 100_000, "does not end within"),
        (b'{"weight_map": {"a": "config.json"}} {}', "more text"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_an_index_that_is_none_is_refused_with_the_way_out(text: bytes, words: str) -> None:
    with pytest.raises(ManifestError) as refused:
        named(text, manifest("config.json"))
    assert refused.value.id == "index-unreadable" and words in refused.value.args_by_name["why"]


def test_without_an_index_a_single_file_of_weights_is_the_models() -> None:
    whole = manifest("model.safetensors", "pytorch_model.bin", "config.json")
    assert index_of(whole) is None
    with pytest.raises(ManifestError) as caught:
        index_of(manifest(*NAMES, "config.json"))
    assert caught.value.id == "index-missing"


def test_too_large_an_index_is_not_even_asked_for() -> None:
    with pytest.raises(ManifestError) as caught:
        index_of(manifest(INDEX, size=LARGEST + 1))
    assert caught.value.id == "index-too-large"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LabHub]:
    """A repository with two shards, and the same weights once more in another format."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    folder.mkdir()
    for name in (*NAMES, "pytorch_model.bin"):
        (folder / name).write_bytes(name.encode() * 100)
    (folder / INDEX).write_bytes(index(a=NAMES[0], b=NAMES[1]))
    (folder / "config.json").write_text("{}")
    with LabHub() as running:
        running.add_repo("org/tiny", folder)
        yield running


def declared(hub: LabHub, **more: Any) -> Checkpoint:
    return Checkpoint(name="/models/tiny", node="n1", repository="org/tiny", endpoint=hub.endpoint, **more)


def test_a_checkpoint_asks_for_the_index_once_per_commit_and_says_what_it_leaves_out(hub: LabHub) -> None:
    one = declared(hub, only="indexed").prepare()
    assert one.manifest is not None
    assert "pytorch_model.bin" not in {file.path for file in one.manifest.files}
    args = {"repository": "org/tiny", "size": 1700, "files": ["pytorch_model.bin"]}
    assert one.notices(None) == (Message("checkpoint-files-left-out", args),)
    assert one.notices({"manifest": one.manifest.digest}) == ()
    hub.forget()
    again = declared(hub, only="indexed", commit=one.manifest.commit).prepare()
    assert again.manifest == one.manifest
    assert hub.requests == ()
    assert declared(hub).prepare().manifest != one.manifest


def test_what_the_user_leaves_out_of_it_is_left_out_too(hub: LabHub) -> None:
    one = declared(hub, only="indexed", exclude=("*.json",)).prepare()
    assert one.manifest is not None
    assert [file.path for file in one.manifest.files] == sorted(NAMES)


def test_an_index_that_is_served_damaged_is_not_believed(hub: LabHub, tmp_path: Path) -> None:
    hub.fail(INDEX, Fault(corrupt_at=3))
    asked = Hub(hub.endpoint, None, tmp_path / "other")
    commit = asked.resolve("org/tiny", "main").commit
    with fails("hub-index-wrong"):
        asked.indexed(asked.manifest("org/tiny", commit))
