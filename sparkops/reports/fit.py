"""The figures as JSON (`sparkops.fit/1`, a contract), and as rows and bars for a screen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from sparkops.core.wording import size
from sparkops.fit.decode import CONTEXT, DecodeStep
from sparkops.fit.fit import Fit, NotEvaluated
from sparkops.fit.memory import Budget
from sparkops.fit.speeds import published
from sparkops.fit.verdict import verdict
from sparkops.reports import schemas
from sparkops.reports.printer import Printer, table

BAR = 30


FOLLOWS = {
    "page_bytes": "block_size",
    "weights_from": "weight_bytes_per_rank",
    "memory": "weight_bytes_per_rank",
    "blocks": "pool_tokens",
    "blocks_per_request": "pool_tokens",
    "context": "streams",
    "fits": "streams",
    "ceiling_without_speculation": "ceiling_tokens_per_second",
    "ceiling_all_streams": "ceiling_tokens_per_second",
    "pool_tokens_after_restart": "pool_tokens",
    "sliding_bytes_per_token": "kv_bytes_per_token",
    "ceiling_with_launches": "ceiling_tokens_per_second",
    "bytes_per_step": "ceiling_tokens_per_second",
    "tokens_per_step": "ceiling_tokens_per_second",
}
"""Figures that are null for the reason of another one."""
OWN = {
    "solved": "not asked for: --solve streams or --solve context does",
    "max_model_len": "neither the line nor the model gives a context length",
}
"""Reasons of what is null though every other figure may be known."""


def dumped(found: Mapping[str, Fit | NotEvaluated], *, one: bool) -> str:
    """`sparkops.fit/1` of a pasted line (`one`), or of services by name."""
    shapes = {name: as_json(fit) for name, fit in found.items()}
    content = next(iter(shapes.values())) if one else {"schema": schemas.FIT, "services": shapes}
    return json.dumps(content, indent=1, ensure_ascii=False)


def as_json(fit: Fit | NotEvaluated) -> dict[str, object]:
    """The contract: bytes of one rank, tokens and counts as whole numbers; null where `unknown` says why."""
    content = _figures(fit) if isinstance(fit, Fit) else _nulls(fit)
    gaps = dict(content["unknown"])
    content |= dict.fromkeys(gaps)
    any_reason = next(iter(gaps.values()), "")
    missing = [key for key in FIGURES if content[key] is None and key not in gaps]
    reasons = {key: gaps.get(FOLLOWS.get(key, "")) or OWN.get(key) or any_reason for key in missing}
    return {**content, "unknown": {**gaps, **reasons}}


def _nulls(service: NotEvaluated) -> dict[str, Any]:
    """What the figures are of a service without any."""
    return {
        "schema": schemas.FIT,
        "model": service.model,
        **dict.fromkeys(FIGURES),
        "published": [],
        "notes": [],
        "verdict": f"not known: {service.reason}",
        "unknown": dict.fromkeys(FIGURES, service.reason),
    }


FIGURES = (
    "geometry",
    "engine",
    "device",
    "block_size",
    "page_bytes",
    "mamba_page_bytes",
    "kv_bytes_per_token",
    "sliding_bytes_per_token",
    "state_bytes_per_request",
    "weight_bytes_per_rank",
    "weights_from",
    "parameters",
    "ranks",
    "memory",
    "blocks",
    "blocks_per_request",
    "pool_tokens",
    "pool_tokens_after_restart",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "context",
    "streams",
    "streams_asked",
    "fits",
    "solved",
    "ceiling_tokens_per_second",
    "ceiling_with_launches",
    "ceiling_without_speculation",
    "ceiling_all_streams",
    "bytes_per_step",
    "tokens_per_step",
)
"""All figures that can be null."""


def _figures(fit: Fit) -> dict[str, Any]:
    figures, model, run = fit.figures, fit.run.model, fit.run.effective
    cache, weights, budget, pool = figures.cache, figures.weights, figures.budget, figures.pool
    return {
        "schema": schemas.FIT,
        "model": fit.run.served,
        "geometry": model.name if model else None,
        **({"from_hub": asdict(model.from_hub)} if model and model.from_hub else {}),
        **({"not_read": fit.run.not_read.message.as_json("command")} if fit.run.not_read else {}),
        "engine": fit.run.engine.asked,
        "device": {
            "name": fit.device.name,
            "memory": round(fit.device.memory),
            "bandwidth": round(fit.device.bandwidth),
        },
        "block_size": cache.block_size if cache else None,
        "page_bytes": cache.page_bytes if cache else None,
        "mamba_page_bytes": cache.mamba_page_bytes if cache else None,
        "kv_bytes_per_token": cache.kv_bytes_per_token if cache else None,
        "sliding_bytes_per_token": cache.sliding_bytes_per_token if cache else None,
        "state_bytes_per_request": cache.state_bytes_per_request if cache else None,
        "weight_bytes_per_rank": round(weights.rank_bytes) if weights else None,
        "weights_from": weights.source if weights else None,
        "parameters": model.geometry.text_parameters if model else None,
        "ranks": {"tensor": run.tensor_parallel, "pipeline": run.pipeline_parallel, "data": run.data_parallel},
        "memory": None if budget is None else {key: round(value) for key, value in _memory(budget).items()},
        "blocks": pool.blocks if pool else None,
        "blocks_per_request": figures.request_blocks,
        "pool_tokens": fit.pool_tokens,
        "pool_tokens_after_restart": fit.restarted_tokens,
        "max_model_len": run.max_model_len,
        "max_num_seqs": run.max_num_seqs,
        "max_num_batched_tokens": run.max_num_batched_tokens,
        "context": fit.context if fit.context > 0 else None,
        "streams": pool.streams(fit.context) if pool else None,
        "streams_asked": fit.streams,
        "fits": fit.fits,
        "verdict": verdict(fit),
        "solved": None if fit.solved is None else dict(fit.solved),
        "ceiling_tokens_per_second": _speed(figures.single),
        "ceiling_with_launches": _speed(figures.single, launched=True),
        "ceiling_without_speculation": _speed(figures.plain),
        "ceiling_all_streams": _speed(figures.together),
        "bytes_per_step": round(figures.single.bytes) if figures.single else None,
        "tokens_per_step": figures.single.tokens if figures.single else None,
        "published": [
            {
                "tokens_per_second": [each.low, each.high],
                "quantisation": each.quantisation,
                "setup": each.setup,
                "nodes": each.nodes,
                "streams": each.streams,
                "source": each.source,
            }
            for each in published(fit)
        ],
        "notes": list(fit.notes),
        "unknown": fit.unknown,
    }


def _speed(step: DecodeStep | None, launched: bool = False) -> float | None:
    if step is None:
        return None
    return round(step.launched_tokens_per_second if launched else step.tokens_per_second, 1)


def _memory(budget: Budget) -> dict[str, float]:
    return {
        "total": budget.total,
        "allowed": budget.allowed,
        "weights": budget.weights,
        "activation": budget.activation,
        "encoder": budget.encoder,
        "graphs": budget.graphs,
        "non_torch": budget.non_torch,
        "beyond": budget.beyond,
        "pool": max(0.0, budget.pool),
        "host": max(0.0, budget.host),
    }


def memory_rows(fit: Fit) -> list[tuple[str, str, str]]:
    """What a rank's memory goes to: name, size, and a bar of its share."""
    if fit.figures.budget is None:
        return []
    sizes = _memory(fit.figures.budget)
    named = {
        "weights": "weights",
        "activation": "activation peak",
        "encoder": "encoder beyond it",
        "graphs": "CUDA graphs",
        "non_torch": "CUDA and NCCL",
        "beyond": "device's own",
        "pool": "cache pool",
        "host": "left for the host",
    }
    return [
        (text, size(sizes[key]), _bar(sizes[key] / sizes["total"]))
        for key, text in named.items()
        if sizes[key] or key in ("weights", "pool")
    ]


def _bar(share: float) -> str:
    cells = round(min(1.0, max(0.0, share)) * BAR)
    return "█" * cells + "·" * (BAR - cells)


def figure_rows(fit: Fit) -> list[tuple[str, str, str]]:
    """The other figures: name, value, and how it comes about."""
    return [*_cache_rows(fit), *_speed_rows(fit)]


def _cache_rows(fit: Fit) -> Iterator[tuple[str, str, str]]:
    cache, pool, model = fit.figures.cache, fit.figures.pool, fit.run.model
    if cache is not None and cache.block_size is not None and cache.page_bytes is not None:
        yield "block", f"{cache.block_size:,} tokens", f"page of {cache.page_bytes:,} B"
    if cache is not None and cache.kv_bytes_per_token is not None:
        yield "keys and values", size(cache.kv_bytes_per_token), "a token, on one rank" + _sliding(fit)
    if cache is not None and cache.state_bytes_per_request:
        yield "recurrent state", size(cache.state_bytes_per_request), "a request, of one step"
    if pool is not None and fit.pool_tokens is not None:
        each = pool.request_blocks(fit.context)
        yield "pool", f"{fit.pool_tokens:,} tokens", f"{pool.blocks:,} blocks; {each:,} a request of {fit.context:,}"
        yield "streams", f"{pool.streams(fit.context):,}", f"of {fit.context:,} tokens"
        if fit.restarted_tokens != fit.pool_tokens:
            yield "after a restart", f"{fit.restarted_tokens:,} tokens", "the first start also compiles"
        longest = pool.context(1, max(fit.context, model.geometry.max_positions if model else 0))
        yield "longest context", f"{longest:,} tokens", "of one stream"


def _sliding(fit: Fit) -> str:
    """How much of a token's bytes is in layers that keep it only inside their windows."""
    cache = fit.figures.cache
    if cache is None or not cache.windows:
        return ""
    widths = " and ".join(f"{each:,}" for each in cache.windows)
    return f"; {size(cache.sliding_bytes_per_token)} of them only inside {widths} tokens"


def _speed_rows(fit: Fit) -> Iterator[tuple[str, str, str]]:
    figures = fit.figures
    nominal = f"at {fit.device.bandwidth / 1e9:.0f} GB/s, {CONTEXT} tokens of context"
    if figures.plain is not None:
        read = f"{figures.plain.bytes / 1e9:.2f} GB a token {nominal}"
        yield "ceiling", f"{figures.plain.tokens_per_second:.1f} tok/s", read
        reading = figures.plain.bytes / fit.device.bandwidth * 1e3
        launches = f"{figures.plain.launches * 1e3:.1f} ms a step beside {reading:.1f} ms of reading"
        yield "with launches", f"{figures.plain.launched_tokens_per_second:.1f} tok/s", launches
    if figures.single is not None and figures.single.tokens != 1:
        how = f"{figures.single.tokens:g} tokens a step"
        yield "with speculation", f"{figures.single.tokens_per_second:.1f} tok/s", how
    if figures.together is not None and fit.streams > 1:
        yield "all streams", f"{figures.together.tokens_per_second:.1f} tok/s", f"{fit.streams} together"


def speed_rows(fit: Fit) -> list[tuple[str, str, str]]:
    """Published speeds: tokens per second, setup, source."""
    rows = []
    for each in published(fit):
        value = f"{each.low:g}" if each.low == each.high else f"{each.low:g}–{each.high:g}"
        several = f", {each.streams} streams" if each.streams > 1 else ""
        rows.append((f"{value} tok/s", f"{each.quantisation}; {each.setup}{several}", each.source))
    return rows


def render(name: str, fit: Fit | NotEvaluated, printer: Printer) -> None:
    """The figures of one service (`name` is "" for a pasted line), or why there are none."""
    if isinstance(fit, NotEvaluated):
        printer.line((f"{name}: ", "bold"), (f"not known: {fit.reason}", "red"))
        return
    run = fit.run
    ranks = run.effective.world_size * run.effective.data_parallel
    placed = f", on each of {ranks} ranks" if ranks > 1 else ""
    printer.line((f"{name}: " if name else "", "bold"), (f"{run.served} on vLLM {run.engine.asked}{placed}", "bold"))
    if run.model is not None and run.model.from_hub is not None:
        printer.line((run.model.from_hub.told(), "dim"))
    if fit.figures.budget is not None:
        table(printer, ("memory", "", ""), memory_rows(fit))
    figures = figure_rows(fit)
    if figures:
        table(printer, ("figure", "", ""), figures)
    speeds = speed_rows(fit)
    if speeds:
        table(printer, ("published", "", "source"), speeds)
    for note in fit.notes:
        printer.line((f"note: {note}", "yellow"))
    reasons: dict[str, list[str]] = {}
    for field, reason in fit.unknown.items():
        reasons.setdefault(reason, []).append(field)
    for reason, fields in reasons.items():
        if len(reasons) > 1 or not verdict(fit).endswith(reason):
            printer.line((f"not known: {', '.join(fields)}: {reason}", "dim"))
    if fit.solved is not None:
        printer.line((f"solved: {fit.solved['streams']:,} streams of {fit.solved['context']:,} tokens fit", "bold"))
    printer.line((verdict(fit), "green" if fit.fits else "red"))
