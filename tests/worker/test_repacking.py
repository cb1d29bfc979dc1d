"""A repack moves every word of a quantized checkpoint and changes no value; what it can't move so is refused."""

from __future__ import annotations

import json
import random
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkops.core.messages import Refused
from sparkops.programs.build import packed_tensors, step_repack
from sparkops.programs.build.packed_tensors import InputOrderCheck, Offset, Shape, SymmetricZerosCheck, Transposed
from sparkops.programs.build.quantization_config import Scheme, patterns
from sparkops.programs.build.tensor_plan import PlannedTensor
from tests.errors import fails
from tests.lab.hub import Hub
from tests.lab.model import Geometry
from tests.worker import checkpoints_made as made
from tests.worker import quantized
from tests.worker.builds import Build, Donor
from tests.worker.checkpoints_made import Tensors
from tests.worker.quantized import MANY, SMALL, Memory

STEM = "model.language_model.layers"


def repacked(found: Tensors | None = None, said: dict[str, Any] | None = None) -> tuple[Memory, Tensors]:
    memory = Memory(found or quantized.tensors(), said or quantized.config())
    step_repack.apply(memory.plan, "compressed-tensors")
    memory.pass_checks()
    return memory, memory.tensors()


def entry_of(data: bytes, dtype: str, shape: tuple[int, ...]) -> tuple[Memory, PlannedTensor]:
    memory = Memory({"x": (dtype, shape, data)}, {}, files=1)
    return memory, next(iter(memory.plan.files.values()))[0]


def words_of(data: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(data) // 4}I", data))


def gptq_value(words: list[int], outputs: int, bits: int, output: int, place: int) -> int:
    """The integer of one weight as GPTQ packs it: words along the inputs."""
    per = 32 // bits
    return (words[place // per * outputs + output] >> bits * (place % per)) % (1 << bits) - (1 << bits - 1)


def packed_value(words: list[int], inputs: int, bits: int, output: int, place: int) -> int:
    """The same as compressed-tensors packs it: words along a row."""
    per = 32 // bits
    return (words[output * inputs // per + place // per] >> bits * (place % per)) % (1 << bits) - (1 << bits - 1)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["I32", "F16"]), st.integers(1, 300), st.randoms())
def test_a_block_by_block_transpose_is_the_transpose(
    rows: int, columns: int, dtype: str, band: int, draw: random.Random
) -> None:
    item = 4 if dtype == "I32" else 2
    data = draw.randbytes(rows * columns * item)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_tensors, "BAND", band)
        patch.setattr(packed_tensors, "TILE", 7)
        memory, entry = entry_of(data, dtype, (rows, columns))
        turned = memory.bytes_of(PlannedTensor("y", dtype, (columns, rows), Transposed(entry)))
    items = [data[place : place + item] for place in range(0, len(data), item)]
    assert turned == b"".join(items[row * columns + column] for column in range(columns) for row in range(rows))
    assert packed_tensors.transpose(turned, columns, item) == data


@pytest.mark.parametrize("bits", [4, 8])
@given(st.integers(1, 4), st.integers(1, 4), st.randoms())
@settings(max_examples=30)
def test_no_integer_changes(bits: int, groups: int, wide: int, draw: random.Random) -> None:
    outputs, inputs = 32 * wide, 32 * groups
    found = quantized.integers("a.x", (outputs, inputs), draw, bits=bits)
    _, after = repacked(found, quantized.config(bits=bits, extra_config=None))
    before = words_of(found["a.x.qweight"][2])
    dtype, shape, data = after["a.x.weight_packed"]
    assert (dtype, shape) == ("I32", (outputs, inputs * bits // 32))
    assert after["a.x.weight_shape"][2] == struct.pack("<qq", outputs, inputs)
    packed = words_of(data)
    for _ in range(100):
        output, place = draw.randrange(outputs), draw.randrange(inputs)
        value = gptq_value(before, outputs, bits, output, place)
        assert packed_value(packed, inputs, bits, output, place) == value


@given(st.binary(min_size=4, max_size=64).map(lambda data: data[: len(data) // 4 * 4]))
def test_an_int8_row_keeps_its_values(data: bytes) -> None:
    memory, entry = entry_of(data, "I8", (1, len(data)))
    made = memory.bytes_of(PlannedTensor("y", "I32", (1, len(data) // 4), Offset(entry)))
    values = struct.unpack(f"<{len(data)}b", data)
    assert [packed_value(words_of(made), len(data), 8, 0, place) for place in range(len(data))] == list(values)


def test_an_int8_matrix_that_is_made_is_made_once() -> None:
    _, inner = entry_of(bytes(8), "I8", (2, 4))
    once = PlannedTensor("y", "I32", (2, 1), Offset(inner))
    assert Offset(once).blocks() == once.content.blocks()  # type: ignore[union-attr]


@pytest.mark.parametrize(("bits", "stored", "bad"), [(4, 7, 0x87), (4, 8, 0x78), (8, 127, 0x80), (8, 128, 0x7F)])
def test_another_zero_point_is_refused(bits: int, stored: int, bad: int) -> None:
    right = bytes([stored * 0x11 if bits == 4 else stored]) * 64
    memory, entry = entry_of(right, "I32", (4, 4))
    SymmetricZerosCheck(entry, bits, stored).check(memory.reader(SymmetricZerosCheck(entry, bits, stored)))
    wrong = right[:50] + bytes([bad]) + right[51:]
    memory, entry = entry_of(wrong, "I32", (4, 4))
    check = SymmetricZerosCheck(entry, bits, stored)
    with fails("repack-zero-points-not-symmetric", Refused) as refused:
        check.check(memory.reader(check))
    assert isinstance(refused.value, Refused)
    assert (refused.value.values["tensor"], refused.value.values["expected"]) == ("x", stored)


def test_inputs_in_another_order_are_refused() -> None:
    plain = [place // 32 for place in range(96)]
    for order in (plain, [*plain[1:], plain[0]]):
        memory, entry = entry_of(struct.pack("<96i", *order), "I32", (96,))
        check = InputOrderCheck(entry, 32)
        if order == plain:
            check.check(memory.reader(check))
            continue
        with fails("repack-input-order", Refused):
            check.check(memory.reader(check))


@pytest.mark.parametrize("geometry", [SMALL, MANY, replace(MANY, num_experts=512)], ids=lambda each: each.num_experts)
def test_a_whole_checkpoint_becomes_one_of_compressed_tensors(geometry: Geometry) -> None:
    before = quantized.tensors(geometry)
    memory, after = repacked(before, quantized.config(geometry))
    assert not [name for name in after if name.endswith((".qweight", ".qzeros", ".scales", ".g_idx", "_scale_inv"))]
    for name, tensor in before.items():
        if tensor[0] in ("BF16", "F8_E4M3"):
            assert after[name] == tensor
        if name.endswith(".weight_scale_inv"):
            assert after[name.removesuffix("_inv")] == tensor
    assert after["lm_head.weight_scale"] == before["lm_head.weight_scale"]
    assert after["lm_head.weight_packed"][1] == (geometry.vocab_size, geometry.hidden_size // 4)
    scales = before[f"{STEM}.0.mlp.experts.3.up_proj.scales"][2]
    turned = after[f"{STEM}.0.mlp.experts.3.up_proj.weight_scale"]
    shape = geometry.moe_intermediate_size, geometry.hidden_size // quantized.GROUP
    assert turned == ("F16", shape, packed_tensors.transpose(scales, shape[1], 2))
    id, args = memory.plan.notices[-1]
    assert id == "build-repack-layers"
    assert args["schemes"].startswith("INT4 in groups of 32: ")


def test_the_configuration_tells_each_layer_by_one_group_and_nothing_twice() -> None:
    memory, after = repacked()
    said = memory.plan.config["quantization_config"]
    assert (said["quant_method"], said["format"]) == ("compressed-tensors", "mixed-precision")
    groups = list(said["config_groups"].values())
    assert len(groups) == 4
    for name, (dtype, shape, _) in after.items():
        module, _, piece = name.rpartition(".")
        if piece not in ("weight", "weight_packed") or len(shape) != 2 or module.endswith("embed_tokens"):
            continue
        for served in engine_names(module):
            fitting = [group for group in groups if fits(group["targets"], served)]
            assert len(fitting) == (dtype in ("I32", "F8_E4M3")), served
            assert fits(said["ignore"], served) == (not fitting), served
    assert groups[-1]["weights"] == {
        "num_bits": 8, "type": "int", "symmetric": True, "dynamic": False, "strategy": "channel",
    }  # fmt: skip


def fits(targets: list[str], name: str) -> bool:
    """As vLLM and compressed-tensors match: from the beginning of the name."""
    return any(re.match(target.removeprefix("re:"), name) for target in targets)


def engine_names(module: str) -> list[str]:
    """What transformers and vLLM call a layer, as the multimodal model and as the text model."""
    text = module.replace("model.language_model.", "model.")
    both = module.replace("model.language_model.", "language_model.model.").replace("lm_head", "language_model.lm_head")
    return [module, text, both]


layers = st.dictionaries(
    st.builds(
        "{}{}.{}".format,
        st.sampled_from(["model.language_model.layers.", "mtp.layers."]),
        st.integers(0, 12),
        st.sampled_from(
            ["self_attn.q_proj", "mlp.gate", "mlp.experts.0.up_proj", "mlp.experts.1.up_proj", "mlp.experts.10.up_proj"]
        ),
    ),
    st.sampled_from([None, Scheme("int", 4, 128), Scheme("int", 8, 128), Scheme("float", 8, 128)]),
)


@given(layers)
def test_patterns_fit_the_layers_of_their_scheme_and_no_others(schemes: dict[str, Scheme | None]) -> None:
    found = patterns(schemes)
    for name, scheme in schemes.items():
        assert [each for each, told in found.items() if fits(told, name)] == [scheme], name


def test_a_base_alone_is_one_format() -> None:
    memory, after = repacked(quantized.tensors(fp8=False, head=False))
    said = memory.plan.config["quantization_config"]
    assert said["format"] == "pack-quantized"
    assert fits(said["ignore"], "language_model.lm_head")
    assert fits(said["ignore"], f"{STEM}.0.mlp.shared_expert.up_proj")
    assert fits(said["ignore"], "mtp.layers.0.self_attn.q_proj")
    assert after["lm_head.weight"][0] == "BF16"


def test_zeros_stored_as_they_are_belong_to_the_packings_that_store_them_so() -> None:
    plain = quantized.tensors(stored_less_one=False)
    repacked(plain, quantized.config(packing_format="auto_round"))
    with fails("repack-zero-points-not-symmetric", Refused):
        repacked(plain)


def test_gptq_names_its_exceptions_by_patterns() -> None:
    dynamic = {r"+:.*layers\.1\.linear_attn\.in_proj.*": {"bits": 8}, r"-:mtp\..*": {}}
    said = quantized.config(quant_method="gptq", desc_act=False, dynamic=dynamic, extra_config=None)
    repacked(None, said)
    with fails("repack-shapes-contradict-config", Refused):
        repacked(None, quantized.config(quant_method="gptq", desc_act=False, dynamic={}, extra_config=None))


@pytest.mark.parametrize(
    ("said", "id"),
    [
        ({"packing_format": "auto_round:auto_awq"}, "repack-packing-unsupported"),
        ({"quant_method": "awq"}, "repack-method-unsupported"),
        ({"quant_method": "compressed-tensors"}, "repack-already-compressed-tensors"),
        ({"bits": 3}, "repack-bits-unsupported"),
        ({"sym": False}, "repack-not-symmetric"),
        ({"quant_method": "gptq", "desc_act": True}, "repack-activation-order"),
        ({"group_size": 64}, "repack-shapes-contradict-config"),
        ({"data_type": "mx_fp"}, "repack-data-type-unsupported"),
        ({"extra_config": {"(": {"bits": 8}}}, "repack-pattern-invalid"),
    ],
)
def test_a_configuration_that_cannot_be_repacked_is_refused_before_any_byte(said: dict[str, Any], id: str) -> None:
    memory = Memory(quantized.tensors(), quantized.config(**said))
    files = memory.plan.files
    with pytest.raises(Refused) as refused:
        step_repack.apply(memory.plan, "compressed-tensors")
    assert refused.value.id == id
    assert memory.plan.files is files


@pytest.mark.parametrize(
    ("name", "tensor", "id"),
    [
        (f"{STEM}.0.mlp.shared_expert.up_proj.weight_scale_inv", ("F32", (2, 1), bytes(8)), "repack-fp8-scales"),
        (f"{STEM}.0.mlp.shared_expert.up_proj.weight_scale_inv", None, "repack-layer-tensor-missing"),
        (f"{STEM}.0.mlp.experts.1.up_proj.scales", None, "repack-layer-tensor-missing"),
        (f"{STEM}.0.mlp.experts.1.up_proj.qweight", None, "repack-layer-form-unknown"),
        (f"{STEM}.0.mlp.experts.1.up_proj.weight", ("BF16", (1, 1), bytes(2)), "repack-layer-tensor-unexpected"),
        (f"{STEM}.0.mlp.gate.weight_packed", ("I32", (1, 1), bytes(4)), "repack-tensor-form-unknown"),
        (f"{STEM}.0.mlp.experts.gate_up_proj", ("F8_E4M3", (1, 1), bytes(1)), "repack-tensor-unknown"),
        ("lm_head.weight_scale", ("F32", (1, 1), bytes(4)), "repack-int8-scales"),
        (f"{STEM}.0.mlp.gate.weight", ("U8", (8, 1), bytes(8)), "repack-layer-form-unknown"),
        (f"{STEM}.0.mlp.experts.1.up_proj.g_idx", ("I32", (3,), bytes(12)), "repack-order-shape"),
    ],
)
def test_a_layer_that_is_not_whole_is_named(name: str, tensor: Any, id: str) -> None:
    found = quantized.tensors()
    found.pop(name, None)
    if tensor:
        found[name] = tensor
    with pytest.raises(Refused) as refused:
        repacked(found)
    assert refused.value.id == id
    assert name.rpartition(".")[0] in str(refused.value)


def test_layers_that_run_as_one_must_be_alike() -> None:
    draw = random.Random(1)
    found = quantized.tensors()
    one = f"{STEM}.3.self_attn.k_proj"
    shape = found[f"{one}.qweight"][1]
    found |= quantized.integers(one, (shape[1], shape[0] * 8), draw, bits=8)
    said = quantized.config()
    said["quantization_config"]["extra_config"][one] = {"bits": 8}
    with fails("repack-fused-layers-differ", Refused) as refused:
        repacked(found, said)
    assert one in str(refused.value)


def test_a_plain_order_of_inputs_is_left_out() -> None:
    found = quantized.tensors()
    one = f"{STEM}.0.mlp.experts.1.up_proj"
    found[f"{one}.g_idx"] = "I32", (128,), struct.pack("<128i", *(place // 32 for place in range(128)))
    _, after = repacked(found)
    assert f"{one}.g_idx" not in after


def test_a_shape_is_two_numbers() -> None:
    assert Shape(3, 5).block(0, 16, lambda *_: b"") == struct.pack("<qq", 3, 5)


def test_a_build_writes_it_with_its_index_and_its_configuration(tmp_path: Path) -> None:
    base = made.save(tmp_path / "base", quantized.tensors(head=False), quantized.config())
    (base / "quantization_config.json").write_text(json.dumps(quantized.config()["quantization_config"]))
    Build(base, tmp_path / "built", [{"lm_head": "int8"}, {"repack": "compressed-tensors"}]).run()
    written = made.load(tmp_path / "built")
    said = json.loads((tmp_path / "built/config.json").read_text())
    index = json.loads((tmp_path / "built/model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == written.keys()
    assert said["quantization_config"]["quant_method"] == "compressed-tensors"
    assert json.loads((tmp_path / "built/quantization_config.json").read_text()) == said["quantization_config"]
    _, expected = repacked(quantized.tensors(head=False))
    assert {name: written[name] for name in expected if not name.startswith("lm_head")} == {
        name: tensor for name, tensor in expected.items() if not name.startswith("lm_head")
    }
    assert written["lm_head.weight_packed"][:2] == ("I32", (512, 32))


def test_a_build_of_a_base_with_another_zero_point_writes_nothing(tmp_path: Path) -> None:
    base = made.save(tmp_path / "base", quantized.tensors(stored_less_one=False), quantized.config())
    with fails("repack-zero-points-not-symmetric", Refused):
        Build(base, tmp_path / "built", [{"repack": "compressed-tensors"}]).run()
    assert not list((tmp_path / "built").rglob("*.safetensors"))


def test_a_repack_ends_all_other_steps(tmp_path: Path) -> None:
    base = made.save(tmp_path / "base", made.autoround(made.SMALL, mtp=False), made.autoround_config(made.SMALL))
    folders = {"Qwen/fp8": made.fp8(made.SMALL), "Qwen/bf16": made.bf16(made.SMALL)}
    steps = [{"hybrid": {"donor": 0, "layers": "shared_expert"}}, {"mtp": {"donor": 1}}, {"lm_head": "int8"}]
    with Hub() as hub:
        donors = []
        for name, found in folders.items():
            folder = made.save(tmp_path / name, found, made.config(made.SMALL))
            donors.append(Donor(name, folder, hub, hub.add_repo(name, folder)))
        Build(base, tmp_path / "built", [*steps, {"repack": "compressed-tensors"}], donors).run()
    written = made.load(tmp_path / "built")
    said = json.loads((tmp_path / "built/config.json").read_text())["quantization_config"]
    shared = f"{STEM}.2.mlp.shared_expert.up_proj"
    assert written[f"{shared}.weight_scale"] == folders["Qwen/fp8"][f"{shared}.weight_scale_inv"]
    assert written["mtp.fc.weight"] == folders["Qwen/bf16"]["mtp.fc.weight"]
    assert "re:mtp\\." in said["ignore"]
    assert [group["format"] for group in said["config_groups"].values()].count("pack-quantized") == 2
