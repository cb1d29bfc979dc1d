"""Checks one serve line that was pasted, without an inventory.

It must not know who prints the findings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sparkops.lint.case import Case
from sparkops.lint.check import Finding, check
from sparkops.models.invocation import Invocation, of_text
from sparkops.models.quantisation import Quantisation


def lint_line(
    text: str, version: str, gpus: int = 1, env: Mapping[str, str] | None = None, beside: Path | None = None
) -> list[Finding]:
    """The findings of a pasted line for an engine version, on nodes of `gpus`. Raises InventoryError."""
    return check(case(of_text(text, version, gpus, env, beside)))


def case(run: Invocation, *, spark: bool = False, nodes: int = 0) -> Case:
    """The case of an invocation: `spark` on declared Spark nodes, `nodes` those of the service (0: not known)."""
    model, drafter = run.model, run.drafter
    return Case(
        line=run.line,
        engine=run.engine,
        geometry=model.geometry if model else None,
        drafter=drafter.geometry if drafter else None,
        quantisation=model.quantisation if model else Quantisation(),
        mtp_weights=model.mtp_weights if model else None,
        env=run.env,
        gpus=run.gpus,
        spark=spark,
        nodes=nodes,
        beside=run.beside,
    )
