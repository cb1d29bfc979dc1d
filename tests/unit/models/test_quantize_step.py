"""The declared step `quantize`: what it means, and that role and code say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sparkops.models import build_steps, quantize_step

ROLE = Path(__file__).parents[3] / "roles" / "checkpoint" / "role.yml"


def test_the_roles_defaults_are_those_of_the_code() -> None:
    steps = yaml.safe_load(ROLE.read_text())["variables"]["properties"]["steps"]
    told = steps["items"]["properties"]["quantize"]["properties"]
    assert {name: each["default"] for name, each in told.items() if name != "image"} == quantize_step.DEFAULTS


@pytest.mark.parametrize(
    ("said", "id"),
    [
        ({"image": None, "network": True}, "step-option-missing"),
        ({}, "quantize-data-without-network"),
        ({"dataset": "/srv/texts.txt"}, "quantize-data-not-json"),
        ({"plain_rtn": True, "network": True}, "quantize-iterations-of-plain-rtn"),
        ({"network": True, "layer_config": {"(": {"bits": 8}}}, "quantize-layer-pattern-invalid"),
    ],
)
def test_what_can_not_be_is_told_where_it_is_declared(said: dict[str, Any], id: str) -> None:
    (fault,) = build_steps.faults([{"quantize": {"image": "local/auto-round:1", **said}}])
    assert (fault.name, fault.index) == ("quantize", 0)
    assert fault.id == id and fault.what and fault.hint


@pytest.mark.parametrize(
    ("said", "after", "id"),
    [
        ({"format": "llm_compressor"}, {"hybrid": {"donor": "org/fp8"}}, "quantize-format-before-step"),
        ({"scheme": "NVFP4"}, {"hybrid": {"donor": "org/fp8"}}, "quantize-scheme-before-step"),
        ({"scheme": "W2A16"}, {"repack": "compressed-tensors"}, "quantize-scheme-before-step"),
        ({"scheme": "W4A61"}, {"lm_head": "int8"}, "quantize-scheme-invalid"),
    ],
)
def test_what_a_later_step_would_refuse_hours_later_is_told_at_once(
    said: dict[str, Any], after: dict[str, Any], id: str
) -> None:
    (fault,) = build_steps.faults([{"quantize": {"image": "i", "network": True, **said}}, after])
    assert fault.id == id and fault.what and fault.hint
    others = {"format": "auto_gptq", "scheme": "w8a16g64"}
    assert not list(build_steps.faults([{"quantize": {"image": "i", "network": True, **others}}, {"mtp": {}}]))


@pytest.mark.parametrize("said", [{"network": True}, {"dataset": "/srv/texts.json"}, {"iters": 0, "plain_rtn": True}])
def test_what_can_be_is_not_complained_about(said: dict[str, Any]) -> None:
    assert list(build_steps.faults([{"quantize": {"image": "local/auto-round:1", **said}}])) == []


def test_what_changes_nothing_in_the_output_does_not_move_the_folder() -> None:
    one: list[dict[str, Any]] = [{"quantize": {"image": "i", "dataset": "/a.json"}}]
    other: list[dict[str, Any]] = [{"quantize": {"image": "i", "dataset": "/a.json", "memory": 90, "iters": 200}}]
    assert build_steps.digest(one) == build_steps.digest(other)
    assert build_steps.content(one) == build_steps.content(other)
    assert build_steps.digest(one) != build_steps.digest([{"quantize": {"image": "i", "dataset": "/b.json"}}])
