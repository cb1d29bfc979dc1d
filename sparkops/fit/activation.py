"""The peak of the engine's profiling run on one rank: what a step of the most tokens takes beside weights and cache.

It must not know a budget. The engine takes the largest of several runs, one after the other: the language
model's, the encoder's of images at its largest input, the sampler's, and at a first start the compiler's.

Source: starts of vLLM 0.26.0 on an H200 (tests/data/memory-oracle.json, memory-families.json: nine families) and the
engine's code; other devices are unverified.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sparkops.models.architecture.architectures import Tensor
from sparkops.models.architecture.geometry import STATE, Geometry
from sparkops.models.effective import Effective
from sparkops.models.invocation import Invocation
from sparkops.models.serve_line import ServeLine

WIDE = 2
"""Bytes of an element of an activation."""
STREAMS = 3.5
"""Tensors as wide as the model that are alive beside a dense layer's own (3.0 to 3.4 of Phi-4, Llama-3.3-70B and
Devstral, run as written and compiled)."""
EXPERT_STREAMS = 7
"""The same beside experts: also the router's input, the shared experts' output and that of the routed ones (6.8 of
ERNIE-4.5-21B)."""
COPIES = 2
"""How often an attention layer's projections are alive: as they come, and after norms and positions (Qwen3-30B-A3B)."""
STATE_ELEMENTS = 9
"""Elements of a recurrent layer alive for each element of its value heads: its chunks, decays, gates, states (7.2 to
9.1 of Qwen3.5-35B, Qwen3.5-122B and Nemotron-3-Nano)."""
CLEARED = 60 * 2**20
"""What the compiler writes to empty the cache before it times a kernel: an H200's L2."""
DRAFTED_STREAMS = 17
"""Tensors as wide as the model among the examples that the compiler makes for the prediction head (1,766 MiB at 8192
tokens of 2048 elements), beside those of the model."""
SPARSE = (0.0934 * 2**30, 679_780)
"""Of a model of sparse or compressed latents: bytes, and bytes for each token (MiaAI-Lab issue 4: 2048 → 1.39 GiB,
8224 → 5.30 GiB)."""
LATENT_TOKENS = 65_536
"""Tokens at most whose latents are expanded at once (vLLM mla_attention: determine_chunked_prefill_workspace_size)."""
SAMPLED = 12
"""Bytes for each word of the vocabulary and sequence: logits, and two copies in 32 bits (vLLM v1/sample)."""


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes of a rank. `first` of the language model at a start that compiles, `later` at one that finds what an
    earlier one compiled; `encoder` of the largest images, instead of that where it is more."""

    first: float
    later: float
    encoder: float


def peak(run: Invocation, geometry: Geometry) -> Peak:
    """The peaks of a line. The geometry's sizes must be known."""
    seeing = sees(run.line, geometry)
    compiling = compiles(run.line)
    kept = (
        _images(run.effective, geometry) * geometry.encoder.get("tokens", 0) * geometry.hidden * WIDE if seeing else 0
    )
    later = max(_forward(run.effective, geometry), _sampling(run.effective, geometry)) + kept
    first = max(later, _compiling(run, geometry)) if compiling and not seeing else later
    return Peak(first, later, _encoding(run, geometry) if seeing else 0.0)


def sees(line: ServeLine, geometry: Geometry) -> bool:
    """Whether images are taken, so that the engine runs their encoder."""
    limits = line.mapping("limit-mm-per-prompt")
    none = bool(limits) and all(each == 0 for each in limits.values())
    return geometry.multimodal and not line.get("language-model-only") and not none


def raised_batch(run: Invocation, geometry: Geometry) -> int:
    """What the engine raises the default batch to, so that the largest image or video comes in one; 0 where it does
    not. It does so where it can read the repository's processor, of which nothing is known here."""
    given = run.line.get("max-num-batched-tokens") is not None or not sees(run.line, geometry)
    return geometry.item_tokens if not given and geometry.item_tokens > run.effective.max_num_batched_tokens else 0


def unprofiled(run: Invocation, geometry: Geometry) -> str:
    """Why the memory that is left for the pool can't be known; "" where it can."""
    unseen = [geometry.part_gaps[part] for part in ("vision", "audio") if part in geometry.part_gaps]
    if sees(run.line, geometry) and (unseen or not geometry.encoder.get("patches")):
        return next(iter(unseen), "the largest input of its encoder of images is not described")
    return ""


def compiles(line: ServeLine) -> bool:
    """Whether the model's code is compiled."""
    mode = line.mapping("compilation-config").get("mode", line.mapping("compilation-config").get("level"))
    return not line.get("enforce-eager") and line.get("optimization-level") != 0 and mode not in (0, "0", "NONE")


def _forward(run: Effective, geometry: Geometry) -> float:
    tokens = run.max_num_batched_tokens
    plain = tokens * WIDE * (_workspace(geometry, run.tensor_parallel) + _widest(geometry, run.tensor_parallel))
    kinds = {each.kind for each in geometry.cached}
    if kinds & {"sparse", "packed"}:
        return max(plain, SPARSE[0] + SPARSE[1] * tokens)
    if "latent" in kinds:
        length = run.max_model_len or LATENT_TOKENS
        expanded = min(LATENT_TOKENS, max(8 * length, 4 * run.max_num_seqs * (run.block_size or 16)))
        plain += expanded * WIDE * geometry.latent_width / run.tensor_parallel
    return plain


def _workspace(geometry: Geometry, ranks: int) -> float:
    """Elements for each token of the two buffers that routed experts keep once they have run (vLLM fused_moe:
    workspace_shapes of Triton's and Marlin's experts)."""
    layers: dict[int | None, list[Tensor]] = defaultdict(list)
    for each in geometry.shape.tensors:
        if each.width and not each.part.startswith("mtp"):
            layers[each.layer].append(each)
    found = [0.0]
    for tensors in layers.values():
        width, outer = tensors[0].width, tensors[0].elements / tensors[0].width
        first = sum(each.elements for each in tensors) / outer - width  # all but the last projection
        found.append(max(width / ranks, outer) + max(first / ranks, outer))
    return geometry.experts_per_token * max(found)


def _widest(geometry: Geometry, ranks: int) -> float:
    """Elements that the widest layer makes of one token on one rank, beside the buffers of routed experts."""
    widths: dict[tuple[int | None, str], float] = defaultdict(float)
    routed = {each.layer for each in geometry.shape.tensors if each.width}
    for each in geometry.shape.tensors:
        if each.layer is None or each.count > 1 or each.part.startswith(("norms", "router", "ngram", "mtp")):
            continue
        copies = COPIES if each.part == "attention" else 1
        widths[each.layer, each.part] += copies * each.parameters / geometry.hidden / (ranks if each.split else 1)
    states = [each for each in geometry.cached if each.kind == STATE]
    inner = max((each.heads * (each.key if each.groups else each.value) for each in states), default=0)
    found = [STATE_ELEMENTS * inner / ranks + STREAMS * geometry.hidden]
    for (layer, part), width in widths.items():
        streams = EXPERT_STREAMS if layer in routed and part != "attention" else STREAMS
        found.append(width + streams * geometry.hidden)
    return max(found)


def _sampling(run: Effective, geometry: Geometry) -> float:
    rows = run.max_num_batched_tokens * geometry.hidden * WIDE
    return rows + SAMPLED * run.max_num_seqs * geometry.vocabulary


def _compiling(run: Invocation, geometry: Geometry) -> float:
    """The compiler times kernels on examples of all that they take, the embedding among it."""
    effective = run.effective
    row = effective.max_num_batched_tokens * geometry.hidden * WIDE
    plain = geometry.vocabulary * geometry.hidden * WIDE / effective.tensor_parallel + CLEARED + 2 * row
    if effective.speculative is None or effective.speculative.method != "mtp":
        return plain
    return plain + geometry.table_bytes(run.engine.law("mrope_tables")) + DRAFTED_STREAMS * row


def _images(run: Effective, geometry: Geometry) -> int:
    """How many of the largest images the engine profiles at once."""
    return max(1, run.max_num_batched_tokens // max(1, geometry.encoder.get("tokens", 1)))


def _encoding(run: Invocation, geometry: Geometry) -> float:
    if run.line.get("skip-mm-profiling"):
        return 0.0
    patches, each = geometry.encoder.get("patches", 0), geometry.encoder.get("patch_bytes", 0)
    return float(_images(run.effective, geometry) * patches * each)
