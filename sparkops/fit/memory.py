"""Memory of one rank on a Spark: what the engine may take, what weights and the run take, what is left for the pool.

The estimates are constants with their sources, the same for every model and every published point.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparkops.models.invocation import Invocation

GIB = 2**30

VISIBLE = 121.69 * GIB
"""Bytes that CUDA sees on a Spark (sparkrun: MemTotal 127,601,452 KiB; OEM boxes: to 2 GiB less, tobias-weiss.org)."""

ACTIVATION = (0.0934 * GIB, 679_780)
"""Peak of the profiling run: bytes, and bytes for each batched token. The line through the two measured points,
2048 → 1.39 GiB and 8224 → 5.30 GiB (MiaAI-Lab issue 4; another model, unverified for this one)."""

GRAPHS = 0.6 * GIB
"""What the engine sets aside for CUDA graphs (Entrpi FINDINGS; the variable below at 0 returns it)."""

NON_TORCH = 1.5 * GIB
"""CUDA's context, NCCL and workspaces: 1 to 2 GiB (an estimate, unverified)."""

ENCODER = 2.8 * GIB
"""What a multimodal model's profile takes beyond the above: the mean of what the three published pools of the 122B lack
without it (3.5, 4.2 and 0.9 GiB). That it is the image encoder at its largest input is unverified."""

HOST = 16 * GIB
"""What should be left for the host: 0.82 leaves it and is the validated value; 0.88 swaps (Entrpi FINDINGS)."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes on one rank. `pool` is what is left for the cache (negative where the rest does not fit), `host` what the
    engine leaves to everything else on the node."""

    total: float
    allowed: float
    weights: float
    activation: float
    graphs: float
    non_torch: float
    encoder: float
    pool: float

    @property
    def taken(self) -> float:
        """Bytes that weights and run take, without the pool."""
        return self.weights + self.activation + self.graphs + self.non_torch + self.encoder

    @property
    def host(self) -> float:
        """Bytes that are left outside the engine when its pool is allocated."""
        return self.total - self.taken - max(0.0, self.pool)

    @property
    def overfull(self) -> bool:
        """Whether that is more than there is; a byte may be lost in the division."""
        return self.host < -1


def budget(run: Invocation, weight_bytes: float, *, multimodal: bool) -> Budget:
    """The budget of a rank. `--kv-cache-memory-bytes` sets the pool itself, and the utilisation no longer counts."""
    line, effective = run.line, run.effective
    activation = ACTIVATION[0] + ACTIVATION[1] * effective.max_num_batched_tokens
    off = run.env.get(ESTIMATE, line.environment.get(ESTIMATE, "1")) in ("0", "false")
    graphs = 0.0 if off or effective.cudagraph_mode == "NONE" else GRAPHS
    encoder = ENCODER if multimodal and not line.get("language-model-only") else 0.0
    allowed = VISIBLE * effective.gpu_memory_utilization
    given = line.get("kv-cache-memory-bytes")
    rest = allowed - weight_bytes - activation - graphs - NON_TORCH - encoder
    return Budget(
        total=VISIBLE,
        allowed=allowed,
        weights=weight_bytes,
        activation=activation,
        graphs=graphs,
        non_torch=NON_TORCH,
        encoder=encoder,
        pool=rest if given is None else float(given),
    )


ESTIMATE = "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS"
