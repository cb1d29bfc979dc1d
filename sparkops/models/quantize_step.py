"""The step `quantize` of a build as it is declared: its options with their defaults, and what excludes what.

`programs/quantize/auto_round.py` makes a command line of them; their description for users is in
roles/checkpoint/role.yml.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

DEFAULTS: Mapping[str, object] = {
    "scheme": "W4A16",
    "format": "auto_round",
    "iters": 200,
    "nsamples": 128,
    "seqlen": 2048,
    "batch_size": 8,
    "group_size": None,
    "dataset": "NeelNanda/pile-10k",
    "network": False,
    "keep": [],
    "layer_config": {},
    "mtp": "keep",
    "plain_rtn": False,
    "low_gpu_mem_usage": False,
    "torch_compile": True,
    "gpu": True,
    "memory": None,
}
"""iters, nsamples, seqlen and dataset are AutoRound's own defaults (docs/step_by_step.md), batch_size its command
line's (auto-round 0.16.1). `mtp: keep` and `network: false` are ours."""
NO_MATTER = ("memory", "network")
"""Options that change nothing in what comes out."""


SCHEMES = frozenset(
    {f"W{bits}A16{group}" for bits in range(2, 9) for group in ("", "G64", "G32")}
    | {"W4A16_MIXED", "INT4", "INT8", "INT8_W8A8", "FP8_STATIC", "FP8_BLOCK", "FPW8A16", "BF16", "MXINT4"}
    | {"MXFP4", "MXFP4_RCEIL", "MXFP6", "MXFP8", "MXFP8_RCEIL", "NVFP4", "NVFP4_E5M3"}
)
"""auto-round 0.16.1, schemes.py: PRESET_SCHEMES without those of GGUF."""
_INTEGERS = re.compile(r"W\dA16(G\d+|_MIXED)?")
_REPACKED = re.compile(r"W[48]A16(G\d+|_MIXED)?")


def complete(options: Mapping[str, object]) -> dict[str, Any]:
    """All options, those that are not set from DEFAULTS."""
    return {**DEFAULTS, **{key: each for key, each in options.items() if each is not None}}


def content(options: Mapping[str, object]) -> dict[str, object]:
    """The options that decide what comes out."""
    return {key: each for key, each in complete(options).items() if key not in NO_MATTER}


def clashes(options: Mapping[str, object], others: Iterable[str]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """What of the options the steps after it (their names) would refuse, hours later: id and arguments of the error."""
    found = complete(options)
    scheme, form = str(found["scheme"]).upper(), found["format"]
    accepted = {
        "hybrid": (_INTEGERS, ("auto_round",), "W4A16"),
        "repack": (_REPACKED, ("auto_round", "auto_gptq"), "W4A16 or W8A16"),
    }
    for name in others:
        schemes, forms, usual = accepted.get(name, (None, (), ""))
        if schemes is None:
            continue
        if scheme in SCHEMES and not schemes.fullmatch(scheme):
            yield "quantize-scheme-before-step", {"step": name, "scheme": scheme, "expected": usual}
        if form not in forms:
            yield "quantize-format-before-step", {"step": name, "format": form, "expected": forms[0]}


def faults(options: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """What is wrong with options that have the right types: id and arguments of the error."""
    found = complete(options)
    if str(found["scheme"]).upper() not in SCHEMES:
        near = difflib.get_close_matches(str(found["scheme"]).upper(), sorted(SCHEMES), 1)
        suggestions = near or ["W4A16", "W8A16", "NVFP4"]
        yield "quantize-scheme-invalid", {"scheme": found["scheme"], "suggestions": suggestions}
    if found["plain_rtn"] and found["iters"]:
        yield "quantize-iterations-of-plain-rtn", {"iters": found["iters"]}
    dataset, rounds = str(found["dataset"]), found["plain_rtn"] and not found["iters"]
    if not rounds and not dataset.startswith("/") and not found["network"]:
        yield "quantize-data-without-network", {"dataset": dataset}
    if dataset.startswith("/") and not dataset.endswith((".json", ".jsonl")):
        yield "quantize-data-not-json", {"dataset": dataset}
    for pattern in found["layer_config"]:
        try:
            re.compile(pattern)
        except re.error as error:
            yield "quantize-layer-pattern-invalid", {"pattern": pattern, "text": str(error)}
