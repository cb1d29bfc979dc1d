"""What one serve line needs and what then fits: the one road from a line to the figures, for a person and for JSON.

It must not know an inventory or who prints what.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, floor
from pathlib import Path
from typing import Literal, TypeAlias

from sparkops.core.errors import InventoryError
from sparkops.fit import decode, memory, pool, weights
from sparkops.fit.decode import Step
from sparkops.fit.memory import Budget
from sparkops.fit.pool import Pool
from sparkops.fit.refused import no_size, refusal
from sparkops.fit.weights import Placed
from sparkops.models.build_steps import Steps
from sparkops.models.built_model import built
from sparkops.models.catalogue import Model, find
from sparkops.models.effective import Effective, effective, speculative
from sparkops.models.engine import Engine, engine
from sparkops.models.hybrid_cache import CacheLayout, layout
from sparkops.models.serve_line import ServeLine, parse_text

Solve: TypeAlias = Literal["streams", "context"]


@dataclass(frozen=True)
class Question:
    """What is asked beside the line: streams and context (None: the line's), which of them to solve for, and how many
    tokens a speculative step yields (None: the published figure, where there is one)."""

    streams: int | None = None
    context: int | None = None
    solve: Solve | None = None
    acceptance: float | None = None


@dataclass(frozen=True)
class Fit:
    """All figures of one line; None for what can't be known, with the reason in `unknown` under the figure's name."""

    name: str
    engine: str
    effective: Effective
    streams: int
    context: int
    gpus: int = 1
    model: Model | None = None
    drafter: Model | None = None
    cache: CacheLayout | None = None
    placed: Placed | None = None
    budget: Budget | None = None
    pool: Pool | None = None
    pool_tokens: int | None = None
    single: Step | None = None
    plain: Step | None = None
    together: Step | None = None
    solved: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()
    refused: str = ""
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def fits(self) -> bool | None:
        """Whether the streams asked for fit; None where the pool is not known, or where nothing runs (`refused`)."""
        return None if self.pool is None or self.refused else self.pool.streams(self.context) >= self.streams

    @property
    def nodes(self) -> int:
        """How many nodes the ranks of one replica stand on, with `gpus` of them on each."""
        return max(1, self.effective.nnodes, -(-self.effective.world_size // self.gpus))


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A service of which no figure can be known, by name, and why."""

    name: str
    reason: str


def fit_text(
    text: str,
    version: str,
    gpus: int = 1,
    env: Mapping[str, str] | None = None,
    beside: Path | None = None,
    question: Question | None = None,
) -> Fit:
    """The figures of a pasted line on nodes of `gpus` GPUs each. Raises InventoryError."""
    chosen = engine(version, beside)
    try:
        line = parse_text(text, chosen)
    except ValueError as error:
        raise InventoryError(f"the line cannot be read: {error}", hint="give one command, its quotes closed") from None
    return fit_line(line, chosen, gpus=gpus, env=env, beside=beside, question=question)


def fit_line(
    line: ServeLine,
    chosen: Engine,
    *,
    gpus: int = 1,
    env: Mapping[str, str] | None = None,
    name: str | None = None,
    beside: Path | None = None,
    question: Question | None = None,
    steps: Steps = (),
) -> Fit:
    """The figures of a line; `name` is the model where the line only has a path on a node. Raises InventoryError.

    `steps` are those by which the checkpoint is built that is served.
    """
    question = question or Question()
    variables = dict(env or {})
    wanted = name or line.model
    model = find(wanted, beside) if wanted else None
    if model is not None and steps:
        model = built(model, steps)
    speculation = speculative(line)
    drafter = _drafter(speculation.model if speculation else None, beside)
    geometry = model.geometry if model else None
    run = effective(line, geometry, chosen, variables, gpus, drafter.geometry if drafter else None)
    fit = Fit(
        name=wanted,
        engine=chosen.asked,
        effective=run,
        streams=question.streams or _asked_streams(line),
        context=question.context or run.max_model_len or 0,
        gpus=gpus,
        model=model,
        drafter=drafter,
        notes=tuple(_first_notes(line, chosen, model, drafter)),
    )
    reason = _unusable(fit, line)
    if reason or model is None:
        return replace(fit, unknown=dict.fromkeys([*FIGURES, *(["solved"] if question.solve else [])], reason))
    return _counted(fit, model, line, chosen, variables, question)


def _drafter(model: str | None, beside: Path | None) -> Model | None:
    """What is known of a drafter; None also where its configuration is of a kind of its own."""
    try:
        return find(model, beside) if model else None
    except InventoryError:
        return None


FIGURES = (
    "block_size",
    "mamba_page_bytes",
    "kv_bytes_per_token",
    "state_bytes_per_request",
    "weight_bytes_per_rank",
    "pool_tokens",
    "streams",
    "ceiling_tokens_per_second",
)


def _asked_streams(line: ServeLine) -> int:
    given = line.get("max-num-seqs")
    return given if isinstance(given, int) and given > 0 else 1


def _unusable(fit: Fit, line: ServeLine) -> str:
    if not fit.name:
        return "the line names no model"
    if fit.model is None:
        return (
            f"nothing is known of the model {fit.name!r}: give a folder with its config.json, or add "
            "knowledge/models/NAME.yml"
        )
    reason = no_size(line, fit.effective)
    if not reason and fit.context < 1:
        return "neither the line nor the model says a context length"
    return reason


def _first_notes(line: ServeLine, chosen: Engine, model: Model | None, drafter: Model | None) -> list[str]:
    notes = [f"the engine's parser refuses this line: {each.message}" for each in line.problems]
    if not chosen.exact:
        notes.append(f"engine {chosen.asked} is not listed; {chosen.version} was taken for it")
    unsure = [each for each in (model, drafter) if each is not None and not each.verified]
    return [*notes, *(f"{each.repository}: unverified: {each.unverified}" for each in unsure)]


def _counted(
    fit: Fit, model: Model, line: ServeLine, chosen: Engine, env: Mapping[str, str], question: Question
) -> Fit:
    """The figures of a line whose model is known."""
    cache = _cache(model, line, fit.effective)
    placed = weights.place(model, line, fit.effective, fit.drafter)
    budget = memory.budget(line, fit.effective, placed.rank_bytes, multimodal=model.geometry.multimodal, env=env)
    reason, partly = _missing(fit, model, cache), _not_described(model) or _no_drafter(fit)
    unknown = dict.fromkeys(["weight_bytes_per_rank"], partly)
    fit = replace(
        fit,
        cache=None if model.geometry.gaps else cache,
        placed=None if partly else placed,
        budget=None if partly else budget,
        refused=_over_length(fit, model) or refusal(line, fit.effective, model.geometry, fit.gpus),
    )
    if not reason:
        fit = _pooled(fit, model, cache, budget, chosen, question)
    unknown |= dict.fromkeys(["pool_tokens", "streams"], reason)
    if model.geometry.gaps:
        unknown |= dict.fromkeys(["mamba_page_bytes", "state_bytes_per_request"], reason)
    if cache.kv_bytes_per_token is None:
        unknown |= dict.fromkeys(["block_size", "kv_bytes_per_token"], reason)
    fit, why = _speeds(fit, model, cache, placed, question)
    unknown |= {"ceiling_tokens_per_second": why, "fits": fit.refused}
    if question.solve is not None:
        unknown["solved"] = fit.refused or reason
    return replace(fit, unknown={each: text for each, text in unknown.items() if text})


def _over_length(fit: Fit, model: Model) -> str:
    """Why no request is as long as asked for; "" where one may be."""
    longest = max(model.geometry.max_positions, fit.effective.max_model_len or 0)
    if fit.context <= longest or not longest:
        return ""
    return f"{fit.context:,} tokens are over the model's length of {longest:,}"


def _cache(model: Model, line: ServeLine, run: Effective) -> CacheLayout:
    geometry = model.geometry if run.dtype == "auto" else replace(model.geometry, dtype=run.dtype)
    speculation = run.speculative.method if run.speculative else ""
    return layout(
        geometry,
        kv_dtype=run.kv_cache_dtype,
        tensor_parallel=run.tensor_parallel,
        speculative_tokens=run.speculative_tokens,
        speculative_layers=geometry.mtp_layers if speculation == "mtp" else 0,
        ssm_dtype=run.ssm_dtype,
        conv_dtype=run.conv_dtype,
        block_size=run.block_size,
        user_block="replace",
    )


def _missing(fit: Fit, model: Model, cache: CacheLayout) -> str:
    """Why the pool can't be known; "" where it can."""
    if model.geometry.gaps:
        return _not_described(model)
    if cache.page_bytes is None:
        return f"how many bytes a token takes in a cache of the type {fit.effective.kv_cache_dtype} is not known"
    return _no_drafter(fit)


def _not_described(model: Model) -> str:
    gaps = model.geometry.gaps
    return f"the configuration has {', '.join(gaps)}, which is not described yet" if gaps else ""


def _no_drafter(fit: Fit) -> str:
    """Why the drafter of a line is not known; "" where it is, or where there is none."""
    speculation = fit.effective.speculative
    if speculation is None or not speculation.needs_drafter:
        return ""
    if fit.drafter is not None:
        return f"of the drafter: {_not_described(fit.drafter)}" if fit.drafter.geometry.gaps else ""
    if not speculation.model:
        return f"the line names no drafter for {speculation.method}"
    return f"nothing is known of the drafter {speculation.model!r}: give a folder with its config.json"


def _pooled(fit: Fit, model: Model, cache: CacheLayout, budget: Budget, chosen: Engine, question: Question) -> Fit:
    groups, block_bytes = pool.shape(
        model.geometry, cache, fit.effective, fit.drafter.geometry if fit.drafter else None
    )
    blocks = max(0, int(budget.pool // block_bytes)) if not budget.overfull else 0
    made = Pool(groups, block_bytes, blocks)
    length = fit.effective.max_model_len or fit.context
    by_groups = chosen.behaviour.get("pool_reported") == "groups"
    most = model.geometry.max_positions or length
    fit = replace(
        fit,
        pool=made,
        pool_tokens=made.tokens_by_groups() if by_groups else made.tokens(length),
        notes=(*fit.notes, *_pool_notes(fit, made, budget)),
    )
    if fit.refused:
        return fit
    if question.solve == "streams":
        return replace(fit, solved={"streams": made.streams(fit.context), "context": fit.context})
    if question.solve == "context":
        return replace(fit, solved={"streams": fit.streams, "context": made.context(fit.streams, most)})
    return fit


def _pool_notes(fit: Fit, made: Pool, budget: Budget) -> list[str]:
    notes = []
    seqs = fit.effective.max_num_seqs
    states = any(group.kind == "state" for group in made.groups)
    if states and seqs > made.blocks > 0 and fit.effective.max_capture_size:
        notes.append(
            f"max-num-seqs {seqs} is more than the {made.blocks} blocks of the pool, of which each decoding request "
            f"takes one for its state: the engine refuses to capture its graphs; lower it to {made.blocks} at most"
        )
    length = fit.effective.max_model_len
    if length and made.streams(length) < 1:
        notes.append(f"not one request of max-model-len {length:,} fits: the engine does not start")
    if budget.overfull:
        notes.append(f"the line needs {-budget.host / memory.GIB:.1f} GiB more than a rank has")
    elif budget.host < memory.HOST:
        notes.append(
            f"{budget.host / memory.GIB:.1f} GiB are left for the host, less than the {memory.HOST / memory.GIB:.0f} "
            "that are known to be safe; an out-of-memory freezes a Spark"
        )
    return notes


def _speeds(fit: Fit, model: Model, cache: CacheLayout, placed: Placed, question: Question) -> tuple[Fit, str]:
    """The ceilings, and why the one of this line is not known ("" where it is)."""
    if cache.kv_bytes_per_token is None or model.geometry.gaps:
        return fit, _missing(fit, model, cache)
    run, geometry = fit.effective, model.geometry
    method = run.speculative.method if run.speculative else ""

    def step(streams: int, drafted: int, tokens: float) -> Step:
        return decode.step(
            geometry,
            placed.parts,
            cache,
            tensor_parallel=run.tensor_parallel,
            streams=streams,
            drafted=drafted,
            mtp=method == "mtp" and drafted > 0,
            drafter_bytes=placed.drafter_bytes if drafted else 0.0,
            tokens=tokens,
        )

    fit = replace(fit, plain=step(1, 0, 1.0))
    if _no_drafter(fit):
        return fit, _no_drafter(fit)
    drafted = run.speculative_tokens
    tokens = 1.0 if not drafted else question.acceptance or (decode.ACCEPTED.get(drafted) if method == "mtp" else None)
    if tokens is None:
        return fit, f"how many of {drafted} tokens drafted by {method} are accepted is not published; give --acceptance"
    return replace(fit, single=step(1, drafted, tokens), together=step(fit.streams, drafted, tokens)), ""


def verdict(fit: Fit) -> str:
    """The answer in one sentence."""
    asked = f"{fit.streams} {'stream' if fit.streams == 1 else 'streams'} of {fit.context:,} tokens"
    if fit.model is None or fit.context < 1:
        return next(iter(fit.unknown.values()))
    if fit.refused:
        return f"{asked}: not known: {fit.refused}"
    if fit.pool is None:
        return f"{asked}: not known: {next(iter(fit.unknown.values()), '')}"
    if fit.pool.blocks < 2:
        return f"{asked}: no: {_no_pool(fit)}"
    many = fit.pool.streams(fit.context)
    share = f"{_millions(fit.streams * fit.context, ceil)} of {_millions(fit.pool.tokens(fit.context), floor)} tokens"
    if many >= fit.streams:
        return f"{asked}: yes: {share}; {many} would fit"
    most = fit.model.geometry.max_positions if fit.model and fit.model.geometry.max_positions else fit.context
    longest = fit.pool.context(fit.streams, min(most, fit.context))
    shorter = longest if longest == most else _rounded(longest)
    ways = [f"lower to {shorter:,}"] if shorter else []
    ways += [f"{many} {'stream' if many == 1 else 'streams'}"] if many else []
    return f"{asked}: no: {share}" + (f"; {', or '.join(ways)}" if ways else "")


def _no_pool(fit: Fit) -> str:
    """Why there is no pool to speak of."""
    assert fit.budget is not None and fit.pool is not None
    budget = fit.budget
    allowed, total = (f"{each / memory.GIB:.1f}" for each in (budget.allowed, budget.total))
    if budget.taken > budget.allowed and budget.pool < 0:
        what = "the weights" if budget.weights > budget.allowed else "weights and run"
        more = (budget.weights if budget.weights > budget.allowed else budget.taken) - budget.allowed
        return f"{what} need {more / memory.GIB:.1f} GiB more than the {allowed} that the engine may take on a rank"
    if budget.overfull:
        all_of_it = f"{(budget.total - budget.host) / memory.GIB:.1f}"
        return f"weights, run and cache take {all_of_it} GiB of a rank's {total}"
    return (
        f"{max(0.0, budget.pool) / memory.GIB:.2f} GiB for the cache hold no two blocks of {fit.pool.block_bytes:,} B"
    )


def _millions(tokens: int, rounded: Callable[[float], int]) -> str:
    """Tokens in millions: what is asked for rounded up, what is there rounded down."""
    return f"{rounded(tokens / 1e4) / 100:.2f} M" if tokens >= 100_000 else f"{tokens:,}"


def _rounded(tokens: int) -> int:
    return tokens // 1000 * 1000 if tokens >= 10_000 else tokens
