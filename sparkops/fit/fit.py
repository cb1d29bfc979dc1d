"""What one serve line needs and what then fits: from an invocation to the figures, for a person and for JSON.

It must not know an inventory or who prints what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from sparkops.fit import decode, memory, pool, uncounted, weights
from sparkops.fit.activation import raised_batch
from sparkops.fit.decode import Decoder, DecodeStep
from sparkops.fit.memory import Budget
from sparkops.fit.notes import pool_notes
from sparkops.fit.pool import Pool, mixed
from sparkops.fit.refused import no_size, refusal
from sparkops.fit.weights import RankWeights
from sparkops.models.architecture.hybrid_cache import (
    PACKED,
    POOLED,
    WINDOWED,
    BlockRule,
    CacheLayout,
    CacheOptions,
    layout,
)
from sparkops.models.catalogue import Model
from sparkops.models.engine_pages import version_key
from sparkops.models.invocation import Invocation
from sparkops.models.platform import Device
from sparkops.models.platform import load as platform
from sparkops.models.serve_line import ServeLine

Solve: TypeAlias = Literal["streams", "context"]
SPARK = "spark"


def spark() -> Device:
    """What is meant where nothing else is said."""
    return platform().device(SPARK)


@dataclass(frozen=True)
class Question:
    """What is asked beside the line: streams and context (None: the line's), which of them to solve for, how many
    tokens a speculative step yields (None: the published figure, where there is one), and the device of each rank."""

    streams: int | None = None
    context: int | None = None
    solve: Solve | None = None
    acceptance: float | None = None
    device: Device = field(default_factory=spark)


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted for one rank; None for what can't be known.

    `request_blocks` are those of one request of the context; `restarted` is the pool of a later start, `plain` is a
    decode step of one stream without speculation, `single` one with the line's, `together` that of all streams.
    """

    cache: CacheLayout | None = None
    weights: RankWeights | None = None
    budget: Budget | None = None
    request_blocks: int | None = None
    pool: Pool | None = None
    restarted: Pool | None = None
    plain: DecodeStep | None = None
    single: DecodeStep | None = None
    together: DecodeStep | None = None


@dataclass(frozen=True)
class Fit:
    """The answer for one invocation on one device, of so many streams and tokens each (`context`, 0 where it is not
    known).

    `unknown` gives the reason for each figure that is None, `refused` why the engine would not start at all.
    """

    run: Invocation
    device: Device
    streams: int
    context: int
    figures: Figures = Figures()
    solved: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()
    refused: str = ""
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def fits(self) -> bool | None:
        """Whether the streams asked for fit; None where the pool is not known, or where nothing runs (`refused`)."""
        if self.figures.pool is None or self.refused:
            return None
        return self.figures.pool.streams(self.context) >= self.streams

    @property
    def nodes(self) -> int:
        """How many nodes the ranks of one replica take, with `gpus` of them on each."""
        run = self.run.effective
        return max(1, run.nnodes, -(-run.world_size // self.run.gpus))

    @property
    def pool_tokens(self) -> int | None:
        """The pool in tokens, as this engine version prints it; None where it is not known."""
        return self._tokens(self.figures.pool)

    @property
    def restarted_tokens(self) -> int | None:
        """The pool in tokens of a start that finds the compiled code of an earlier one."""
        return self._tokens(self.figures.restarted)

    def _tokens(self, pool: Pool | None) -> int | None:
        if pool is None:
            return None
        if self.run.engine.behaviour.get("pool_reported") == "groups":
            return pool.tokens_by_groups()
        return pool.tokens(self.run.effective.max_model_len or self.context)


@dataclass(frozen=True, slots=True)
class NotEvaluated:
    """A service of which no figure can be known, by the name of its model, why, and the way out."""

    model: str
    reason: str
    hint: str


UNDESCRIBED = "undescribed"
"""The kind of what layers keep whose bytes no description has."""
UNLIKE_SINCE = {PACKED: "0.32.0", POOLED: "0.30.0"}
"""The first engine whose packing of unlike pages is known, by the kind of what layers keep."""
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


def fit_invocation(run: Invocation, question: Question | None = None) -> Fit:
    """The figures of an invocation. Raises InventoryError for a model file that can't be read."""
    question = question or Question()
    fit = Fit(
        run=run,
        device=question.device,
        streams=question.streams or _asked_streams(run.line),
        context=question.context or run.effective.max_model_len or 0,
        notes=tuple(_first_notes(run, question.device)),
    )
    reason = _unusable(fit)
    if reason or run.model is None:
        return replace(fit, unknown=dict.fromkeys([*FIGURES, *(["solved"] if question.solve else [])], reason))
    return _counted(fit, run.model, question)


def _asked_streams(line: ServeLine) -> int:
    given = line.get("max-num-seqs")
    return given if isinstance(given, int) and given > 0 else 1


def _unusable(fit: Fit) -> str:
    if not fit.run.served:
        return "the line names no model"
    if fit.run.model is None:
        failure = fit.run.not_read
        why = f"{failure.what}: {failure.hint}" if failure else "give a folder with its config.json"
        return f"nothing is known of the model {fit.run.served!r}: {why}, or add knowledge/models/NAME.yml"
    reason = no_size(fit.run.line, fit.run.effective) or uncounted.overridden(fit.run)
    if not reason and fit.context < 1:
        if not fit.run.model.geometry.described:
            return _not_described(fit.run.model)
        return "neither the line nor the model gives a context length"
    return reason


def _first_notes(run: Invocation, device: Device) -> list[str]:
    parser = f"the parser of {run.engine.version}" if run.engine.unsure_of_words else "the engine's parser"
    notes = [f"{parser} refuses this line: {each.message}" for each in run.line.problems]
    if not run.engine.exact:
        notes.append(f"engine {run.engine.asked} is not listed; {run.engine.version} was taken for it")
    if device.name != SPARK and (
        run.line.get("max-num-batched-tokens") is None or run.line.get("max-num-seqs") is None
    ):
        notes.append("max-num-batched-tokens and max-num-seqs default to a GB10's where the line does not give them")
    if run.not_read is not None and run.model is not None:
        notes.append(f"{run.not_read.what}, so what is known of a repository of its name was taken")
    unsure = [each for each in (run.model, run.drafter) if each is not None and not each.verified]
    if run.model is not None and (told := weights.difference(run.model, run.effective.dtype)):
        notes.append(told)
    if device.unverified:
        notes.append(f"{device.title}: unverified: {device.unverified}")
    return [*notes, *(f"{each.repository}: unverified: {each.unverified}" for each in unsure)]


def _counted(fit: Fit, model: Model, question: Question) -> Fit:
    """The figures of an invocation whose model is known."""
    run, gaps = fit.run, model.geometry.gaps
    unsized = _unsized(run, model)
    cache = _cache(run, model)
    loaded = None if unsized else weights.of_rank(run, model)
    budget = memory.budget(run, model.geometry, loaded.loaded, question.device) if loaded is not None else None
    partly, unlaid = unsized or _no_drafter(run), _unlaid(run, model, cache)
    reason = unlaid or uncounted.of_pool(run, model.geometry)
    refused = _over_length(fit, model) or refusal(run, model.geometry)
    made = None if reason or budget is None else _pool(run, cache, budget)
    steps, slow = (Figures(), unsized) if loaded is None else _steps(fit, model, cache, loaded, question)
    reason = reason or unsized
    unknown = {
        "weight_bytes_per_rank": partly,
        **dict.fromkeys(("pool_tokens", "streams"), reason),
        **(dict.fromkeys(("mamba_page_bytes", "state_bytes_per_request"), reason) if gaps else {}),
        **({"kv_bytes_per_token": reason} if cache.kv_bytes_per_token is None else {}),
        **({"block_size": reason} if cache.block_size is None else {}),
        "ceiling_tokens_per_second": slow,
        "fits": refused,
        **({"solved": refused or reason} if question.solve else {}),
    }
    return replace(
        fit,
        figures=replace(
            steps,
            cache=None if gaps else cache,
            weights=None if partly else loaded,
            budget=None if partly else budget,
            request_blocks=None if unlaid else _pool(run, cache).request_blocks(fit.context),
            pool=made,
            restarted=None if made is None or budget is None else _restarted(run, made, budget),
        ),
        solved=None if made is None or refused else _solved(fit, model, made, question),
        notes=(*fit.notes, *(pool_notes(run, made, budget, fit.device) if made and budget else ())),
        refused=refused,
        unknown={name: why for name, why in unknown.items() if why},
    )


def _over_length(fit: Fit, model: Model) -> str:
    """Why no request is as long as asked for; "" where one may be."""
    longest = max(model.geometry.max_positions, fit.run.effective.max_model_len or 0)
    if fit.context <= longest or not longest:
        return ""
    return f"{fit.context:,} tokens are over the model's length of {longest:,}"


def _cache(run: Invocation, model: Model) -> CacheLayout:
    now = run.effective
    geometry = model.geometry if now.dtype == "auto" else replace(model.geometry, dtype=now.dtype)
    mtp = now.speculative is not None and now.speculative.method == "mtp"
    unlike = mixed(run.line, now, geometry)
    options = CacheOptions(
        kv_dtype="mixed" if unlike else now.kv_cache_dtype,
        ssm_dtype=now.ssm_dtype,
        conv_dtype=now.conv_dtype,
        tensor_parallel=now.tensor_parallel,
        speculative_tokens=now.speculative_tokens,
        speculative_layers=geometry.mtp_layers if mtp else 0,
    )
    made = layout(geometry, options, BlockRule(now.block_size, "replace"))
    return replace(made, block_size=None, page_bytes=None) if unlike or now.block_size is None else made


def _unlaid(run: Invocation, model: Model, cache: CacheLayout) -> str:
    """Why the blocks of the pool can't be known; "" where they can."""
    if model.geometry.gaps:
        return _not_described(model)
    kinds = {each.cached.kind for each in cache.kept}
    if UNDESCRIBED in kinds:
        return f"what {model.geometry.architectures[0]} keeps of a token is not described"
    if (since := max((UNLIKE_SINCE[kind] for kind in kinds & UNLIKE_SINCE.keys()), default="")) and (
        why := _unpacked(run, since)
    ):
        return f"how the cache of {model.geometry.architectures[0]} is packed {why} is not described"
    if kinds & set(WINDOWED) and (raised := raised_batch(run, model.geometry)):
        given = "; give --max-num-batched-tokens"
        return f"the engine raises the default batch to {raised:,} tokens where it can read the processor{given}"
    if why := mixed(run.line, run.effective, model.geometry):
        return why
    if cache.kv_bytes_per_token is not None and cache.block_size is None:
        asked = " with --block-size" if run.line.get("block-size") else ""
        name = model.geometry.architectures[0]
        return f"how long a block of {name} is in engine {run.engine.version}{asked} is not described"
    if cache.page_bytes is None:
        return f"how many bytes a token takes in a cache of the type {run.effective.kv_cache_dtype} is not known"
    return _no_drafter(run)


def _unpacked(run: Invocation, since: str) -> str:
    """Where nothing is known of the pages of a cache of unlike layers, known from a version on; "" where it is."""
    if version_key(run.engine.version) < version_key(since):
        return f"before engine {since}"
    if run.effective.pipeline_parallel > 1 or run.effective.decode_context_parallel > 1:
        return "over ranks of pipeline or context parallelism"
    if run.line.mapping("attention-config").get("indexer_kv_dtype") not in (None, "auto", "bf16"):
        return "with an indexer's keys of another type"
    return "beside a drafter's" if run.drafter is not None else ""


def _not_described(model: Model) -> str:
    return "; ".join(model.geometry.gaps)


def _unsized(run: Invocation, model: Model) -> str:
    """Why the bytes of the weights are not known; "" where they are."""
    geometry = model.geometry
    drafting = run.effective.speculative is not None and run.effective.speculative.method == "mtp"
    text = bool(run.line.get("language-model-only"))
    left_out = {"vision": text, "audio": text, "mtp": not drafting}
    without = [part for part, out in left_out.items() if out]
    exact = model.weights is not None and model.weights.names and not weights.recast(model, run.effective.dtype)
    told = _not_described(model) or uncounted.of_weights(run.line, model)
    return told or ("" if exact else geometry.unsized(*without) or model.quantisation.unknown)


def _no_drafter(run: Invocation) -> str:
    """Why the draft model of a line is not known; "" where it is, or where there is none."""
    speculation = run.effective.speculative
    if speculation is None:
        return ""
    if not speculation.needs_drafter:
        return uncounted.of_drafting(run, speculation)
    if run.drafter is not None:
        return f"of the drafter: {_not_described(run.drafter)}" if run.drafter.geometry.gaps else ""
    if not speculation.model:
        return f"the line names no drafter for {speculation.method}"
    return f"nothing is known of the drafter {speculation.model!r}: give a folder with its config.json"


def _pool(run: Invocation, cache: CacheLayout, budget: Budget | None = None) -> Pool:
    """The pool of a budget; without one its groups and blocks alone."""
    drafter = run.drafter.geometry if run.drafter else None
    groups, block_bytes = pool.shape(cache, run.effective, drafter)
    if budget is None or budget.overfull:
        return Pool(groups, block_bytes, 0)
    given = run.line.get("num-gpu-blocks-override")
    return Pool(groups, block_bytes, given if isinstance(given, int) else max(0, int(budget.pool // block_bytes)))


def _restarted(run: Invocation, made: Pool, budget: Budget) -> Pool:
    fixed = budget.overfull or run.line.get("num-gpu-blocks-override") is not None
    return made if fixed else replace(made, blocks=max(0, int((budget.pool + budget.restart) // made.block_bytes)))


def _solved(fit: Fit, model: Model, made: Pool, question: Question) -> dict[str, int] | None:
    if question.solve == "streams":
        return {"streams": made.streams(fit.context), "context": fit.context}
    if question.solve == "context":
        most = model.geometry.max_positions or fit.run.effective.max_model_len or fit.context
        return {"streams": fit.streams, "context": made.context(fit.streams, most)}
    return None


def _steps(fit: Fit, model: Model, cache: CacheLayout, loaded: RankWeights, question: Question) -> tuple[Figures, str]:
    """The decode steps, and why the ceiling of this line is not known ("" where it is)."""
    run = fit.run.effective
    if cache.kv_bytes_per_token is None or model.geometry.gaps:
        return Figures(), _unlaid(fit.run, model, cache)
    method = run.speculative.method if run.speculative else ""
    decoder = Decoder(
        geometry=model.geometry,
        parts=loaded.parts,
        cache=cache,
        bandwidth=fit.device.bandwidth,
        launch=fit.device.launch,
        tensor_parallel=run.tensor_parallel,
        mtp=method == "mtp",
        drafter_bytes=loaded.drafter_bytes,
    )
    plain = Figures(plain=decoder.step())
    if reason := _no_drafter(fit.run):
        return plain, reason
    drafted = run.speculative_tokens
    tokens = 1.0 if not drafted else question.acceptance or (decode.ACCEPTED.get(drafted) if method == "mtp" else None)
    if tokens is None:
        return (
            plain,
            f"how many of {drafted} tokens drafted by {method} are accepted is not published; give --acceptance",
        )
    single, together = (decoder.step(streams, drafted, tokens) for streams in (1, fit.streams))
    return replace(plain, single=single, together=together), ""
