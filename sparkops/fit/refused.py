"""Why an engine would not start with a line, so that nothing fits.

Only what makes the figures meaningless: every other rule, and its remedy, is lint's. It must not know a memory.

Source: the parser and the configuration classes of vLLM 0.19.1 to 0.33.0, run on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator

from sparkops.models.architecture.geometry import Geometry
from sparkops.models.effective import Effective
from sparkops.models.invocation import Invocation
from sparkops.models.serve_line import ServeLine

ELSEWHERE = ("ray", "external_launcher")
"""Executors that place ranks on other nodes without `--nnodes`."""


WORDS = ("unknown", "choice", "ambiguous")
"""What the parser of another version may take."""


def refusal(run: Invocation, geometry: Geometry) -> str:
    """The first reason why the engine does not start; "" where none is known."""
    found = [
        *(each.message for each in run.line.problems if each.kind not in WORDS or not run.engine.unsure_of_words),
        *_sizes(run.line, run.effective),
        *_ranks(run.line, run.effective, geometry, run.gpus),
    ]
    return f"the engine refuses the line: {found[0]}; see `sparkops lint`" if found else ""


def no_size(line: ServeLine, run: Effective) -> str:
    """A size below 1, with which nothing can be counted; "" where there is none. What was given is named first."""
    sizes = {
        "tensor-parallel-size": run.tensor_parallel,
        "pipeline-parallel-size": run.pipeline_parallel,
        "data-parallel-size": run.data_parallel,
        "prefill-context-parallel-size": run.prefill_context_parallel,
        "decode-context-parallel-size": run.decode_context_parallel,
        "max-model-len": 1 if run.max_model_len is None else run.max_model_len,
        "max-num-batched-tokens": run.max_num_batched_tokens,
        "max-num-seqs": run.max_num_seqs,
    }
    wrong = sorted((flag for flag, size in sizes.items() if size < 1), key=lambda flag: line.get(flag) is None)
    return f"the engine refuses the line: {wrong[0]} {sizes[wrong[0]]} is below 1; see `sparkops lint`" if wrong else ""


def _sizes(line: ServeLine, run: Effective) -> Iterator[str]:
    if not 0 < run.gpu_memory_utilization <= 1:
        yield f"gpu-memory-utilization {run.gpu_memory_utilization:g} is no share of the memory"
    block = line.get("block-size")
    if isinstance(block, int) and block < 1:
        yield f"block-size {block} is below 1"


def _ranks(line: ServeLine, run: Effective, geometry: Geometry, gpus: int) -> Iterator[str]:
    tensor = run.tensor_parallel
    for what, count in geometry.uneven(tensor).items():
        yield f"{count} {what} can't be split evenly over {tensor} tensor-parallel ranks"
    apart = any(flag.startswith("data-parallel-") and flag != "data-parallel-size" for flag in line.arguments)
    ranks = run.world_size * (1 if apart else run.data_parallel)
    there = gpus * max(1, run.nnodes)
    if ranks > there and run.executor not in ELSEWHERE:
        where = f"{run.nnodes} nodes" if run.nnodes > 1 else "one node"
        yield f"{ranks} ranks need {ranks} GPUs, and {where} of {gpus} {'has' if run.nnodes <= 1 else 'have'} {there}"
