"""The step `quantize` of a build as it is declared: the defaults of its options, and what can't go together.

What the options become is the worker's business (`programs/quantize/auto_round.py`); their words for users are in
roles/checkpoint/role.yml.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

DEFAULTS: Mapping[str, Any] = {
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


def complete(options: Mapping[str, Any]) -> dict[str, Any]:
    """All options, those that are not set from DEFAULTS."""
    return {**DEFAULTS, **{key: each for key, each in options.items() if each is not None}}


def content(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide what comes out."""
    return {key: each for key, each in complete(options).items() if key not in NO_MATTER}


def clashes(options: Mapping[str, Any], others: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What of the options the steps behind it (their names) would refuse, hours later; and the way out."""
    found = complete(options)
    scheme, form = str(found["scheme"]).upper(), found["format"]
    takes = {
        "hybrid": (_INTEGERS, ("auto_round",), "W4A16"),
        "repack": (_REPACKED, ("auto_round", "auto_gptq"), "W4A16 or W8A16"),
    }
    for name in others:
        schemes, forms, usual = takes.get(name, (None, (), ""))
        if schemes is None:
            continue
        if scheme in SCHEMES and not schemes.fullmatch(scheme):
            yield f"the step {name} can't follow the scheme {scheme}", f"set scheme: {usual}, or leave {name} out"
        if form not in forms:
            yield f"the step {name} can't follow the format {form}", f"set format: {forms[0]}, or leave {name} out"


def faults(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong, and the way out, of options that have the right types."""
    found = complete(options)
    scheme = str(found["scheme"]).upper()
    if scheme not in SCHEMES:
        near = difflib.get_close_matches(scheme, sorted(SCHEMES), 1)
        hint = f"did you mean {near[0]}?" if near else "W4A16, W8A16, NVFP4 and MXFP4 are the usual ones"
        yield f"AutoRound has no scheme {found['scheme']}", hint
    if found["plain_rtn"] and found["iters"]:
        yield f"plain_rtn is set, and {found['iters']} iterations", "set iters: 0, or leave out plain_rtn"
    dataset, rounds = str(found["dataset"]), found["plain_rtn"] and not found["iters"]
    if not rounds and not dataset.startswith("/") and not found["network"]:
        yield (
            f"the calibration data {dataset} is on the hub, and the container has no network",
            "set network: true, or name a .json or .jsonl file on the node by its absolute path",
        )
    if dataset.startswith("/") and not dataset.endswith((".json", ".jsonl")):
        yield f"the calibration data {dataset} is neither .json nor .jsonl", "AutoRound reads only these two"
    for pattern in found["layer_config"]:
        try:
            re.compile(pattern)
        except re.error as error:
            what = f"layer_config has {pattern!r}, which is no regular expression: {error}"
            yield what, "write an expression like '.*shared_expert.*'"
