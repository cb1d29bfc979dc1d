"""One start of the engine: the line, the version that reads it, the node it runs on, and the models behind it.

Lint and fit both begin here. It must not know an inventory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from sparkops.core.errors import InventoryError, SparkopsError
from sparkops.models.build_steps import Steps
from sparkops.models.built_model import built
from sparkops.models.catalogue import Model, guessed, known
from sparkops.models.effective import Effective, effective, speculative
from sparkops.models.engine import Engine, engine
from sparkops.models.serve_line import ServeLine, parse_text

Ask: TypeAlias = Callable[[str, str, str], Model | None]
"""Reads the model of a repository, revision and endpoint ("" for the usual one) from a hub; None for what is no
repository's name. Raises SparkopsError."""


@dataclass(frozen=True)
class Invocation:
    """A serve line on nodes of `gpus` GPUs each, with the variables `env` beside those of the line itself.

    `model_name` names the model where the line has only a path on a node; `steps` are those by which the checkpoint is
    built that is served; own knowledge is searched in the folder `beside`. What is in no knowledge is asked for at a
    hub by `ask`, the model itself at this `revision` and `endpoint`.
    """

    line: ServeLine
    engine: Engine
    gpus: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    model_name: str = ""
    steps: Steps = ()
    beside: Path | None = None
    ask: Ask | None = None
    revision: str = ""
    endpoint: str = ""

    @property
    def served(self) -> str:
        """The name of the model, "" where none is given."""
        return self.model_name or self.line.model

    @cached_property
    def model(self) -> Model | None:
        """What is known of the model. Raises InventoryError for a file about it that can't be read."""
        found = self._served[0]
        return built(found, self.steps) if found is not None and self.steps else found

    @property
    def not_read(self) -> SparkopsError | None:
        """Why a hub's repository of this name could not be read; None where it was, or where nobody asked."""
        return self._served[1]

    @cached_property
    def _served(self) -> tuple[Model | None, SparkopsError | None]:
        return self._seek(self.served, self.revision or str(self.line.get("revision") or ""), self.endpoint)

    def _seek(self, name: str, revision: str, endpoint: str) -> tuple[Model | None, SparkopsError | None]:
        """A model by knowledge, else by the hub, else by what its name says, and why the hub did not tell."""
        found, failure = (known(name, self.beside) if name else None), None
        if found is None and name and self.ask is not None:
            try:
                found = self.ask(name, revision, endpoint)
            except SparkopsError as error:
                failure = error
        return found or (guessed(name, self.beside) if name else None), failure

    @cached_property
    def drafter(self) -> Model | None:
        """What is known of the draft model; None also where its configuration is of another kind."""
        speculation = speculative(self.line)
        if speculation is None or not speculation.model:
            return None
        try:
            return self._seek(speculation.model, str(speculation.given.get("revision") or ""), "")[0]
        except InventoryError:
            return None

    @cached_property
    def effective(self) -> Effective:
        """What the engine makes of the line."""
        geometry = self.model.known_geometry if self.model else None
        drafter = self.drafter.known_geometry if self.drafter else None
        stored = self.model.quantisation.cache_dtype(geometry) if self.model else "auto"
        return effective(self.line, geometry, self.engine, self.env, self.gpus, drafter, stored)


def of_text(
    text: str,
    version: str,
    gpus: int = 1,
    env: Mapping[str, str] | None = None,
    beside: Path | None = None,
    ask: Ask | None = None,
) -> Invocation:
    """The invocation of a pasted line by an engine version. Raises InventoryError."""
    chosen = engine(version, beside)
    try:
        line = parse_text(text, chosen)
    except ValueError as error:
        raise InventoryError.of("command-not-parsed", error=error) from None
    return Invocation(line, chosen, gpus, dict(env or {}), beside=beside, ask=ask)
