"""Lint held against the command line of a real engine 0.32.0, of which some lines were also started and asked once.

A line that was started is judged by how the start ended; else by the engine's configuration. Prints what is right, what
lint does not know (null: it refuses nothing), and what is wrong.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sparkops.lint.case import Case
from sparkops.lint.check import check
from sparkops.models.architecture.geometry import of_config
from sparkops.models.architecture.quantisation import of_config as of_checkpoint
from sparkops.models.effective import speculative
from sparkops.models.engine import engine
from sparkops.models.serve_line import parse

RIGHT = 0.95
WITHOUT_GRAPHS = {
    "cg-sizes2": "a CPU captures no graphs; on a GPU the engine refuses these sizes (verdicts.json, cg-both)"
}
"""Lines whose verdict is the CPU's own."""

ONLY_THERE = {
    "sp-modelgone": "a folder that is not on that machine",
    "hfcfgpath": "a folder that is not on that machine",
    "cfgfile": "a file that is not on that machine",
    "longtext": "words after `--` that were added to the line to start it",
}
"""Refusals that nobody can know from the line: null is right."""


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(__file__).parent / "cpu-verdicts.json").read_text())
    return content


def refused(row: dict[str, Any]) -> bool:
    """The last word on a line: of its start where it was started, else of its configuration."""
    started = row["started"]
    if started is not None:
        return not (started["state"] == "ready" and started["answered"])
    return bool(row["verdict"] == "rejected")


def errors(verdicts: dict[str, Any], row: dict[str, Any]) -> list[str]:
    listed = engine(verdicts["engine"])
    words = ["vllm", "serve", *([f"MODELS/{row['model']}"] if row["model"] else []), *row["args"]]
    line = parse(words, listed)
    known = verdicts["models"].get(row["model"])
    wanted = speculative(line)
    drafter = verdicts["models"].get((wanted.model or "").removeprefix("MODELS/")) if wanted else None
    case = Case(
        line=line,
        engine=listed,
        geometry=of_config(known["config"]) if known else None,
        drafter=of_config(drafter["config"]) if drafter else None,
        quantisation=of_checkpoint(known["config"] if known else {}),
        mtp_weights=known["mtp"] if known else None,
        env=row.get("env") or {},
    )
    return [found.id for found in check(case) if found.severity == "error"]


def test_values_are_judged_as_the_engine_judged_them(
    verdicts: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    values = json.loads((Path(__file__).parent / "cpu-values.json").read_text())
    rows = {
        name: [{"model": values["model"], "args": args} for args in values[name]] for name in ("accepted", "refused")
    }
    false = [row["args"] for row in rows["accepted"] if errors(verdicts, row) and not of_a_cpu(row["args"])]
    missed = [row["args"] for row in rows["refused"] if not errors(verdicts, row)]
    with capsys.disabled():
        print(f"\n{len(false)} of {len(rows['accepted'])} wrong, {len(missed)} of {len(rows['refused'])} null")
    assert false == []
    assert len(missed) <= (1 - RIGHT) * len(rows["refused"]), missed


def of_a_cpu(args: list[str]) -> bool:
    """Whether a CPU or the configuration alone takes what a GB10 refuses as it loads: attention of other devices, and a
    backend of quantised experts for unquantised ones."""
    text = " ".join(args).lower()
    return any(word in text for word in ("amx_mla", "xpu_mla_sparse", "triton_unfused"))


def test_lint_says_what_the_engine_said(verdicts: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    told: Counter[str] = Counter()
    false, missed = [], []
    for row in verdicts["rows"]:
        wrong, found = refused(row), errors(verdicts, row)
        told["right" if wrong == bool(found) else "wrong" if found else "null"] += 1
        if found and not wrong and row["id"] not in WITHOUT_GRAPHS:
            false.append(f"{row['id']}: {found}")
        if wrong and not found and row["id"] not in ONLY_THERE:
            missed.append(f"{row['id']}: {row['message']}")
    with capsys.disabled():
        print(f"\n{told['right']} right, {told['null']} null, {told['wrong']} wrong of {told.total()}")
    assert false == []
    assert missed == []
    assert told["right"] >= RIGHT * told.total()
