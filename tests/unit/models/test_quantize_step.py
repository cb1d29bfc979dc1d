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
    ("said", "what"),
    [
        ({"image": None, "network": True}, "lacks its image"),
        ({}, "is on the hub"),
        ({"dataset": "/srv/texts.txt"}, "neither .json nor .jsonl"),
        ({"plain_rtn": True, "network": True}, "200 iterations"),
        ({"network": True, "layer_config": {"(": {"bits": 8}}}, "no regular expression"),
    ],
)
def test_what_can_not_be_is_told_where_it_is_declared(said: dict[str, Any], what: str) -> None:
    (fault,) = build_steps.faults([{"quantize": {"image": "local/auto-round:1", **said}}])
    assert (fault.name, fault.index) == ("quantize", 0)
    assert what in fault.what and fault.hint


@pytest.mark.parametrize(
    ("said", "after", "what"),
    [
        ({"format": "llm_compressor"}, {"hybrid": {"donor": "org/fp8"}}, "hybrid can't follow the format"),
        ({"scheme": "NVFP4"}, {"hybrid": {"donor": "org/fp8"}}, "hybrid can't follow the scheme"),
        ({"scheme": "W2A16"}, {"repack": "compressed-tensors"}, "repack can't follow the scheme"),
        ({"scheme": "W4A61"}, {"lm_head": "int8"}, "no scheme W4A61"),
    ],
)
def test_what_a_later_step_would_refuse_hours_later_is_told_at_once(
    said: dict[str, Any], after: dict[str, Any], what: str
) -> None:
    (fault,) = build_steps.faults([{"quantize": {"image": "i", "network": True, **said}}, after])
    assert what in fault.what and fault.hint
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
