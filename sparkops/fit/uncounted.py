"""What of a line changes the figures in a way that nobody described: the figures are unknown then, and say why.

It must not know a memory. Source: the engine's own options (vLLM 0.33.0 engine/arg_utils.py, config/).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sparkops.fit.activation import unprofiled
from sparkops.fit.weights import LEFT, SHORTHANDS
from sparkops.models.architecture.geometry import FLOAT32, Geometry
from sparkops.models.catalogue import Model
from sparkops.models.invocation import Invocation
from sparkops.models.serve_line import ServeLine

OFFLOADS = ("cpu-offload-gb", "offload-group-size")
"""Flags that leave weights outside the memory of the GPU, from 1 on."""
OF_POOL: Mapping[str, str] = {
    "enable-lora": "the buffers of adapters",
    "enable-eplb": "the experts that are kept twice",
}
"""What of the memory is not counted with a flag."""
STATES = ("mamba-block-size", "use-replayssm")
"""Flags that change what recurrent layers keep."""
POSITIONS = frozenset(("rope_parameters", "rope_scaling", "rope_theta", "max_position_embeddings"))
"""Keys of a configuration on which no size depends once the length is given."""
NESTED = ("text_config", "llm_config", "thinker_config")


def overridden(line: ServeLine) -> str:
    """Why nothing can be counted of a line that changes what the model is; "" where no size may depend on that."""
    if flag := next((flag for flag in STATES if line.get(flag)), ""):
        return f"what recurrent layers keep with --{flag} is not described"
    keys = set(_keys(line.get("hf-overrides") or {})) - (POSITIONS if line.get("max-model-len") else frozenset())
    if not keys:
        return ""
    return f"--hf-overrides changes the model's configuration ({', '.join(sorted(keys))}), which is not counted"


def of_weights(line: ServeLine, model: Model) -> str:
    """Why the bytes of the weights on the GPU can't be known for what the line makes of them; "" where they can."""
    asked = str(line.get("quantization") or "")
    if asked and not model.quantisation.method and asked not in LEFT and not asked.startswith(tuple(SHORTHANDS)):
        return f"how many bytes --quantization {asked} makes of the weights is not known"
    for flag in OFFLOADS:
        given = line.get(flag)
        if isinstance(given, (int, float)) and given > 0:
            return f"how much of the weights --{flag} leaves outside is not counted"
    if line.get("model-impl") in (None, "auto", "vllm"):
        return ""
    return f"the layers of --model-impl {line.get('model-impl')} are not described"


def of_pool(run: Invocation, geometry: Geometry) -> str:
    """Why the memory that is left for the pool can't be known; "" where it can."""
    for flag, what in OF_POOL.items():
        if run.line.get(flag):
            return f"{what} are not counted (--{flag})"
    if run.effective.dtype in FLOAT32:
        return f"what a step takes with --dtype {run.effective.dtype} is not known"
    return unprofiled(run, geometry)


def _keys(given: object) -> Iterator[str]:
    if not isinstance(given, Mapping):
        yield str(given)
        return
    for key, value in given.items():
        if key in NESTED and isinstance(value, Mapping):
            yield from _keys(value)
        else:
            yield str(key)
