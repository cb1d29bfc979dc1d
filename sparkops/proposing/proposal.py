"""A recipe for any model: the newest engine that takes it, and the context and streams that fit with a margin.

What is proposed is linted and counted as every other line is; nothing is proposed that either of them refuses. It must
not know how the recipe is written, nor who asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparkops.core.errors import InventoryError
from sparkops.fit.fit import Fit, fit_invocation, spark
from sparkops.lint.case import case_of
from sparkops.lint.check import Finding, check, refusing
from sparkops.models.argv import serve_argv
from sparkops.models.catalogue import Model
from sparkops.models.engine import Engine, engine, versions
from sparkops.models.invocation import Ask, Invocation
from sparkops.models.parsers import family_of, usual
from sparkops.models.serve_line import parse

FRACTION, FRACTION_OF_SEVERAL = 0.82, 0.80
"""Shares of a Spark's memory for the engine, alone and in a group; 0.82 leaves the 16 GiB that are known to be safe
(Entrpi/qwen3.5-122B-A10B-on-spark docs/FINDINGS.md), above 0.80 groups were seen to fail."""
BATCH = 8192
"""Tokens of a step, unless a block has more."""
MARGIN = 0.9
"""Share of the pool that the streams may take: the estimate of the activation is that uncertain."""
LENGTHS = (262_144, 131_072, 65_536, 32_768, 16_384, 8_192)
WISHES = ((4, 32_768), (2, 32_768), (1, 8_192))
"""Streams, with the shortest context for which so many are proposed."""
UNCOUNTED = 32_768
"""The context that is proposed where nothing can be counted."""
NODES = (1, 2, 3, 4, 6, 8)

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for: a repository; `nodes` of one engine (None: one), its version (None: the newest that takes
    it)."""

    model: str
    nodes: int | None = None
    engine: str | None = None
    revision: str = ""
    beside: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """The serve arguments of a recipe, with the figures of its line, and the warnings of lint. `uncounted` says why it
    is not known whether it fits; "" where it does."""

    model: Model
    engine: Engine
    nodes: int
    serve: Mapping[str, Any]
    fit: Fit
    warnings: tuple[Finding, ...]
    uncounted: str


def propose(wish: Wish, ask: Ask | None) -> Proposal:
    """The recipe's content. Raises InventoryError, or what `ask` raises, where there can be none."""
    model = _model(wish, ask)
    nodes = wish.nodes or 1
    listed = [wish.engine] if wish.engine else [*reversed(versions(wish.beside))]
    refusals: list[InventoryError] = []
    for version in listed:
        serve, run = _plainest(wish, ask, model, nodes, engine(version, wish.beside))
        errors, method = _errors(run, nodes), model.quantisation.method
        if method and method not in (*run.engine.quantization_methods, *run.engine.quantization):
            id = "recipe-new-method-unknown"
            refusals.append(InventoryError.of(id, where=wish.model, engine=version, method=method))
        elif errors:
            id, first = "recipe-new-refused", errors[0]
            told = InventoryError.of(id, where=wish.model, engine=version, message=first.message, rule=first.id)
            refusals.append(told)
        else:
            return _sized(wish, ask, model, nodes, serve, run)
    raise refusals[0]


def _model(wish: Wish, ask: Ask | None) -> Model:
    newest = engine(wish.engine or versions(wish.beside)[-1], wish.beside)
    run = _run(wish, ask, newest, {})
    if run.not_read is not None:
        raise run.not_read
    if run.model is None or not _REPOSITORY.fullmatch(run.model.repository):
        raise InventoryError.of("recipe-new-not-a-repository", where=wish.model)
    return run.model


def _plainest(
    wish: Wish, ask: Ask | None, model: Model, nodes: int, chosen: Engine
) -> tuple[dict[str, object], Invocation]:
    """The arguments before anything is sized, and their line: one stream, and steps that take a whole block."""
    serve = _arguments(model, nodes, chosen)
    run = _run(wish, ask, chosen, serve)
    serve["max-num-batched-tokens"] = max(BATCH, run.effective.block_size or 0)
    return serve, _run(wish, ask, chosen, serve)


def _arguments(model: Model, nodes: int, chosen: Engine) -> dict[str, object]:
    """The arguments of a model on so many nodes, without those that depend on the memory."""
    family = family_of(model.repository, model.geometry.architectures)
    calls = usual(family.tool_call, chosen.tool_parsers) if family else ""
    thinking = usual(family.reasoning, chosen.reasoning_parsers) if family else ""
    return {
        **_ranks(model, nodes),
        "max-model-len": min(model.geometry.max_positions or UNCOUNTED, UNCOUNTED),
        "max-num-seqs": 1,
        "max-num-batched-tokens": BATCH,
        "gpu-memory-utilization": FRACTION if nodes == 1 else FRACTION_OF_SEVERAL,
        "kv-cache-dtype": "auto",
        "enable-prefix-caching": True,
        **({"reasoning-parser": thinking} if thinking else {}),
        **({"enable-auto-tool-choice": True, "tool-call-parser": calls} if calls else {}),
    }


def _ranks(model: Model, nodes: int) -> dict[str, object]:
    """How the model is split: its heads where they divide, else its layers."""
    if nodes == 1:
        return {}
    by = "pipeline-parallel-size" if model.geometry.uneven(nodes) else "tensor-parallel-size"
    return {by: nodes, "distributed-executor-backend": "mp"}


def _run(wish: Wish, ask: Ask | None, chosen: Engine, serve: Mapping[str, Any]) -> Invocation:
    """The line of the head, as a service on so many nodes has it."""
    nodes = max(int(serve.get("tensor-parallel-size", 1)), int(serve.get("pipeline-parallel-size", 1)))
    several = {"nnodes": nodes, "node-rank": 0, "master-addr": "192.0.2.1"} if nodes > 1 else {}
    words = serve_argv(["vllm", "serve"], wish.model, {**serve, **several})
    return Invocation(
        line=parse(words, chosen), engine=chosen, beside=wish.beside, ask=ask, revision=wish.revision, gpus=1
    )


def _errors(run: Invocation, nodes: int) -> list[Finding]:
    return refusing(check(case_of(run, spark=True, nodes=nodes)))


def _sized(
    wish: Wish, ask: Ask | None, model: Model, nodes: int, serve: dict[str, object], run: Invocation
) -> Proposal:
    """The proposal with the most that fits, on these nodes. Raises InventoryError where nothing does."""
    for streams, context in _candidates(wish, ask, model, run.engine, serve):
        serve |= {"max-model-len": context, "max-num-seqs": streams}
        made = _run(wish, ask, run.engine, serve)
        fit, findings = fit_invocation(made), check(case_of(made, spark=True, nodes=nodes))
        if not refusing(findings) and (fit.fits or fit.figures.pool is None):
            warnings = tuple(each for each in findings if each.severity == "warning")
            uncounted = "" if fit.fits else next(iter(fit.unknown.values()), "its pool is not known")
            return Proposal(
                model=model,
                engine=run.engine,
                nodes=nodes,
                serve=serve,
                fit=fit,
                warnings=warnings,
                uncounted=uncounted,
            )
    raise _too_large(wish, ask, model, nodes, run)


def _candidates(
    wish: Wish, ask: Ask | None, model: Model, chosen: Engine, serve: Mapping[str, object]
) -> Iterator[tuple[int, int]]:
    """Streams and context that fit with the margin, the best first; one pair where nothing can be counted."""
    most = model.geometry.max_positions
    for streams, least in WISHES:
        lengths = sorted({each for each in (*LENGTHS, most) if 0 < each <= min(most, LENGTHS[0])}, reverse=True)
        asked = {**serve, "max-num-seqs": streams, "max-model-len": lengths[0] if lengths else UNCOUNTED}
        fit = fit_invocation(_run(wish, ask, chosen, asked))
        pool = fit.figures.pool
        if pool is None:
            if not _outweighs(model, fit):
                yield WISHES[0][0], min(most or UNCOUNTED, UNCOUNTED)
            return
        room = (pool.blocks - 1) * MARGIN
        fitting = (each for each in lengths if each >= min(least, most) and streams * pool.request_blocks(each) <= room)
        yield from ((streams, each) for each in fitting)


def _outweighs(model: Model, fit: Fit) -> bool:
    """Whether the weights alone are more than the ranks may take."""
    budget = fit.figures.budget
    if budget is not None:
        return budget.weights > budget.allowed
    allowed = spark().memory * fit.run.effective.gpu_memory_utilization * fit.nodes
    known = model.weights.total if model.weights else model.published_bytes
    return known > allowed


def _too_large(wish: Wish, ask: Ask | None, model: Model, nodes: int, run: Invocation) -> InventoryError:
    """Why nothing fits on these nodes, with the fewest that it would fit on."""
    needed = next((each for each in NODES if each > nodes and _fits(wish, ask, model, each, run.engine)), None)
    fit = fit_invocation(_plainest(wish, ask, model, nodes, run.engine)[1])
    weights = model.weights.total if model.weights else model.published_bytes
    heavy = fit.figures.budget.weights if fit.figures.budget else weights / nodes
    allowed = spark().memory * fit.run.effective.gpu_memory_utilization
    id = "recipe-new-does-not-fit" if needed is None else "recipe-new-needs-nodes"
    return InventoryError.of(
        id, where=wish.model, nodes=nodes, weights=round(heavy), allowed=round(allowed), needed=needed
    )


def _fits(wish: Wish, ask: Ask | None, model: Model, nodes: int, chosen: Engine) -> bool:
    serve, run = _plainest(wish, ask, model, nodes, chosen)
    if _errors(run, nodes):
        return False
    return any(True for _ in _candidates(replace(wish, nodes=nodes), ask, model, chosen, serve))
