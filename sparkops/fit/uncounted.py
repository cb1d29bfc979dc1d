"""What of a line changes the figures in a way that nobody described: the figures are unknown then, and say why.

It must not know a memory. Source: the engine's own options (vLLM 0.33.0 engine/arg_utils.py, config/).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sparkops.fit.activation import unprofiled
from sparkops.fit.weights import LEFT, SHORTHANDS, quantises
from sparkops.models.architecture.geometry import FLOAT32, Geometry
from sparkops.models.catalogue import Model
from sparkops.models.effective import MLA_DISABLED, Speculative, truthy
from sparkops.models.invocation import Invocation
from sparkops.models.serve_line import ServeLine

OFFLOADS = ("cpu-offload-gb", "offload-group-size")
"""Flags that leave weights outside the memory of the GPU, from 1 on."""
OF_POOL: Mapping[str, str] = {
    "enable-lora": "the buffers of adapters",
    "enable-eplb": "the experts that are kept twice",
}
"""What of the memory is not counted with a flag."""
ELSEWHERE = ("config", "hf-config-path")
"""Flags that take other flags, or the model's configuration, from a file."""
STATES = ("mamba-block-size", "use-replayssm")
"""Flags that change what recurrent layers keep."""
FROM_TEXT = ("", "ngram", "ngram_gpu", "suffix")
"""Methods that draft from the text, and none."""
POSITIONS = frozenset(("rope_parameters", "rope_scaling", "rope_theta", "max_position_embeddings"))
"""Keys of a configuration on which no size depends once the length is given."""
NESTED = ("text_config", "llm_config", "thinker_config")


def overridden(run: Invocation) -> str:
    """Why nothing can be counted of a line that changes what the model is; "" where no size may depend on that."""
    line, geometry = run.line, run.model.known_geometry if run.model else None
    if geometry is not None and geometry.latent and truthy({**line.environment, **run.env}.get(MLA_DISABLED)):
        return f"what layers of latent attention keep with {MLA_DISABLED} is not described"
    if flag := next((flag for flag in ELSEWHERE if line.get(flag)), ""):
        return f"what --{flag} {line.get(flag)} holds is not read"
    if line.get("runner") == "pooling" or line.get("convert") not in (None, "auto", "none"):
        return "what a model keeps that answers with vectors or scores is not described (--runner, --convert)"
    if flag := next((flag for flag in STATES if line.get(flag)), ""):
        return f"what recurrent layers keep with --{flag} is not described"
    keys = set(_keys(line.get("hf-overrides") or {})) - (POSITIONS if line.get("max-model-len") else frozenset())
    if not keys:
        return ""
    return f"--hf-overrides changes the model's configuration ({', '.join(sorted(keys))}), which is not counted"


def of_weights(line: ServeLine, model: Model) -> str:
    """Why the bytes of the weights on the GPU can't be known for what the line makes of them; "" where they can."""
    asked = str(line.get("quantization") or "")
    if model.quantisation.method and "_per_" in asked:
        return f"what --quantization {asked} makes of a checkpoint that is quantised is not known"
    if asked and not model.quantisation.method and asked not in LEFT and not asked.startswith(tuple(SHORTHANDS)):
        return f"how many bytes --quantization {asked} makes of the weights is not known"
    if quantises(model, line) and (scheme := next(_unread(line.mapping("quantization-config")), "")):
        return f"how many bytes {scheme} of --quantization-config makes of the weights is not known"
    for flag in OFFLOADS:
        given = line.get(flag)
        if isinstance(given, (int, float)) and given > 0:
            return f"how much of the weights --{flag} leaves outside is not counted"
    if line.get("model-impl") in (None, "auto", "vllm"):
        return ""
    return f"the layers of --model-impl {line.get('model-impl')} are not described"


def of_drafting(run: Invocation, speculation: Speculative) -> str:
    """Why what a method drafts with can't be counted, that needs no draft model of its own; "" where it can."""
    if speculation.method in FROM_TEXT:
        return ""
    if speculation.method != "mtp":
        return f"what the method {speculation.method} drafts with is not described"
    if speculation.model in (None, "", run.line.model, run.served):
        return ""
    return f"what the head for prediction {speculation.model!r} of a repository of its own takes is not described"


def of_pool(run: Invocation, geometry: Geometry) -> str:
    """Why the memory that is left for the pool can't be known; "" where it can."""
    for flag, what in OF_POOL.items():
        if run.line.get(flag):
            return f"{what} are not counted (--{flag})"
    if run.effective.dtype in FLOAT32:
        return f"what a step takes with --dtype {run.effective.dtype} is not known"
    return unprofiled(run, geometry)


def _unread(config: Mapping[str, Any]) -> Iterator[str]:
    """The schemes whose formats are not known."""
    targets = config.get("targets")
    for scheme in (
        config.get("linear"),
        config.get("moe"),
        *(targets.values() if isinstance(targets, Mapping) else ()),
    ):
        if scheme is not None and not (isinstance(scheme, str) and scheme.startswith(tuple(SHORTHANDS))):
            yield str(scheme)


def _keys(given: object) -> Iterator[str]:
    if not isinstance(given, Mapping):
        yield str(given)
        return
    for key, value in given.items():
        if key in NESTED and isinstance(value, Mapping):
            yield from _keys(value)
        else:
            yield str(key)
