"""The file of a proposed recipe: its variables, what lint warns of as comments, and what nobody has verified."""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import ceil

import yaml

from sparkops.fit.fit import spark
from sparkops.importing.recipe_draft import OFFICIAL
from sparkops.models.platform import GIB
from sparkops.proposing.proposal import Proposal

WIDTH = 116
FREE = 2
"""GiB that are to be free beside what the engine takes."""
GROUP = {
    "container": {"devices": ["/dev/infiniband"], "cap_add": ["IPC_LOCK"]},
    "environment": {"NCCL_NET": "IB", "NCCL_IGNORE_CPU_AFFINITY": "1", "VLLM_ENGINE_READY_TIMEOUT_S": "3600"},
}
"""What every working launch over several nodes has (docs/sources.md)."""
NEEDS = [
    "fabric: {address: …} on each node",
    "the same driver, kernel and memory on all nodes",
]


def recipe_text(made: Proposal, own_code: bool) -> str:
    """The recipe as YAML. `own_code`: the repository brings Python of its own (`auto_map` of its config.json)."""
    head = "".join(f"# {line}\n" for line in _comments(made, own_code))
    return head + yaml.safe_dump(_content(made), sort_keys=False, allow_unicode=True, width=WIDTH)


def _comments(made: Proposal, own_code: bool) -> Iterator[str]:
    yield f"Proposed by `sparkops recipe new` on {time.strftime('%Y-%m-%d')}; nobody has run it."
    yield from (f"warning: {each.message} [{each.id}]: {each.remedy}" for each in made.warnings)
    yield from (f"note: {each}" for each in made.fit.notes)
    if made.model.geometry.drafts and made.model.geometry.mtp_layers and made.model.mtp_weights is not False:
        yield "note: the checkpoint has a head for prediction (MTP); try it by speculative-config when this line runs"
    if own_code:
        yield "note: the repository brings Python of its own (auto_map); read it before you set trust-remote-code"
    if "tool-call-parser" not in made.serve:
        yield "note: no tool-call parser is known for this family (knowledge/parsers.yml)"
    yield "note: the image is named by a tag, which may move; `sparkops lock` pins its digest"


def _content(made: Proposal) -> dict[str, object]:
    model, at = made.model, made.model.from_hub
    where = "one DGX Spark" if made.nodes == 1 else f"{made.nodes} DGX Sparks"
    stored = model.quantisation.algorithm or model.quantisation.method or model.geometry.dtype
    known = {} if at is not None else {"model": model.name}
    several = GROUP if made.nodes > 1 else {}
    free = ceil(made.serve["gpu-memory-utilization"] * spark().memory / GIB) + FREE
    repository = (at.moved_to or at.repository) if at else model.repository
    service = {"command": [], **several, "serve": dict(made.serve), "limits": {"memory_free_gib": free}}
    return {
        "summary": f"{model.name} ({stored}) on {where}, as sparkops proposes it",
        **known,
        "engine": made.engine.asked,
        **({"nodes": made.nodes} if made.nodes > 1 else {}),
        "variables": {
            "image": {"pull": f"{OFFICIAL}:v{made.engine.asked}"},
            "checkpoint": {"repository": repository, "revision": at.commit if at else "main"},
            "service": service,
        },
        **({"needs": NEEDS} if made.nodes > 1 else {}),
        "speeds": [],
        "unverified": list(_unverified(made)),
        "sources": list(_sources(made)),
    }


def _unverified(made: Proposal) -> Iterator[str]:
    names = ", ".join(made.model.geometry.architectures) or "its architecture"
    yield "the whole recipe: it was proposed, and not run"
    yield f"that vLLM {made.engine.asked} serves {names} on a Spark"
    if made.uncounted:
        yield f"whether it fits: {made.uncounted}"
    if made.nodes > 1:
        yield "whether the official image answers rightly across nodes; enforce-eager helped where it did not"


def _sources(made: Proposal) -> Iterator[str]:
    at = made.model.from_hub
    yield f"sizes: {at.repository} at commit {at.commit}" if at else f"sizes: {made.model.source}"
    yield "context and streams: sparkops fit, with a tenth of the pool left; memory fraction: Entrpi docs/FINDINGS.md"
    if "tool-call-parser" in made.serve or "reasoning-parser" in made.serve:
        yield "parsers: knowledge/parsers.yml"
