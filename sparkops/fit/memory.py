"""Memory of one rank: what the engine may take, what weights and the run take, what is left for the pool.

    available = total x utilization - weights - peak of the profiling run - outside of torch - graphs

holds to the byte (vLLM 0.26.0 on an H200). The estimates are the same for every model and every published point.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparkops.fit.activation import peak
from sparkops.models.architecture.geometry import Geometry
from sparkops.models.invocation import Invocation
from sparkops.models.platform import GIB, Device
from sparkops.models.serve_line import ServeLine

GRAPHS = (3.7 * 2**20, 0.21 * 2**20)
"""What the engine sets aside for CUDA graphs, in bytes for each layer: up to 5 captured sizes, and each further one.
108 to 142 MiB of 40 layers and 168 MiB of 48 at 4 or 5 sizes (H200); 0.6 GiB of 48 layers at the 51 sizes of 512 tokens
(Entrpi FINDINGS; that these were the sizes is unverified)."""
FEW = 5

NON_TORCH = 0.28 * GIB
"""CUDA's kernels and workspaces of one rank (0.22 to 0.28 GiB on an H200; CUDA's own context is outside)."""

NCCL = 1.2 * GIB
"""What more than one rank adds: 1 to 2 GiB in all were published (an estimate, unverified)."""

ESTIMATE = "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS"


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes on one rank. `pool` is what is left for the cache at a first start (negative where the rest does not fit),
    `restart` how much more a start has that finds the compiled code of an earlier one; `encoder` is what the encoder of
    images takes beyond `activation`, since the engine counts the larger of both; `offloaded` is what the cache keeps in
    the host's memory where that is the same; `host` is what the engine leaves to everything else on the node."""

    total: float
    allowed: float
    weights: float
    activation: float
    graphs: float
    non_torch: float
    encoder: float
    beyond: float
    pool: float
    restart: float
    offloaded: float

    @property
    def taken(self) -> float:
        """Bytes that weights and run take, without the pool."""
        return self.weights + self.activation + self.graphs + self.non_torch + self.encoder + self.beyond

    @property
    def host(self) -> float:
        """Bytes that are left outside the engine when its pool is allocated."""
        return self.total - self.taken - max(0.0, self.pool) - self.offloaded

    @property
    def overfull(self) -> bool:
        """Whether that is more than there is; a byte may be lost in the division."""
        return self.host < -1


def budget(run: Invocation, geometry: Geometry, weight_bytes: float, device: Device) -> Budget:
    """The budget of a rank. `--kv-cache-memory-bytes` sets the pool itself, and the utilisation no longer counts."""
    line, effective = run.line, run.effective
    peaks = peak(run, geometry)
    encoder = max(0.0, peaks.encoder - peaks.first)
    graphs = _graphs(run, geometry)
    outside = NON_TORCH + (NCCL if effective.world_size * effective.data_parallel > 1 else 0)
    allowed = device.memory * effective.gpu_memory_utilization
    given = line.get("kv-cache-memory-bytes")
    rest = allowed - weight_bytes - peaks.first - graphs - outside - encoder - device.beyond
    return Budget(
        total=device.memory,
        allowed=allowed,
        weights=weight_bytes,
        activation=peaks.first,
        graphs=graphs,
        non_torch=outside,
        encoder=encoder,
        beyond=device.beyond,
        pool=rest if given is None else float(given),
        offloaded=_offloaded(line, effective.tensor_parallel) if device.host else 0.0,
        restart=max(peaks.first, peaks.encoder) - max(peaks.later, peaks.encoder) if given is None else 0.0,
    )


def _offloaded(line: ServeLine, ranks: int) -> float:
    """What one rank keeps of the cache in the host's memory; the flag says what all of them do."""
    return max(0.0, GIB * float(line.get("kv-offloading-size") or 0) / ranks)


def _graphs(run: Invocation, geometry: Geometry) -> float:
    off = run.env.get(ESTIMATE, run.line.environment.get(ESTIMATE, "1")) in ("0", "false")
    if off or run.effective.cudagraph_mode == "NONE":
        return 0.0
    sizes = captured(run.effective.max_capture_size)
    return len(geometry.layers) * (GRAPHS[0] + GRAPHS[1] * max(0, sizes - FEW))


def captured(largest: int) -> int:
    """How many sizes are captured up to the largest one: 1, 2, 4, by eights to 256, then by sixteens (vLLM config)."""
    return len({1, 2, 4, *range(8, min(largest, 256) + 1, 8), *range(272, largest + 1, 16)} & {*range(1, largest + 1)})
