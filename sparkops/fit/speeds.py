"""The published speeds that compare with a line's. It must not know how a ceiling is counted."""

from __future__ import annotations

from sparkops.fit.fit import Fit
from sparkops.models.catalogue import Speed

FAMILIES = {"auto-round": "AutoRound", "gptq": "GPTQ", "awq": "AWQ", "fp8": "FP8", "": "BF16"}
DRAFTING = {"mtp": "MTP", "dflash": "DFlash"}


def published(fit: Fit) -> list[Speed]:
    """The published speeds that compare: this model in a quantisation of this family, as many nodes, drafting alike."""
    model, speculation = fit.run.model, fit.run.effective.speculative
    if model is None:
        return []
    stored = model.quantisation
    family = stored.algorithm or FAMILIES.get(stored.method, stored.method)
    method = speculation.method if speculation else ""
    mine = DRAFTING.get(method, method)
    others = [word for word in DRAFTING.values() if word != mine]
    return [
        each
        for each in model.speeds
        if each.quantisation.startswith(family)
        and each.nodes == fit.nodes
        and mine in each.setup
        and not any(word in each.setup for word in others)
    ]
