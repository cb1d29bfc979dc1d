"""MTP layers: kept where whole, grafted whole where not, never in part and never quantised."""

from __future__ import annotations

from typing import Any

import pytest

from sparkops.core.messages import Refused
from sparkops.programs.build import step_mtp
from sparkops.programs.build.autoround_config import bits
from sparkops.programs.build.tensor_plan import DonorTensors, PlannedTensor, Stored, TensorPlan
from tests.lab import model
from tests.worker import checkpoints_made as made


def entries(geometry: model.Geometry, origin: int, dtype: str = "BF16") -> list[PlannedTensor]:
    return [
        PlannedTensor(
            each.name, dtype if each.name.startswith("mtp.") else "BF16", tuple(each.shape), Stored(origin, "f", 0, 2)
        )
        for each in model.tensors(geometry)
    ]


def plan(
    geometry: model.Geometry, own: list[PlannedTensor], theirs: list[PlannedTensor] | None = None, **config: Any
) -> TensorPlan:
    donor = DonorTensors("o/bf16@abc", {each.name: each for each in theirs or []}, made.config(geometry))
    told = {**made.autoround_config(geometry), **config}
    return TensorPlan({"f": own}, told, [donor])


def mtp(it: TensorPlan) -> dict[str, str]:
    return {each.name: file for file, all_ in it.files.items() for each in all_ if each.name.startswith("mtp.")}


@pytest.mark.parametrize(("geometry", "count"), [(made.GEOMETRY, 785), (made.LARGE, 1553)], ids=["256", "512 experts"])
def test_what_the_base_lacks_comes_whole_from_the_donor(geometry: model.Geometry, count: int) -> None:
    some = [each for each in entries(geometry, -1) if "mtp." not in each.name or "expert" not in each.name]
    it = plan(geometry, some, entries(geometry, 0))
    step_mtp.apply(it, {"donor": 0})
    assert len(mtp(it)) == count
    assert set(mtp(it).values()) == {"model-mtp.safetensors"}
    assert all(each.content.origin == 0 for each in it.files["model-mtp.safetensors"])  # type: ignore[union-attr]


def test_what_is_whole_is_kept_and_no_donor_needed() -> None:
    own = entries(made.SMALL, -1)
    it = plan(made.SMALL, own)
    step_mtp.apply(it, None)
    assert it.files == {"f": own}
    assert it.notices == [("build-mtp-kept", {"tensors": len(mtp(it))})]


def test_large_ones_are_split_over_several_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_mtp, "LARGEST", 60_000)
    it = plan(made.SMALL, [], entries(made.SMALL, 0))
    step_mtp.apply(it, {"donor": 0})
    files = sorted(set(mtp(it).values()))
    assert len(files) > 2
    assert files[0] == f"model-mtp-00001-of-{len(files):05}.safetensors"
    assert len(mtp(it)) == 17 + 3 * made.SMALL.num_experts


def test_a_base_that_says_nothing_of_mtp_learns_it_from_the_donor() -> None:
    config = made.autoround_config(made.SMALL)
    config["text_config"] = {**config["text_config"], "mtp_num_hidden_layers": 0}
    it = plan(made.SMALL, [], entries(made.SMALL, 0), **config)
    step_mtp.apply(it, {"donor": 0})
    assert it.text_config["mtp_num_hidden_layers"] == 1


def test_experts_that_are_kept_fused_are_whole_too() -> None:
    theirs = [each for each in entries(made.SMALL, 0) if ".experts." not in each.name]
    theirs += [
        PlannedTensor(f"mtp.layers.0.mlp.experts.{kind}", "BF16", (4, 8, 8), Stored(0, "f", 0, 2))
        for kind in ("gate_up_proj", "down_proj")
    ]
    it = plan(made.SMALL, [], theirs)
    step_mtp.apply(it, {"donor": 0})
    assert len(mtp(it)) == 19


@pytest.mark.parametrize(
    ("theirs", "id"),
    [
        (entries(made.SMALL, 0, "F8_E4M3"), "mtp-not-16-bit"),
        (entries(made.SMALL, 0)[:-1], "mtp-tensors-missing"),
        (entries(made.GEOMETRY, 0), "mtp-tensors-unexpected"),
        ([], "mtp-absent"),
    ],
    ids=["fp8", "one missing", "another model's", "none"],
)
def test_a_donor_that_does_not_fit_is_refused(theirs: list[PlannedTensor], id: str) -> None:
    it = plan(made.SMALL, [], theirs)
    with pytest.raises(Refused) as refused:
        step_mtp.apply(it, {"donor": 0})
    assert (refused.value.id, refused.value.values["checkpoint"]) == (id, "donor o/bf16@abc")
    assert it.files == {"f": []}


def test_without_a_donor_an_incomplete_base_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        step_mtp.apply(plan(made.SMALL, entries(made.SMALL, -1)[:-1]), None)
    assert (refused.value.id, refused.value.values["checkpoint"]) == ("mtp-tensors-missing", "base")


def test_the_config_says_that_mtp_is_not_quantised_where_it_said_otherwise() -> None:
    it = plan(made.SMALL, [], entries(made.SMALL, 0))
    it.config["quantization_config"] |= {"block_name_to_quantize": None}
    it.config["quantization_config"]["extra_config"]["mtp.fc"] = {"bits": 8}
    step_mtp.apply(it, {"donor": 0})
    config = it.config["quantization_config"]
    assert {bits(config, name.removesuffix(".weight")) for name in mtp(it)} == {16}
    gptq = plan(made.SMALL, [], entries(made.SMALL, 0), quantization_config={"quant_method": "gptq", "bits": 4})
    step_mtp.apply(gptq, {"donor": 0})
    assert gptq.config["quantization_config"]["dynamic"] == {r"-:^mtp\..*": {}}
    with pytest.raises(Refused) as refused:
        step_mtp.apply(
            plan(made.SMALL, [], entries(made.SMALL, 0), quantization_config={"quant_method": "awq"}), {"donor": 0}
        )
    assert refused.value.id == "mtp-method-unknown"
