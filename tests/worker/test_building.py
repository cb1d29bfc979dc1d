"""Builds end to end on tiny checkpoints of true names, donors served by the lab's hub, with its faults."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.checkpoints.inspect import FolderSource, inspect
from sparkops.core.descriptors import FOLDER, closing
from sparkops.core.messages import Refused
from sparkops.programs.build.base import Base
from sparkops.programs.build.donor import coalesced
from sparkops.programs.protocol import Output
from sparkops.safetensors.header import head
from tests.errors import fails
from tests.lab.hub import Fault, Hub
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Donor:
    folder = made.save(tmp_path_factory.mktemp("bf16"), made.bf16(made.SMALL), made.config(made.SMALL))
    return Donor("Qwen/bf16", folder, hub, hub.add_repo("Qwen/bf16", folder))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with four experts and no MTP: what does not hang on the number of experts is tested on it."""
    folder = tmp_path_factory.mktemp("small")
    return made.save(folder, made.autoround(made.SMALL, mtp=False), made.autoround_config(made.SMALL))


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Donor:
    folder = made.save(tmp_path_factory.mktemp("fp8s"), made.fp8(made.SMALL), made.config(made.SMALL))
    return Donor("Qwen/fp8s", folder, hub, hub.add_repo("Qwen/fp8s", folder))


ALL = [SHARED, {"mtp": {"donor": 1}}, {"lm_head": "int8"}]


def refused(build: Build) -> tuple[str, str]:
    """The id of the error of a build, and the file that it names."""
    with pytest.raises(Refused) as caught:
        build.run()
    return caught.value.id, str(caught.value.values.get("path", ""))


def contents(folder: Path) -> dict[str, bytes]:
    """What would be published."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "built.json"
    }


def test_all_steps_together_give_one_whole_checkpoint(
    small: Path, eight: Donor, trained: Donor, tmp_path: Path
) -> None:
    build = Build(small, tmp_path / "staging", ALL, [eight, trained])
    build.run()
    after, before, sixteen = made.load(build.staging), made.load(small), made.load(trained.folder)
    mtp = made.names(sixteen, "mtp.")
    assert len(mtp) == 17 + 3 * made.SMALL.num_experts
    assert all(after[name] == sixteen[name] for name in mtp)
    dtype, shape, _ = after["lm_head.weight"]
    assert (dtype, shape) == ("I8", before["lm_head.weight"][1])
    assert after["lm_head.weight_scale"][:2] == ("F32", (shape[0], 1))
    config = json.loads((build.staging / "config.json").read_text())
    assert config["quantization_config"] == json.loads((small / "config.json").read_text())["quantization_config"]
    assert set(config["sparkops"]) == {"hybrid", "mtp", "lm_head"}
    assert "build-donor-ranges" in dict(build.notices)
    assert inspect(FolderSource(build.staging)).faults == ()


def killed_at(number: int) -> Callable[[], None]:
    """A `check` whose process kills itself at the so-many-th check, or change of a name on the disk."""
    left = [number]

    def count(*_: object) -> None:
        if os.getpid() == left[1]:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    def check() -> None:
        if len(left) == 1:
            left.append(os.getpid())
            sys.addaudithook(lambda event, _: count() if event in CHANGES else None)
        count()

    return check


CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.fork", "shutil.rmtree"}


def test_a_build_that_is_killed_at_any_moment_goes_on_to_the_same_bytes(
    small: Path, eight: Donor, trained: Donor, hub: Hub, tmp_path: Path
) -> None:
    whole = Build(small, tmp_path / "whole", ALL, [eight, trained])
    whole.run()
    needed = hub.bytes_sent("*.safetensors")
    hub.forget()
    killed, step = Build(small, tmp_path / "killed", ALL, [eight, trained]), 1
    while True:
        if not killed.killed(killed_at(step)):
            break
        step += 2
    assert step > 30
    assert contents(killed.staging) == contents(whole.staging)
    assert hub.bytes_sent("*.safetensors") < 2 * needed


def test_memory_does_not_grow_with_the_shard(tmp_path: Path) -> None:
    base = made.save(tmp_path / "base", made.autoround(made.SMALL), made.autoround_config(made.SMALL), shards=1)
    path = base / "model-00001-of-00001.safetensors"
    tensors = made.load(base)
    size = 300 << 20
    names = [(name, dtype, shape, len(data)) for name, (dtype, shape, data) in tensors.items()]
    beginning = head([*names, ("model.visual.huge", "U8", (size,), size)], {})
    with open(path, "wb") as file:
        file.write(beginning)
        for _, _, data in tensors.values():
            file.write(data)
        file.truncate(file.tell() + size)
    index = json.loads((base / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.visual.huge"] = path.name
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    build = Build(base, tmp_path / "staging", [{"lm_head": "int8"}])
    build.spec()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    build.run()
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - before < 128 << 10
    assert (build.staging / path.name).stat().st_size > size


@given(
    st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 400)), min_size=1, max_size=30),
    st.integers(1, 3),
)
def test_joined_ranges_hold_all_that_is_needed_and_little_more(pairs: list[tuple[int, int]], files: int) -> None:
    wanted: dict[str, list[tuple[int, int]]] = {}
    for number, (start, length) in enumerate(pairs):
        wanted.setdefault(f"f{number % files}", []).append((start, start + length))
    joined = coalesced(wanted)
    bytes_of = {path: {n for start, end in ranges for n in range(start, end)} for path, ranges in wanted.items()}
    fetched = {path: {n for start, end in ranges for n in range(start, end)} for path, ranges in joined.items()}
    assert all(bytes_of[path] <= fetched[path] for path in wanted)
    assert sum(map(len, fetched.values())) <= 1.1 * sum(map(len, bytes_of.values()))
    assert sum(map(len, joined.values())) <= sum(map(len, wanted.values()))


@pytest.mark.parametrize(
    "fault",
    [
        Fault(drop_after=60_000),
        Fault(stall_after=60_000, stall=2.5),
        Fault(status=429, retry_after=0.05),
        Fault(status=503),
        Fault(ignore_range=True),
        Fault("resolve", status=503),
    ],
    ids=["drop", "stall", "429", "503", "ignored range", "503 of the address"],
)
def test_a_donor_that_fails_now_and_then_is_asked_again(
    fault: Fault, small: Path, eight: Donor, hub: Hub, tmp_path: Path
) -> None:
    hub.fail("*.safetensors", fault, times=2)
    build = Build(small, tmp_path / "staging", [SHARED], [eight])
    build.run()
    assert made.names(made.load(build.staging), "weight_scale_inv")


@pytest.mark.parametrize(
    ("fault", "id"),
    [
        (Fault(ignore_range=True), "server-without-ranges"),
        (Fault(size_delta=8), "hub-size-wrong"),
        (Fault(status=503), "hub-not-answering"),
        (Fault(status=403), "hub-not-answering"),
    ],
    ids=["ignored range", "another size", "503", "403"],
)
def test_a_donor_that_always_fails_is_told_with_file_and_repository_and_nothing_is_left_half(
    fault: Fault, id: str, small: Path, eight: Donor, hub: Hub, tmp_path: Path
) -> None:
    hub.fail("*.safetensors", fault)
    build = Build(small, tmp_path / "staging", [SHARED], [eight])
    with pytest.raises(Refused) as caught:
        build.run()
    assert caught.value.id == id
    assert "safetensors of Qwen/fp8s@" in caught.value.values["file"]
    assert not (build.staging / "config.json").exists()
    hub.heal()
    build.run()


def test_addresses_that_expire_in_the_middle_are_asked_for_anew(
    small: Path, eight: Donor, hub: Hub, tmp_path: Path
) -> None:
    hub.fail("*.safetensors", Fault(status=403), times=3)
    Build(small, tmp_path / "staging", [SHARED], [eight]).run()


def test_a_gated_donor_is_refused(small: Path, eight: Donor, hub: Hub, tmp_path: Path) -> None:
    gated = Donor("Qwen/gated", eight.folder, hub, hub.add_repo("Qwen/gated", eight.folder, gated=True))
    assert refused(Build(small, tmp_path / "staging", [SHARED], [gated]))[0] == "hub-repository-gated-for-node"
    hub.grant("hf_token", "Qwen/gated")
    gated.token = "hf_token"
    Build(small, tmp_path / "staging", [SHARED], [gated]).run()


def test_a_donor_of_another_model_fails_the_check_and_its_bytes_are_dropped(
    small: Path, eight: Donor, hub: Hub, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    made.save(other, made.fp8(made.SMALL, seed=1), made.config(made.SMALL))
    wrong = Donor("Qwen/other", other, hub, hub.add_repo("Qwen/other", other))
    build = Build(small, tmp_path / "staging", [SHARED], [wrong])
    assert refused(build)[0] == "hybrid-sample-differs"
    build.donors = [eight]
    build.run()


def test_another_identity_starts_over(small: Path, eight: Donor, tmp_path: Path) -> None:
    build = Build(small, tmp_path / "staging", [SHARED], [eight])
    build.run()
    again = Build(small, tmp_path / "staging", [{"lm_head": "int8"}], identity="build:sha256:two")
    again.run()
    after = made.load(again.staging)
    assert after["lm_head.weight"][0] == "I8"
    assert not made.names(after, "weight_scale_inv")


def test_a_build_of_no_change_takes_every_file_over(base: Path, tmp_path: Path) -> None:
    build = Build(base, tmp_path / "staging", [{"mtp": None}])
    done = build.run()
    assert [path for path, _, _ in done["files"]] == [path for path, _, _ in made.manifest(base)]
    assert all((build.staging / path).samefile(base / path) for path, _, _ in done["files"])


def test_a_damaged_base_is_refused_by_name(small: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(small, tmp_path / "base"))
    build = Build(base, tmp_path / "staging", [{"lm_head": "int8"}])
    spec = build.spec()
    path = next(base.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    build.spec = lambda: spec  # type: ignore[method-assign]
    assert refused(build) == ("checkpoint-file-damaged", path.name)


def test_a_tensor_in_two_shards_is_refused(small: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(small, tmp_path / "base"))
    shutil.copy(base / "model-00001-of-00003.safetensors", base / "model-00009.safetensors")
    assert refused(Build(base, tmp_path / "staging", [{"lm_head": "int8"}]))[0] == "checkpoint-tensor-duplicate"


def test_an_index_that_is_not_what_the_headers_say_is_refused(small: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(small, tmp_path / "base"))
    index = json.loads((base / "model.safetensors.index.json").read_text())
    del index["weight_map"]["lm_head.weight"]
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    assert refused(Build(base, tmp_path / "staging", [{"lm_head": "int8"}]))[0] == "checkpoint-index-mismatch"
    index["weight_map"] |= {
        "lm_head.weight": "model-00003-of-00003.safetensors",
        "ghost": "model-00001-of-00003.safetensors",
    }
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(Refused) as caught:
        Build(base, tmp_path / "staging", [{"lm_head": "int8"}]).run()
    assert (caught.value.id, caught.value.values["tensors"]) == ("checkpoint-tensors-missing", ["ghost"])


def test_only_a_file_that_the_index_names_nowhere_can_be_left_out(small: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(small, tmp_path / "base"))
    index = json.loads((base / "model.safetensors.index.json").read_text())
    moved, last = {**index["weight_map"]}, index["weight_map"]["lm_head.weight"]
    moved["lm_head.weight"] = "model-00001-of-00003.safetensors"
    unnamed = {name: path for name, path in index["weight_map"].items() if path != last}
    for weight_map, id in ((moved, "checkpoint-index-mismatch"), (unnamed, "checkpoint-shard-not-in-index")):
        (base / "model.safetensors.index.json").write_text(json.dumps({**index, "weight_map": weight_map}))
        assert refused(Build(base, tmp_path / "staging", [{"lm_head": "int8"}]))[0] == id


def test_a_base_that_changes_while_it_is_hashed_is_said_to_have_changed(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x" * 10)

    class Touching(Output):
        def progress(self, *args: Any, **more: Any) -> None:
            os.utime(file)

    said = Touching(os.open(os.devnull, os.O_WRONLY))
    right = "sha256:" + hashlib.sha256(b"x" * 10).hexdigest()
    with closing(os.open(tmp_path, FOLDER)) as folder, fails("checkpoint-file-changed", Refused):
        Base(folder, [("a", 10, right)]).verify({}, said)
