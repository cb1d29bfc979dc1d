"""What the engine makes of a line: its defaults, what it derives, what it overrides, by version.

The laws come from the engine's file (`engine.law`), the block from `hybrid_cache`. It must not check: rules do.

Source: the configuration classes of vLLM 0.19.1 to 0.33.0, run on a CPU; tests/unit/lint/verdicts.json has every row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import lcm
from typing import Any

from sparkops.models.architecture.geometry import FLOAT32, Geometry
from sparkops.models.architecture.hybrid_cache import BlockRule, CacheOptions, layout
from sparkops.models.engine import Engine
from sparkops.models.serve_line import AUTO, ServeLine

KERNEL_BLOCK = 16
"""Tokens that every attention kernel's block is a multiple of."""

LARGEST_CAPTURE = 512
MLA_DISABLED = "VLLM_MLA_DISABLE"
"""The variable with which layers of latent attention keep keys and values (vLLM config/model.py: use_mla)."""
PREFILL_HEAD = 128
"""The key head of the linear layers for which the engine takes FlashInfer's prefill (vLLM 0.33
layers/mamba/gdn/qwen_gdn_linear_attn.py)."""


@dataclass(frozen=True, slots=True)
class Speculative:
    """The speculation as the engine reads it. `method` is normalised (every `…_mtp` is `mtp`), "" where none follows;
    `given` is what was written. `tokens` is None where it was not given or is no whole number."""

    method: str
    tokens: int | None
    model: str | None
    given: Mapping[str, object]

    @property
    def needs_drafter(self) -> bool:
        """Whether the method drafts with a checkpoint of its own."""
        return self.method in ("draft_model", "eagle", "eagle3", "dflash", "medusa", "mlp_speculator")


@dataclass(frozen=True, slots=True)
class Effective:
    """What the engine runs with; None where it can't be known (without a geometry, or for an unknown cache type)."""

    chunked_prefill: bool
    enable_prefix_caching: bool
    mamba_cache_mode: str | None
    max_num_batched_tokens: int
    max_num_seqs: int
    max_model_len: int | None
    gpu_memory_utilization: float
    kv_cache_dtype: str
    attention_backend: str | None
    tensor_parallel: int
    pipeline_parallel: int
    data_parallel: int
    prefill_context_parallel: int
    decode_context_parallel: int
    nnodes: int
    node_rank: int
    executor: str
    speculative: Speculative | None
    dtype: str
    ssm_dtype: str
    conv_dtype: str
    block_size: int | None
    cudagraph_mode: str
    max_capture_size: int
    decode_captured: bool
    batches_in_flight: int
    state_checkpoints: frozenset[str]
    model_runner_v2: bool | None

    @property
    def world_size(self) -> int:
        """Ranks of one replica: tensor × pipeline × prefill context."""
        return self.tensor_parallel * self.pipeline_parallel * self.prefill_context_parallel

    @property
    def speculative_tokens(self) -> int:
        """Speculative tokens a step, 0 without speculation."""
        return (self.speculative.tokens or 0) if self.speculative else 0


def effective(
    line: ServeLine,
    geometry: Geometry | None,
    engine: Engine,
    env: Mapping[str, str] | None = None,
    gpus: int = 1,
    drafter: Geometry | None = None,
    stored_cache: str = "auto",
) -> Effective:
    """What `engine` makes of `line` for a model of `geometry`; `gpus` are those of one node, `stored_cache` is the type
    of the cache that the checkpoint declares."""
    variables = {**line.environment, **(env or {})}
    chunked = line.get("enable-chunked-prefill") is not False
    caching = _prefix_caching(line, geometry, engine)
    length = _length(line, geometry, engine)
    tokens, seqs = batch(line, length, chunked)
    speculation = speculative(line, drafter)
    numbers = {flag: _number(line, engine, flag) for flag in _SIZES}
    executor = line.get("distributed-executor-backend") or _executor(numbers)
    dtype = line.get("dtype") or "auto"
    cache = line.get("kv-cache-dtype") or "auto"
    cache = stored_cache if cache == "auto" else cache
    asynchronous = _async(line, engine, speculation)
    capture, mode = _capture(line, geometry, tokens, seqs, speculation)
    states = _states(line, geometry, engine, caching)
    block = _block(line, geometry, engine, states, speculation, numbers["tensor-parallel-size"], cache)
    return Effective(
        chunked_prefill=chunked,
        enable_prefix_caching=caching,
        mamba_cache_mode=states,
        max_num_batched_tokens=tokens,
        max_num_seqs=seqs,
        max_model_len=length,
        gpu_memory_utilization=_or(
            line.get("gpu-memory-utilization"), engine.defaults.get("gpu-memory-utilization", 0.9)
        ),
        kv_cache_dtype=cache,
        attention_backend=_backend(line, engine, cache, dtype),
        tensor_parallel=numbers["tensor-parallel-size"],
        pipeline_parallel=numbers["pipeline-parallel-size"],
        data_parallel=numbers["data-parallel-size"],
        prefill_context_parallel=numbers["prefill-context-parallel-size"],
        decode_context_parallel=numbers["decode-context-parallel-size"],
        nnodes=numbers["nnodes"],
        node_rank=numbers["node-rank"],
        executor=executor,
        speculative=speculation,
        dtype=dtype,
        ssm_dtype=line.get("mamba-ssm-cache-dtype") or "auto",
        conv_dtype=line.get("mamba-cache-dtype") or "auto",
        block_size=block,
        cudagraph_mode=mode,
        max_capture_size=capture,
        decode_captured=bool(engine.behaviour.get("decode_sizes_captured", True))
        and not _captures(line)
        and not (geometry and geometry.largest_capture),
        batches_in_flight=2 if asynchronous and engine.behaviour.get("in_flight_counted", True) else 1,
        state_checkpoints=_checkpoints(line, geometry, engine),
        model_runner_v2=_runner(engine, variables, speculation),
    )


def speculative(line: ServeLine, drafter: Geometry | None = None) -> Speculative | None:
    """The speculation of a line, from its JSON or the shorthand flags; None without."""
    given = dict(line.mapping("speculative-config"))
    for flag, key in (("spec-method", "method"), ("spec-model", "model"), ("spec-tokens", "num_speculative_tokens")):
        if line.get(flag) is not None:
            given[key] = line.get(flag)
    if not given and line.get("speculative-config") is None:
        return None
    model = given.get("model")
    model = model if isinstance(model, str) else None
    count = whole(given.get("num_speculative_tokens"))
    return Speculative(_method(given.get("method"), model, drafter), count, model, given)


def whole(value: object) -> int | None:
    """A whole number as the engine's validators read it: also `"2"`, `2.0` and `true`; None for anything else."""
    if not isinstance(value, (int, float, str)):
        return None
    try:
        return int(value) if float(value) == int(float(value)) else None
    except (ValueError, OverflowError):
        return None


def truthy(value: str | None) -> bool:
    """A switch in an environment variable, as the engine reads one."""
    return (value or "").strip().lower() in ("1", "true")


def batch(line: ServeLine, length: int | None, chunked: bool) -> tuple[int, int]:
    """Batched tokens and sequences. Where nothing is given, a GB10 gets 2048 and 256 in every version."""
    tokens, seqs = line.get("max-num-batched-tokens"), line.get("max-num-seqs")
    doubled = 2 if line.get("performance-mode") == "throughput" else 1
    wanted_seqs = 256 * doubled if seqs is None else seqs
    if tokens is None:
        tokens = 2048 * doubled
        if length is not None:
            tokens = min(wanted_seqs * length, tokens if chunked else max(length, tokens))
    return tokens, min(wanted_seqs, tokens) if seqs is None else seqs


_SIZES = (
    "tensor-parallel-size",
    "pipeline-parallel-size",
    "data-parallel-size",
    "prefill-context-parallel-size",
    "decode-context-parallel-size",
    "nnodes",
    "node-rank",
)


def _or(value: object, default: object) -> Any:
    return default if value is None else value


def _number(line: ServeLine, engine: Engine, flag: str) -> int:
    return int(_or(line.get(flag), engine.defaults.get(flag, 1)))


def _method(method: object, model: str | None, drafter: Geometry | None) -> str:
    if isinstance(method, str) and method:
        return "mtp" if method == "mtp" or method.endswith("_mtp") else method.strip("[]")
    if model is None:
        return ""
    if model in ("ngram", "[ngram]"):
        return "ngram"
    for part, name in (("eagle-", "eagle"), ("eagle3", "eagle3"), ("dflash", "dflash"), ("dspark", "dspark")):
        if part in model.lower():
            return name
    return "mtp" if drafter is not None and drafter.model_type.endswith("_mtp") else "draft_model"


def _prefix_caching(line: ServeLine, geometry: Geometry | None, engine: Engine) -> bool:
    given = line.get("enable-prefix-caching")
    if given is not None:
        return bool(given)
    if geometry is not None and geometry.hybrid:
        return bool(engine.law("prefix_caching_default_hybrid"))
    return True


def _length(line: ServeLine, geometry: Geometry | None, engine: Engine) -> int | None:
    given = line.get("max-model-len")
    if given is None or given == AUTO:
        return geometry.usual(engine.law("yarn_raises_length")) or None if geometry is not None else None
    return int(given)


def _executor(numbers: Mapping[str, int]) -> str:
    ranks = numbers["tensor-parallel-size"] * numbers["pipeline-parallel-size"] * numbers["data-parallel-size"]
    return "mp" if ranks * numbers["prefill-context-parallel-size"] > 1 else "uni"


def _backend(line: ServeLine, engine: Engine, cache: str, dtype: str) -> str | None:
    given = line.get("attention-backend") or line.mapping("attention-config").get("backend")
    if isinstance(given, str) and given.lower() != "auto":
        return given.upper()
    return next((name for name, takes in engine.attention.items() if serves(name, takes, cache, dtype)), None)


def serves(name: str, takes: tuple[str, ...], cache: str, dtype: str) -> bool:
    """Whether a backend that `takes` these cache types serves this one, and activations of this type."""
    return cache in takes and (dtype not in FLOAT32 or name in ("TRITON_ATTN", "FLEX_ATTENTION"))


def _states(line: ServeLine, geometry: Geometry | None, engine: Engine, caching: bool) -> str | None:
    """Of which tokens recurrent layers keep their states: of the last block's end (`align`), or of each block's (`all`)
    where version and architecture can (vLLM 0.19.1 to 0.33.0 model_executor/models/config.py: MambaModelConfig)."""
    if geometry is None:
        return None
    if not (geometry.hybrid and caching):
        return "none"
    given, law = line.get("mamba-cache-mode"), engine.behaviour.get("state_per_block", "absent")
    asked = (law != "absent" and given == "all") or (law == "default" and given in (None, "none"))
    return "all" if asked and geometry.state_chunk else "align"


def _block(
    line: ServeLine,
    geometry: Geometry | None,
    engine: Engine,
    states: str | None,
    speculation: Speculative | None,
    tensor_parallel: int,
    cache: str,
) -> int | None:
    """Tokens in a block; None also for a user's block of layers that keep a state for each, whose rule is not
    described."""
    wanted = line.get("block-size")
    if geometry is None or tensor_parallel < 1 or (wanted is not None and (wanted < 1 or states == "all")):
        return None
    dtype = line.get("dtype") or "auto"
    if dtype != "auto":
        geometry = replace(geometry, dtype=dtype)
    options = CacheOptions(
        kv_dtype=cache,
        ssm_dtype=line.get("mamba-ssm-cache-dtype") or "auto",
        conv_dtype=line.get("mamba-cache-dtype") or "auto",
        tensor_parallel=tensor_parallel,
        speculative_tokens=(speculation.tokens or 0) if speculation else 0,
    )
    multiple = _multiple(line, geometry, engine) if states == "align" else KERNEL_BLOCK
    if states == "all":
        multiple = lcm(multiple, geometry.state_chunk)
    if geometry.latent:
        multiple = lcm(multiple, engine.law("latent_block"))
    return layout(geometry, options, BlockRule(wanted, engine.law("user_block"), multiple)).block_size


def _multiple(line: ServeLine, geometry: Geometry, engine: Engine) -> int:
    """What the aligned block is a multiple of: FlashInfer's prefill checkpoints, where the engine takes them."""
    return int(engine.law("align_block_multiple")) if _prefilled(line, geometry) else KERNEL_BLOCK


def _prefilled(line: ServeLine, geometry: Geometry) -> bool:
    """Whether FlashInfer's kernels read a prompt in delta nets."""
    chosen = line.mapping("additional-config").get("gdn_prefill_backend") or line.get("gdn-prefill-backend")
    return chosen in (None, "auto", "flashinfer") and geometry.linear_key_dim == PREFILL_HEAD


def _checkpoints(line: ServeLine, geometry: Geometry | None, engine: Engine) -> frozenset[str]:
    """The sorts of recurrent layers that keep one state more while a prompt is read: delta nets by FlashInfer only."""
    name = "state_checkpoints"
    found = frozenset(engine.law(name) if name in engine.behaviour else ("mamba2", "delta"))
    return found if geometry is None or _prefilled(line, geometry) else found - {"delta"}


def _capture(
    line: ServeLine, geometry: Geometry | None, tokens: int, seqs: int, speculation: Speculative | None
) -> tuple[int, str]:
    """The largest batch for which CUDA graphs are captured, and how."""
    config = line.mapping("compilation-config")
    mode = str(config.get("cudagraph_mode") or "FULL_AND_PIECEWISE").upper()
    if line.get("enforce-eager") or line.get("optimization-level") == 0 or mode == "NONE":
        return 0, "NONE"
    if given := _captures(line):
        return min(given, tokens), mode
    decoding = 1 + ((speculation.tokens or 0) if speculation else 0)
    usual = min(LARGEST_CAPTURE, 2 * seqs * decoding)
    return min(geometry.largest_capture or usual if geometry else usual, tokens), mode


def _captures(line: ServeLine) -> int:
    """The largest size of CUDA graphs that a line gives; 0 where it gives none."""
    config = line.mapping("compilation-config")
    largest = _or(line.get("max-cudagraph-capture-size"), config.get("max_cudagraph_capture_size"))
    if isinstance(largest, int):
        return largest
    sizes = line.get("cudagraph-capture-sizes") or config.get("cudagraph_capture_sizes")
    return max((each for each in sizes if isinstance(each, int)), default=0) if isinstance(sizes, (list, tuple)) else 0


def _async(line: ServeLine, engine: Engine, speculation: Speculative | None) -> bool:
    given = line.get("async-scheduling")
    if given is not None or speculation is None:
        return given is not False
    if engine.law("padded_batch_for_async") and speculation.given.get("disable_padded_drafter_batch") is True:
        return False
    return speculation.method not in engine.law("async_off")


def _runner(engine: Engine, env: Mapping[str, str], speculation: Speculative | None) -> bool | None:
    """Whether model runner V2 serves; None where the version has none to choose."""
    default = engine.law("model_runner_v2")
    if "VLLM_USE_V2_MODEL_RUNNER" in env:
        return truthy(env["VLLM_USE_V2_MODEL_RUNNER"])
    if default == "absent":
        return None
    method = speculation.method if speculation else ""
    return default == "on" and method not in engine.law("model_runner_v2_without")
