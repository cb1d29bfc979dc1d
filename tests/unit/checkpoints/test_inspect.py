"""What `checkpoint inspect` tells of a checkpoint: parts, bytes per token, and each way in which one is not whole."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sparkops.checkpoints.hub import Hub
from sparkops.checkpoints.inspect import FolderSource, HubSource, InspectError, Inspection, inspect
from sparkops.cli.app import run
from sparkops.core.secrets import Secret
from sparkops.safetensors.parts import missing_mtp, part_of
from tests.lab import model
from tests.lab.hub import Fault
from tests.lab.hub import Hub as LabHub

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def seen(folder: Path) -> Inspection:
    return inspect(FolderSource(folder))


def faults(folder: Path) -> str:
    return "\n".join(f"{each.file}: {each.id}: {each.text}" for each in seen(folder).faults)


def shard(folder: Path, number: int = 1) -> Path:
    return sorted(folder.glob("*.safetensors"))[number - 1]


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def write_shard(path: Path, tensors: Mapping[str, tuple[str, list[int], int]]) -> None:
    """A shard of zeros: name → dtype, shape, bytes."""
    entries, position = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(position))


def test_a_whole_checkpoint_has_no_fault_and_its_parts_add_up(whole: Path) -> None:
    found = seen(whole)
    assert found.faults == ()
    assert found.quantization == ""
    index = json.loads((whole / INDEX).read_text())
    assert found.tensors == len(index["weight_map"])
    assert sum(each.size for each in found.shares) == index["metadata"]["total_size"]
    assert {each.part for each in found.shares} >= {"experts", "shared experts", "attention", "linear attention", "mtp"}


def test_decoding_reads_the_chosen_experts_and_all_of_the_rest_but_embeddings_mtp_and_vision(whole: Path) -> None:
    found = seen(whole)
    sizes = {each.part: each.size for each in found.shares}
    unread = sum(sizes.get(part, 0) for part in ("embeddings", "mtp", "vision"))
    expected = sum(sizes.values()) - unread - sizes["experts"] * 3 / 4
    assert found.read_per_token == expected


def test_the_weights_once_more_in_another_layout_are_told_and_fault_nothing(copy: Path) -> None:
    alone = seen(copy)
    (copy / "original").mkdir()
    for name in ("consolidated.safetensors", "original/model.safetensors"):
        write_shard(copy / name, {"tok_embeddings.weight": ("BF16", [4, 8], 64)})
    both = seen(copy)
    assert both.faults == () and both.beside == ("consolidated.safetensors", "original/model.safetensors")
    assert (both.shares, both.read_per_token) == (alone.shares, alone.read_per_token)


def test_one_layout_by_itself_is_no_second_one(tmp_path: Path) -> None:
    write_shard(tmp_path / "consolidated.safetensors", {"output.weight": ("BF16", [4, 8], 64)})
    assert (seen(tmp_path).beside, seen(tmp_path).tensors) == ((), 1)


def test_what_decoding_reads_of_an_architecture_that_is_not_described_is_not_known(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "architectures": ["WrenForCausalLM"]}))
    assert seen(copy).read_per_token is None


def test_a_cut_off_shard_is_named_with_its_sizes(copy: Path) -> None:
    size = shard(copy).stat().st_size
    with shard(copy).open("r+b") as file:
        file.truncate(size - 10)
    assert (
        f"{shard(copy).name}: safetensors-file-cut-off: it is cut off: {size - 10} bytes, its header needs {size}"
        in faults(copy)
    )


def test_a_shard_with_bytes_behind_its_end_is_named(copy: Path) -> None:
    with shard(copy).open("ab") as file:
        file.write(b"tail")
    assert "safetensors-file-too-long" in faults(copy)


def test_an_empty_shard_is_named(copy: Path) -> None:
    shard(copy).write_bytes(b"")
    assert "safetensors-file-broken: it ends after 0 bytes" in faults(copy)


def test_tensors_in_two_shards_are_found(copy: Path) -> None:
    shutil.copy(shard(copy), copy / "model_extra_tensors.safetensors")
    assert "tensors-duplicated" in faults(copy)


def test_an_index_that_names_what_is_not_there_is_found(copy: Path) -> None:
    rewrite(copy / INDEX, lambda value: value["weight_map"].update(ghost=shard(copy).name))
    assert "index-tensors-missing" in faults(copy)


def test_an_index_that_names_a_file_that_is_not_there_is_found(copy: Path) -> None:
    shard(copy, 2).unlink()
    assert "index-files-missing: " in faults(copy)


def test_a_file_that_is_not_there_hides_no_entry_of_another_file(copy: Path) -> None:
    rewrite(copy / INDEX, lambda value: value["weight_map"].update({"lm_head.weight": shard(copy).name}))
    shard(copy, 2).unlink()
    found = faults(copy)
    assert "index-files-missing: " in found
    assert "index-tensors-missing: it names tensors that their files do not contain: lm_head.weight" in found


@pytest.mark.parametrize("indexed", [True, False])
def test_what_an_unread_shard_may_hold_is_not_called_missing(copy: Path, indexed: bool) -> None:
    place = json.loads((copy / INDEX).read_text())["weight_map"]["mtp.fc.weight"]
    with (copy / place).open("r+b") as file:
        file.truncate((copy / place).stat().st_size - 10)
    if not indexed:
        (copy / INDEX).unlink()
    found = faults(copy)
    assert "it is cut off" in found
    assert "MTP" not in found


def test_an_index_that_forgets_a_tensor_is_found(copy: Path) -> None:
    rewrite(copy / INDEX, lambda value: value["weight_map"].pop("lm_head.weight"))
    assert "index-incomplete: it does not name tensors that exist: lm_head.weight" in faults(copy)


def test_a_total_size_that_is_not_the_sum_is_found(copy: Path) -> None:
    rewrite(copy / INDEX, lambda value: value["metadata"].update(total_size=5))
    assert "its total_size is 5" in faults(copy)


def test_several_shards_without_an_index_are_a_fault(copy: Path) -> None:
    (copy / INDEX).unlink()
    assert "shards-without-index" in faults(copy)


def test_a_config_that_is_no_json_is_a_fault_and_the_reading_stays_unknown(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    found = seen(copy)
    assert "config.json: json-file-broken" in faults(copy)
    assert found.read_per_token is None


def test_a_link_whose_target_was_not_copied_is_named(copy: Path) -> None:
    (copy / "more.safetensors").symlink_to("../blobs/0123")
    with pytest.raises(InspectError) as caught:
        seen(copy)
    assert caught.value.id == "checkpoint-link-dangling"
    assert caught.value.args_by_name["target"] == "../blobs/0123"


def test_a_folder_without_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InspectError) as caught:
        seen(tmp_path)
    assert caught.value.id == "no-safetensors-file"


def test_mtp_weights_that_the_configuration_promises_are_counted(copy: Path) -> None:
    index = json.loads((copy / INDEX).read_text())
    names = list(index["weight_map"])
    text = json.loads((copy / "config.json").read_text())["text_config"]
    assert missing_mtp(names, text) == []
    assert len([name for name in names if part_of(name) == "mtp"]) == 17 + 3 * text["num_experts"]
    assert missing_mtp([name for name in names if "mtp" not in name], text)[:1] == ["mtp.fc"]
    lacking = [name for name in names if name != "mtp.layers.0.mlp.experts.3.up_proj.weight"]
    assert missing_mtp(lacking, text) == ["mtp.layers.0.mlp.experts.3.up_proj"]


@pytest.mark.parametrize(("experts", "tensors"), [(256, 785), (512, 1553)])
def test_the_released_models_have_as_many_mtp_tensors_as_is_known(experts: int, tensors: int) -> None:
    text = {"mtp_num_hidden_layers": 1, "num_experts": experts}
    assert len(missing_mtp(["lm_head.weight"], text)) == tensors


def test_experts_kept_fused_are_whole_with_two_tensors(copy: Path) -> None:
    text = {"mtp_num_hidden_layers": 1, "num_experts": 256}
    alone = missing_mtp([], text)
    names = [f"{name}.weight" for name in alone if ".experts." not in name]
    fused = [f"mtp.layers.0.mlp.experts.{each}" for each in ("gate_up_proj", "down_proj")]
    assert missing_mtp(names + fused, text) == []
    assert missing_mtp(names + fused[:1], text) == [fused[1]]


def test_a_quantised_head_and_its_scales_are_one_part(tmp_path: Path) -> None:
    write_shard(
        tmp_path / "model.safetensors",
        {"lm_head.weight": ("I8", [4, 8], 32), "lm_head.weight_scale": ("F32", [4], 16)},
    )
    (tmp_path / "config.json").write_text(
        json.dumps({"quantization_config": {"quant_method": "auto-round", "bits": 4, "group_size": 128}})
    )
    found = seen(tmp_path)
    assert [(each.part, each.dtype) for each in found.shares] == [("head", "F32"), ("head", "I8")]
    assert found.quantization == "auto-round, 4 bits, groups of 128"


@pytest.mark.parametrize("fault", [None, Fault(ignore_range=True)], ids=["ranges", "ranges ignored"])
def test_a_repository_is_told_from_its_headers_alone(whole: Path, tmp_path: Path, fault: Fault | None) -> None:
    with LabHub() as hub:
        commit = hub.add_repo("org/tiny", whole)
        if fault is not None:
            hub.fail("*.safetensors", fault)
        asked = Hub(hub.endpoint, None, tmp_path / "cache")
        found = inspect(HubSource(asked, asked.manifest("org/tiny", commit)))
        assert found.shares == seen(whole).shares
        assert found.faults == ()
        asked_of_shards = [each for each in hub.requests if each.file.endswith(".safetensors") and each.status < 300]
        assert len(asked_of_shards) == len(list(whole.glob("*.safetensors")))


def test_a_token_goes_to_the_hub_and_not_to_the_store_behind_it(whole: Path, tmp_path: Path) -> None:
    with LabHub() as hub:
        commit = hub.add_repo("org/tiny", whole, private=True)
        hub.grant("hf_secret", "org/tiny")
        asked = Hub(hub.endpoint, Secret("hf_secret"), tmp_path / "cache")
        assert inspect(HubSource(asked, asked.manifest("org/tiny", commit))).faults == ()
        assert {each.authorization for each in hub.requests if each.origin == "store"} == {None}


def test_the_command_tells_faults_by_its_status_and_in_json(copy: Path) -> None:
    from click.testing import CliRunner

    from sparkops.cli.checkpoint import command

    run = CliRunner().invoke(command, ["inspect", str(copy), "--format", "json"], standalone_mode=False)
    assert run.return_value == 0
    answer = json.loads(run.output)
    assert answer["schema"] == "sparkops.checkpoint/1"
    shard(copy).write_bytes(b"")
    run = CliRunner().invoke(command, ["inspect", str(copy), "--no-color"], standalone_mode=False)
    assert run.return_value == 2
    assert "it ends after 0 bytes; fetch this file again" in run.output


def test_a_name_that_is_neither_a_folder_nor_a_repository_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with LabHub() as hub:
        assert run(["checkpoint", "inspect", "nosuch", "--endpoint", hub.endpoint]) == 1
    assert "has no repository nosuch, or it is private, and no such folder here" in capsys.readouterr().err


HOSTILE = {
    "lists": b'{"a": ' + b"[]," * 8_000_000,
    "metadata": b'{"__metadata__": {"a": [' + b"[]," * 8_000_000,
    "texts": b'{"a": {"dtype": "U8", "shape": [' + b'"aa",' * 4_000_000,
    "members": b'{"a": {' + b",".join(b'"%x":1' % n for n in range(2_000_000)),
    "same name": b"{" + b'"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},' * 450_000,
    "overlaps": b"{%s}" % b",".join(b'"%x":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}' % n for n in range(60_000)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_header_is_refused_in_bounded_memory(tmp_path: Path, kind: str) -> None:
    """Four of them at once, each as large as a header may be: measured in a process of its own."""
    text = HOSTILE[kind][:25_000_000]
    for number in range(4):
        (tmp_path / f"{number}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    code = (
        "import re, sys; from pathlib import Path;"
        "from sparkops.checkpoints.inspect import FolderSource, inspect;"
        "most = lambda: int(re.search('VmHWM:.* ([0-9]+) kB', Path('/proc/self/status').read_text())[1]) >> 10;"
        "before = most();"
        "found = inspect(FolderSource(Path(sys.argv[1])));"
        "print(len(found.faults), most() - before)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    faults, mebibytes = map(int, out.split())
    assert faults >= 4
    assert mebibytes < 256


def test_with_an_inventory_the_repository_is_asked_for_as_it_is_declared(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At its hub, with its token, at its commit; what no service declares at the inventory's only hub."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LAB_TOKEN", "hf_secret")
    with LabHub() as hub:
        for repository in ("org/tiny", "org/other"):
            hub.add_repo(repository, whole)
        hub.grant("hf_secret", "org/tiny")
        path = tmp_path / "inventory.yml"
        path.write_text(
            "version: 1\ncluster: x\nnodes: {a: }\nservices: {s: {nodes: [a], image: {pull: 'a/b:1'}, checkpoint: "
            f"{{repository: org/tiny, endpoint: '{hub.endpoint}', token: !env LAB_TOKEN}}}}}}\n"
        )
        for repository in ("org/tiny", "org/other"):
            status = run(["checkpoint", "inspect", repository, "-i", str(path), "--format", "json"])
            assert status == 0, capsys.readouterr().err
        assert {each.authorization for each in hub.requests_for("config.json") if each.origin == "hub"} == {
            "Bearer hf_secret"
        }
        path.write_text("version: 1\ncluster: x\nnodes: {a: }\n")
        assert run(["checkpoint", "inspect", "org/tiny", "-i", str(path)]) == 1
        assert "error[checkpoint-hub-ambiguous]" in capsys.readouterr().err
