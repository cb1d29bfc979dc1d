"""Which layers become FP8: all that config.json promises or none, for both shapes, and what each refusal says."""

from __future__ import annotations

import copy
from array import array
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkops.core.messages import Refused
from sparkops.programs.build import step_hybrid
from sparkops.programs.build.autoround_config import bits
from sparkops.programs.build.step_hybrid import SampleCheck, apply, likeness
from sparkops.programs.build.tensor_plan import DonorTensors, PlannedTensor, Stored, TensorPlan
from tests.lab import model
from tests.worker import checkpoints_made as made


def entries(tensors: made.Tensors, origin: int) -> list[PlannedTensor]:
    return [
        PlannedTensor(name, dtype, shape, Stored(origin, "f", 0, len(data)))
        for name, (dtype, shape, data) in tensors.items()
    ]


def plan(
    geometry: model.Geometry = made.SMALL,
    base: Callable[[made.Tensors], None] = lambda tensors: None,
    donor: Callable[[made.Tensors], None] = lambda tensors: None,
    config: Callable[[dict[str, Any]], None] = lambda config: None,
) -> TensorPlan:
    mine, theirs = dict(_base(geometry)), dict(_donor(geometry))
    base(mine), donor(theirs)
    told = copy.deepcopy(made.autoround_config(geometry))
    config(told)
    tensors = {each.name: each for each in entries(theirs, 0)}
    return TensorPlan({"f": entries(mine, -1)}, told, [DonorTensors("o/fp8@abc", tensors, made.config(geometry))])


_base, _donor = cache(made.autoround), cache(made.fp8)
SHRUNK = {"num_hidden_layers": 3, "layer_types": None}
GROWN = {"num_hidden_layers": 5, "layer_types": None}
SHARED = {"donor": 0, "layers": "shared_expert"}


@pytest.mark.parametrize("geometry", [made.GEOMETRY, made.LARGE], ids=["256 experts", "512 experts"])
def test_three_layers_a_layer_are_replaced_and_nothing_else(geometry: model.Geometry) -> None:
    it = plan(geometry)
    before = {each.name: each for each in it.files["f"]}
    apply(it, SHARED)
    after = {each.name: each for each in it.files["f"]}
    assert len(it.files["f"]) == len(after)
    changed = {name for name in after if after[name] is not before.get(name)}
    weights = {name for name in changed if name.endswith(".weight")}
    assert len(weights) == 3 * geometry.num_hidden_layers
    assert changed == weights | {f"{name}_scale_inv" for name in weights}
    assert all("language_model" in name and ".mlp.shared_expert." in name for name in weights)
    assert set(before) <= set(after)
    assert it.config["sparkops"]["hybrid"]["modules"] == len(weights)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_one_layer_less_on_either_side_is_none_at_all(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(made.names(_donor(made.SMALL), "layers.2.mlp.shared_expert."))))
    side = data.draw(st.sampled_from(["base", "donor"]))
    if name.startswith("mtp.") or (side == "base" and name.endswith("scale_inv")):
        return
    it = plan(**{side: lambda tensors: tensors.pop(name)})
    before = list(it.files["f"])
    with pytest.raises(Refused) as refused:
        apply(it, SHARED)
    assert name.rpartition(".")[0] in str(refused.value)
    assert it.files["f"] == before


def reshaped(name: str, dtype: str, shape: tuple[int, ...]) -> Callable[[made.Tensors], None]:
    def change(tensors: made.Tensors) -> None:
        tensors[name] = (dtype, shape, b"")

    return change


LAYER = "model.language_model.layers.0"
GATE = f"{LAYER}.mlp.shared_expert.gate_proj"


@pytest.mark.parametrize(
    ("change", "options", "id"),
    [
        ({"donor": reshaped(f"{GATE}.weight", "BF16", (160, 136))}, SHARED, "hybrid-donor-not-fp8"),
        ({"donor": reshaped(f"{GATE}.weight", "F8_E4M3", (136, 160))}, SHARED, "hybrid-shapes-differ"),
        ({"donor": reshaped(f"{GATE}.weight_scale_inv", "F32", (1, 2))}, SHARED, "hybrid-donor-scale-shape"),
        ({"base": reshaped(f"{GATE}.weight", "F32", (160, 136))}, SHARED, "hybrid-base-not-16-bit"),
        ({"config": lambda c: c["text_config"].update(GROWN)}, SHARED, "hybrid-layers-missing"),
        ({"config": lambda c: c["text_config"].update(SHRUNK)}, SHARED, "hybrid-layers-unexpected"),
        ({"config": lambda c: c["quantization_config"].pop("extra_config")}, SHARED,
         "hybrid-config-contradicts-layers"),
        ({"config": lambda c: c.pop("quantization_config")}, SHARED, "hybrid-base-not-autoround"),
        ({}, {"donor": 0, "layers": "self_attn"}, "hybrid-base-already-quantized"),
        ({}, {"donor": 0, "layers": "mlp"}, "hybrid-routed-experts"),
        ({}, {"donor": 0, "layers": "shared_expert.gate_proj"}, "hybrid-fused-layers-split"),
        ({}, {"donor": 0, "layers": "mtp"}, "hybrid-no-layer-matches"),
        ({}, {"donor": 0, "layers": "norm|embed|lm_head|mlp.gate$"}, "hybrid-no-layer-matches"),
        ({}, {"donor": 0, "layers": "in_proj_[ab]"}, "hybrid-donor-not-fp8"),
        ({}, {"donor": 0, "layers": "("}, "hybrid-layers-invalid"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(change: dict[str, Any], options: dict[str, Any], id: str) -> None:
    with pytest.raises(Refused) as refused:
        apply(plan(**change), options)
    assert refused.value.id == id


def test_a_pattern_may_choose_some_layers_as_a_whole() -> None:
    it = plan()
    apply(it, {"donor": 0, "layers": r"layers\.[01]\.mlp\.shared_expert\."})
    assert it.config["sparkops"]["hybrid"]["modules"] == 6


@pytest.mark.parametrize(
    ("module", "wanted"),
    [("a.b.c", 4), ("a.x", 8), ("a.y.z", 16), ("q.a", 16), ("a.list", 4)],
)
def test_bits_are_read_as_the_engine_does(module: str, wanted: int) -> None:
    extra = {"a.x": {"bits": 8}, r".*\.y\..*": {"bits": 16}, "(": {"bits": 2}}
    assert bits({"bits": 4, "block_name_to_quantize": "a", "extra_config": extra}, module) == wanted


def samples(
    rows: int, columns: int, change: Callable[[bytes, bytes], tuple[bytes, bytes]]
) -> tuple[SampleCheck, list[bytes]]:
    mine = made.weights("w", (rows, columns))
    eight, scale = change(*made.quantised(mine, (rows, columns)))
    blocks = (-(-rows // 128), -(-columns // 128))
    shapes = (("BF16", (rows, columns), mine), ("F8_E4M3", (rows, columns), eight), ("F32", blocks, scale))
    three = [PlannedTensor("w", dtype, shape, Stored(0, "", 0, len(data))) for dtype, shape, data in shapes]
    return SampleCheck(*three), [mine, eight, scale]


def check(sample: SampleCheck, data: list[bytes]) -> None:
    sample.check(lambda number, start, count: data[number][start : start + count])


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200))
def test_the_true_rounding_passes_the_gate(rows: int, columns: int) -> None:
    check(*samples(rows, columns, lambda eight, scale: (eight, scale)))


def test_an_inverse_scale_and_other_numbers_do_not() -> None:
    inverse = lambda eight, scale: (eight, array("f", [1 / each for each in array("f", scale)]).tobytes())  # noqa: E731
    with pytest.raises(Refused) as refused:
        check(*samples(160, 136, inverse))
    assert refused.value.id == "hybrid-scale-inverse"
    with pytest.raises(Refused) as refused:
        check(*samples(160, 136, lambda eight, scale: (eight[::-1], scale)))
    assert (refused.value.id, refused.value.values["tensor"]) == ("hybrid-sample-differs", "w")


def test_blocks_of_zeros_are_alike_and_only_those() -> None:
    assert likeness([0.0] * 4, [0.0] * 4) == (0.0, 1.0)
    assert likeness([0.0] * 4, [0.0, 0.1, 0.0, 0.0])[1] == 0.0
    assert likeness([1.0], [float("nan")])[1] == 0.0


def test_each_e4m3_number_is_where_it_belongs() -> None:
    numbers = step_hybrid.e4m3()
    assert (numbers[0x38], numbers[0x7E], numbers[0x01], numbers[0xB8]) == (1.0, 448.0, 2.0**-9, -1.0)
    assert numbers[0x7F] != numbers[0x7F]
