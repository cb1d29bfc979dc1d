"""Bytes of weights on the heaviest rank: exact where tensor headers are there, else published, else by parts.

It must not know a cache. Bytes per parameter are those of `models/quantisation`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

from sparkops.models.architecture.geometry import Geometry
from sparkops.models.architecture.quantisation import MODULES, Quantisation, own_format, part_bytes
from sparkops.models.catalogue import Model
from sparkops.models.effective import Effective
from sparkops.models.invocation import Invocation
from sparkops.models.serve_line import ServeLine

TOLD = 0.02
"""Share by which headers and configuration may differ before it is told."""
SHORTHANDS: Mapping[str, str] = {"fp8": "fp8", "int8": "int8", "nvfp4": "nvfp4", "mxfp4": "mxfp4", "mxfp8": "fp8"}
"""Online quantisation by the beginning of its name (`fp8_per_block`), and the format it makes."""
LEFT = ("modelopt", "online")
"""Words for a quantisation that the line's configuration or the checkpoint tells."""


@dataclass(frozen=True, slots=True)
class RankWeights:
    """Weights: bytes by part over all ranks, bytes on the heaviest rank, and where its size is from.

    `tables` are bytes that no checkpoint has and every rank makes: positions' sines and cosines.
    """

    parts: Mapping[str, float]
    rank_bytes: float
    drafter_bytes: float
    tables: float
    source: str

    @property
    def loaded(self) -> float:
        """Bytes of a rank once the model is loaded."""
        return self.rank_bytes + self.tables


def served(model: Model, line: ServeLine) -> Quantisation:
    """How the model is stored as it is served: as the checkpoint is, and as the line quantises what that leaves."""
    own = dict(model.quantisation.formats)
    if not quantises(model, line):
        return model.quantisation
    added = {
        part: word
        for part, module in MODULES.items()
        if part not in own and part != "head" and (word := _online(line, module, bool(model.quantisation.method)))
    }
    return replace(model.quantisation, formats={**own, **added}, rules=None) if added else model.quantisation


def quantises(model: Model, line: ServeLine) -> bool:
    """Whether the engine reads `--quantization-config` at all: only with a method, the line's or the checkpoint's
    (vLLM 0.32 config/vllm.py: _get_quantization_config)."""
    return bool(line.get("quantization") or model.quantisation.method)


def of_rank(run: Invocation, model: Model) -> RankWeights:
    """The weights that an invocation loads, over its ranks."""
    line, effective, drafter = run.line, run.effective, run.drafter
    parts, scale, source = _parts(model, served(model, line), effective)
    method = effective.speculative.method if effective.speculative else ""
    if method != "mtp":
        parts = {part: size for part, size in parts.items() if not part.startswith("mtp")}
    if line.get("language-model-only"):
        parts.pop("vision", None)
    drafting = 0.0
    if drafter is not None:
        shared = {"embedding", "head"} if method != "draft_model" else set()
        own = part_bytes(drafter.geometry, drafter.quantisation)
        wide = min(effective.tensor_parallel, _draft_ranks(effective))
        drafting = sum(size for part, size in own.items() if part not in shared) / wide
    sized = {part: size * (1 if part.startswith("mtp") else scale) for part, size in parts.items()}
    rank = _heaviest(sized, model.geometry, line, effective)
    tables = model.geometry.table_bytes(run.engine.law("mrope_tables"))
    return RankWeights(parts, rank + drafting, drafting, tables, source)


def difference(model: Model, dtype: str) -> str:
    """What to say where the tensor headers and the configuration differ by more than 2 %; "" where they do not."""
    if model.weights is None or not model.weights.names or model.geometry.unsized("mtp") or model.quantisation.unknown:
        return ""
    if recast(model, dtype):
        return ""
    found = sum(size for part, size in model.weights.parts.items() if not part.startswith("mtp"))
    counted = sum(
        size for part, size in part_bytes(model.geometry, model.quantisation).items() if not part.startswith("mtp")
    )
    if abs(found - counted) <= TOLD * found:
        return ""
    return (
        f"the tensor headers hold {found / 1e9:.2f} GB, the configuration describes {counted / 1e9:.2f} GB; the "
        "headers were taken"
    )


def recast(model: Model, dtype: str) -> bool:
    """Whether the engine loads a model in another width than that of its files, whose sizes are not the loaded ones."""
    return own_format(_typed(model, dtype).dtype) != own_format(model.geometry.stored)


def _typed(model: Model, dtype: str) -> Geometry:
    return model.geometry if dtype == "auto" else replace(model.geometry, dtype=dtype)


def _parts(model: Model, stored: Quantisation, now: Effective) -> tuple[dict[str, float], float, str]:
    """Bytes by part, how many times as large the loaded parts are by a published size, and whose word it is."""
    counted = part_bytes(_typed(model, now.dtype), stored, now.tensor_parallel)
    if recast(model, now.dtype):
        return counted, 1, "parameters × bytes of the type that the engine loads"
    if model.weights is not None and model.weights.names:
        return dict(model.weights.parts), 1, "the tensor headers"
    if model.weights is not None:
        scale = model.weights.total / sum(counted.values())
        return {part: size * scale for part, size in counted.items()}, 1, "the index's total, by parts of the geometry"
    if model.published_bytes and stored is model.quantisation:
        loaded = sum(size for part, size in counted.items() if not part.startswith("mtp"))
        return counted, model.published_bytes / loaded, "the published size, by parts of the geometry"
    return counted, 1, "parameters × bytes of their format"


def _heaviest(parts: Mapping[str, float], geometry: Geometry, line: ServeLine, effective: Effective) -> float:
    tensor, stages = effective.tensor_parallel, effective.pipeline_parallel
    share = ceil(len(geometry.layers) / stages) / len(geometry.layers)
    experts = tensor * effective.data_parallel if line.get("enable-expert-parallel") else tensor
    whole = {"other": 1.0, **geometry.whole}
    if line.get("mm-encoder-tp-mode") == "data":
        whole["vision"] = 1.0
    ends = {"embedding", "head", "vision", "other"}

    def size(part: str) -> float:
        ranks = experts if "experts" in part and "shared" not in part else tensor
        kept = whole.get(part, 0.0)
        return parts[part] * (kept + (1 - kept) / ranks)

    layered = sum(size(part) * share for part in parts if part not in ends and not part.startswith("mtp"))
    if stages == 1:
        return layered + sum(size(part) for part in parts if part in ends or part.startswith("mtp"))
    mtp = [part for part in parts if part.startswith("mtp")]
    first = sum(size(part) for part in parts if part in ends - {"head"})
    last = sum(size(part) for part in ["head", *mtp, *(["embedding"] if mtp else [])] if part in parts)
    return layered + max(first, last)


def _draft_ranks(effective: Effective) -> int:
    given = effective.speculative.given.get("draft_tensor_parallel_size") if effective.speculative else None
    return given if isinstance(given, int) and given > 0 else effective.tensor_parallel


def _online(line: ServeLine, module: str, stored: bool) -> str:
    """The format that the line makes of a module as it loads; "" where it leaves it, as `--quantization` leaves what a
    checkpoint of some method has (`stored`)."""
    asked = line.get("quantization")
    word = asked if isinstance(asked, str) and asked not in LEFT and not stored else ""
    config = line.mapping("quantization-config")
    for key in ("moe",) if ".experts." in module else ("linear",):
        if isinstance(config.get(key), str):
            word = config[key]
    targets = config.get("targets")
    for pattern, shorthand in targets.items() if isinstance(targets, Mapping) else ():
        if isinstance(shorthand, str) and _meant(str(pattern), module):
            word = shorthand
    return next((made for start, made in SHORTHANDS.items() if word.startswith(start)), "")


def _meant(pattern: str, module: str) -> bool:
    if not pattern.startswith("re:"):
        return pattern in module
    try:
        return re.match(pattern[3:], module) is not None
    except re.error:
        return False
