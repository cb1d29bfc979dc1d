"""Builds end to end on tiny checkpoints of true names, donors served by the lab's hub, with its faults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.hub import Hub
from tests.worker import checkpoints_made as made
from tests.worker.builds import Build, Donor

SHARED = {"hybrid": {"donor": 0, "layers": "shared_expert"}}


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture(autouse=True)
def healed(hub: Hub) -> Iterator[None]:
    yield
    hub.heal()
    hub.forget()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return made.save(folder, made.autoround(made.GEOMETRY), made.autoround_config(made.GEOMETRY))


@pytest.fixture(scope="module")
def donor(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Donor:
    folder = made.save(tmp_path_factory.mktemp("fp8"), made.fp8(made.GEOMETRY), made.config(made.GEOMETRY))
    return Donor("Qwen/fp8", folder, hub, hub.add_repo("Qwen/fp8", folder))


def test_a_hybrid_has_every_shared_expert_in_the_donors_fp8_and_all_else_as_it_was(
    base: Path, donor: Donor, hub: Hub, tmp_path: Path
) -> None:
    build = Build(base, tmp_path / "staging", [SHARED], [donor])
    done = build.run()
    before, after, eight = made.load(base), made.load(build.staging), made.load(donor.folder)
    replaced = [name for name in after if after[name] != before.get(name)]
    weights = [name for name in replaced if name.endswith(".weight")]
    assert len(weights) == 3 * made.GEOMETRY.num_hidden_layers
    assert sorted(replaced) == sorted([*weights, *(f"{name}_scale_inv" for name in weights)])
    assert all(after[name] == eight[name] for name in replaced)
    assert all(name in after for name in before)
    index = json.loads((build.staging / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(after)
    assert index["metadata"]["total_size"] == sum(len(data) for _, _, data in after.values())
    for path, size, oid in done["files"]:
        data = (build.staging / path).read_bytes()
        assert (len(data), "sha256:" + hashlib.sha256(data).hexdigest()) == (size, oid)
    assert json.loads((build.staging / ".sparkops/manifest.json").read_text())["files"] == done["files"]
    assert (build.staging / "tokenizer.json").samefile(base / "tokenizer.json")
    needed = sum(len(eight[name][2]) for name in replaced)
    headers = sum(8 + int.from_bytes(path.read_bytes()[:8], "little") for path in donor.folder.glob("*.safetensors"))
    assert hub.bytes_sent("*.safetensors") <= 1.1 * needed + headers
