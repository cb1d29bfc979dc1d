"""What a model becomes by the declared steps of a build: the format of its parts then, and what is known of it.

Sources: albond/DGX_Spark_Qwen3.5-122B-A10B-AR-INT4 and Entrpi FINDINGS (hybrid, INT8 head), compressed-tensors 0.20
(config groups), intel/auto-round documents (schemes).
"""

from __future__ import annotations

import re
from dataclasses import replace

from sparkops.models import build_steps
from sparkops.models.architecture.quantisation import MODULES, Quantisation
from sparkops.models.build_steps import Steps
from sparkops.models.catalogue import Model

SCHEMES = {"W4A16": "int4-g128", "NVFP4": "nvfp4", "W8A16": "int8"}
"""What AutoRound makes of the layers that it quantises, by the scheme's name."""


def built(model: Model, steps: Steps) -> Model:
    """The model after these steps; its published size is that of another checkpoint then."""
    found, doubts = model.quantisation, [model.unverified]
    mtp = model.mtp_weights
    for _, name, options in build_steps.named(steps):
        if name == "quantize":
            found = _quantised(found, str(options.get("scheme", "")))
            doubts.append("which layers quantize leaves at 16 bit is known when it has run")
        elif name == "hybrid":
            layers = str(options.get("layers") or build_steps.LAYERS)
            parts = [
                part for part, module in MODULES.items() if not part.startswith("mtp") and re.search(layers, module)
            ]
            found = replace(found, formats={**found.formats, **dict.fromkeys(parts, "fp8")})
        elif name == "mtp":
            mtp = True
        elif name == "lm_head":
            found = replace(found, formats={**found.formats, "head": "int8"})
        elif name == "repack":
            found = replace(found, method="compressed-tensors")
    return replace(
        model,
        quantisation=found if found.unknown else replace(found, rules=None),  # the steps tell formats by part
        published_bytes=0,
        weights=None,
        mtp_weights=mtp,
        unverified="; ".join(filter(None, doubts)),
    )


def _quantised(found: Quantisation, scheme: str) -> Quantisation:
    word = SCHEMES.get(scheme)
    if word is None:
        return found
    parts = ("attention", "linear_attention", "dense", "experts", "shared_experts")
    bits = 8 if word == "int8" else 4
    return replace(found, method="auto-round", bits=bits, group_size=128, formats=dict.fromkeys(parts, word))
