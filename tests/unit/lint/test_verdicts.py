"""Lint and what it takes for effective, held against the engine's own code: every verdict, its words, its values."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkops.lint.case import Case
from sparkops.lint.check import check
from sparkops.models.architecture.geometry import Geometry, of_config
from sparkops.models.architecture.quantisation import of_config as of_checkpoint
from sparkops.models.effective import speculative
from sparkops.models.engine import engine
from sparkops.models.serve_line import parse

RIGHT = 0.98
FIELDS = {
    "block_size": "block_size",
    "mamba_cache_mode": "mamba_cache_mode",
    "enable_prefix_caching": "enable_prefix_caching",
    "max_num_batched_tokens": "max_num_batched_tokens",
    "max_num_seqs": "max_num_seqs",
    "max_model_len": "max_model_len",
    "gpu_memory_utilization": "gpu_memory_utilization",
    "cache_dtype": "kv_cache_dtype",
    "attention_backend": "attention_backend",
    "executor": "executor",
    "cudagraph_mode": "cudagraph_mode",
    "max_cudagraph_capture_size": "max_capture_size",
    "v2_model_runner": "model_runner_v2",
}
"""The engine's name for a resolved value, and ours."""

NUMBER = re.compile(r"(?<![\w.])-?\d+(?![\w.])")
UNSAID = {"kv-nvfp4": "256", "qflag-bf16-online": "1"}
"""Numbers in the engine's words that say nothing to a user: a head size, and a count of missing Python arguments."""


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(__file__).parent / "verdicts.json").read_text())
    content["geometries"] = {name: of_config(config) for name, config in content["models"].items()}
    return content


def rows(verdicts: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, Case, str | None]]:
    """Every case in every version: the case, the version, what lint looks at, the engine's error."""
    for case in verdicts["cases"]:
        errors = {version: error for error, held in case["rejected"].items() for version in held.split()}
        for version in [*case["accepted"].split(), *errors]:
            yield case, version, looked_at(verdicts, case, version), errors.get(version)


def looked_at(verdicts: dict[str, Any], case: dict[str, Any], version: str) -> Case:
    listed = engine(version)
    line = parse(["vllm", "serve", f"MODELS/{case['model']}", *case["args"]], listed)
    wanted = speculative(line)
    return Case(
        line=line,
        engine=listed,
        geometry=verdicts["geometries"][case["model"]],
        drafter=geometry(verdicts, wanted.model if wanted else None),
        quantisation=of_checkpoint(verdicts["models"][case["model"]]),
        env=case["env"],
        gpus=case["gpus"],
    )


def geometry(verdicts: dict[str, Any], model: str | None) -> Geometry | None:
    found: Geometry | None = verdicts["geometries"].get((model or "").removeprefix("MODELS/"))
    return found


def resolved(case: dict[str, Any], name: str, version: str) -> Any:
    value = case["resolved"].get(name)
    if not isinstance(value, dict):
        return value
    return next((json.loads(text) for text, held in value.items() if version in held.split()), None)


def test_nothing_that_the_engine_accepts_is_refused_and_what_it_refuses_is(verdicts: dict[str, Any]) -> None:
    false, missed, total = [], [], 0
    for case, version, each, error in rows(verdicts):
        refusals = [found for found in check(each) if found.severity == "error"]
        total += 1
        if error is None and refusals:
            false.append(f"{case['case']} in {version}: {refusals[0].id}")
        if error is not None and not refusals:
            missed.append(f"{case['case']} in {version}: {error}")
    assert total > 2000
    assert false == []
    assert len(missed) <= (1 - RIGHT) * total, missed[:20]
    assert missed == []


def test_a_refusal_names_the_numbers_that_the_engine_names(verdicts: dict[str, Any]) -> None:
    unnamed = Counter()
    for case, version, each, error in rows(verdicts):
        if error is None:
            continue
        words = " ".join(found.message for found in check(each) if found.severity == "error")
        named = NUMBER.findall(error.replace("1 validation error", ""))
        missing = {number for number in named if number not in words} - {UNSAID.get(case["case"], "")}
        if missing:
            unnamed[f"{case['case']} in {version}: {missing}"] += 1
    assert not unnamed


def test_what_is_taken_for_effective_is_what_the_engine_resolved(verdicts: dict[str, Any]) -> None:
    different = []
    for case, version, each, error in rows(verdicts):
        if error is not None:
            continue
        for theirs, ours in FIELDS.items():
            wanted, got = resolved(case, theirs, version), getattr(each.effective, ours)
            if wanted != got and not (theirs == "v2_model_runner" and wanted is None):
                different.append(f"{case['case']} in {version}: {theirs} is {wanted!r}, not {got!r}")
        found = each.effective.speculative
        wanted = (resolved(case, "spec_method", version), resolved(case, "num_spec", version))
        if wanted != ((found.method, found.tokens) if found else (None, None)):
            different.append(f"{case['case']} in {version}: speculation is {wanted}, not {found}")
    assert different == []
