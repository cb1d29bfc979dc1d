"""One start of the engine: the line, the version that reads it, the node it runs on, and the models behind it.

Lint and fit both begin here. It must not know an inventory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sparkops.core.errors import InventoryError
from sparkops.models.build_steps import Steps
from sparkops.models.built_model import built
from sparkops.models.catalogue import Model, find
from sparkops.models.effective import Effective, effective, speculative
from sparkops.models.engine import Engine, engine
from sparkops.models.serve_line import ServeLine, parse_text


@dataclass(frozen=True)
class Invocation:
    """A serve line on nodes of `gpus` GPUs each, with the variables `env` beside those of the line itself.

    `model_name` names the model where the line has only a path on a node; `steps` are those by which the checkpoint is
    built that is served; own knowledge is searched in the folder `beside`.
    """

    line: ServeLine
    engine: Engine
    gpus: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    model_name: str = ""
    steps: Steps = ()
    beside: Path | None = None

    @property
    def served(self) -> str:
        """The name of the model, "" where none is given."""
        return self.model_name or self.line.model

    @cached_property
    def model(self) -> Model | None:
        """What is known of the model. Raises InventoryError for a file about it that can't be read."""
        found = find(self.served, self.beside) if self.served else None
        return built(found, self.steps) if found is not None and self.steps else found

    @cached_property
    def drafter(self) -> Model | None:
        """What is known of the draft model; None also where its configuration is of another kind."""
        speculation = speculative(self.line)
        if speculation is None or not speculation.model:
            return None
        try:
            return find(speculation.model, self.beside)
        except InventoryError:
            return None

    @cached_property
    def effective(self) -> Effective:
        """What the engine makes of the line."""
        geometry = self.model.known_geometry if self.model else None
        drafter = self.drafter.known_geometry if self.drafter else None
        stored = self.model.quantisation.kv_dtype if self.model else "auto"
        return effective(self.line, geometry, self.engine, self.env, self.gpus, drafter, stored)


def of_text(
    text: str, version: str, gpus: int = 1, env: Mapping[str, str] | None = None, beside: Path | None = None
) -> Invocation:
    """The invocation of a pasted line by an engine version. Raises InventoryError."""
    chosen = engine(version, beside)
    try:
        line = parse_text(text, chosen)
    except ValueError as error:
        raise InventoryError.of("command-not-parsed", error=error) from None
    return Invocation(line, chosen, gpus, dict(env or {}), beside=beside)
