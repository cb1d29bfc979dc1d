"""Judging one serve line that people paste, without an inventory.

It must not know who prints what was found.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sparkops.core.errors import InventoryError
from sparkops.lint.case import Case
from sparkops.lint.check import Finding, check
from sparkops.models.build_steps import Steps
from sparkops.models.built_model import built
from sparkops.models.catalogue import Model, find
from sparkops.models.effective import speculative
from sparkops.models.engine import Engine, engine
from sparkops.models.quantisation import Quantisation
from sparkops.models.serve_line import ServeLine, parse_text


def lint_line(
    text: str, version: str, gpus: int = 1, env: Mapping[str, str] | None = None, beside: Path | None = None
) -> list[Finding]:
    """The findings of a pasted line for an engine version, on nodes of `gpus`. Raises InventoryError."""
    chosen = engine(version, beside)
    try:
        line = parse_text(text, chosen)
    except ValueError as error:
        raise InventoryError(f"the line cannot be read: {error}", hint="give one command, its quotes closed") from None
    return check(case(line, chosen, gpus=gpus, env=env, beside=beside))


def case(
    line: ServeLine,
    chosen: Engine,
    *,
    gpus: int = 1,
    env: Mapping[str, str] | None = None,
    model: str | None = None,
    spark: bool = False,
    nodes: int = 0,
    beside: Path | None = None,
    steps: Steps = (),
) -> Case:
    """The case of a line: what is known of its model (or of `model`, where the line names a path on a node).

    `steps` are those by which the checkpoint is built that is served.
    """
    found = find(model or line.model, beside)
    if found is not None and steps:
        found = built(found, steps)
    speculation = speculative(line)
    drafter = _drafter(speculation.model if speculation else None, beside)
    return Case(
        line=line,
        engine=chosen,
        geometry=found.geometry if found else None,
        drafter=drafter.geometry if drafter else None,
        quantisation=found.quantisation if found else Quantisation(),
        mtp_weights=found.mtp_weights if found else None,
        env=dict(env or {}),
        gpus=gpus,
        spark=spark,
        nodes=nodes,
        beside=beside,
    )


def _drafter(model: str | None, beside: Path | None) -> Model | None:
    """What is known of a drafter; None also where its configuration is of a kind of its own."""
    try:
        return find(model, beside) if model else None
    except InventoryError:
        return None
