"""What a rule checks: one serve line, what the engine makes of it, the model behind it, and where it is to run.

It must not know the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sparkops.core.errors import SparkopsError
from sparkops.core.wording import Severity
from sparkops.models.architecture.geometry import Geometry
from sparkops.models.architecture.quantisation import Quantisation
from sparkops.models.catalogue import FromHub
from sparkops.models.effective import MLA_DISABLED, Effective, effective, truthy
from sparkops.models.engine import Engine
from sparkops.models.invocation import Invocation
from sparkops.models.serve_line import ServeLine


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule found: the sentence, the flag (or variable) it is about, and where it differs from the rule's words:
    another severity, another way out. `path` leads to it in an inventory's variables, where it is no flag."""

    message: str
    about: str = ""
    severity: Severity | None = None
    remedy: str = ""
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """One line to check. `geometry` is None for a model that nothing is known of, and so is `drafter`.

    `quantisation` is the checkpoint's own, `mtp_weights` whether it has the prediction head's (None: not known).
    `spark`: the line is to run on declared Spark nodes, where what harms such a node is an error. `nodes` are
    those of the service; 0 where they are not known. `patched`: the image is built here, with patches of its own.
    `name` and `architectures` are the model's, `from_hub` where a hub has it and `not_read` why no hub told of it;
    `gaps` is what of its configuration is not described.
    """

    line: ServeLine
    engine: Engine
    geometry: Geometry | None = None
    drafter: Geometry | None = None
    quantisation: Quantisation = field(default_factory=Quantisation)
    mtp_weights: bool | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 1
    spark: bool = False
    nodes: int = 0
    patched: bool = False
    beside: Path | None = None
    name: str = ""
    architectures: tuple[str, ...] = ()
    not_read: SparkopsError | None = None
    from_hub: FromHub | None = None
    gaps: tuple[str, ...] = ()

    @cached_property
    def effective(self) -> Effective:
        """What the engine makes of the line."""
        stored = self.quantisation.cache_dtype(self.geometry)
        return effective(self.line, self.geometry, self.engine, self.env, self.gpus, self.drafter, stored)

    @cached_property
    def variables(self) -> Mapping[str, str]:
        """The environment of the line, and what precedes it."""
        return {**self.line.environment, **self.env}

    @property
    def hybrid(self) -> bool:
        """Whether the model is known to keep a recurrent state beside keys and values."""
        return self.geometry is not None and self.geometry.hybrid

    @property
    def latent(self) -> bool:
        """Whether its attention is known to keep a latent, which a variable of the engine expands."""
        known = self.geometry is not None and self.geometry.latent and not self.geometry.gaps
        return known and not truthy(self.variables.get(MLA_DISABLED))

    @property
    def quantized(self) -> str:
        """The checkpoint's own method, as the engine names it after its detection; "" for none."""
        return "modelopt_fp4" if self.quantisation.method == "modelopt" and self.nvfp4 else self.quantisation.method

    @property
    def nvfp4(self) -> bool:
        """Whether the checkpoint's weights are NVFP4."""
        return "NVFP4" in self.quantisation.algorithm.upper() or self.quantisation.formats.get("experts") == "nvfp4"


def case_of(run: Invocation, *, spark: bool = False, nodes: int = 0, patched: bool = False) -> Case:
    """The case of an invocation: `spark` on declared Spark nodes, `nodes` those of the service (0: not known)."""
    model, drafter = run.model, run.drafter
    return Case(
        line=run.line,
        engine=run.engine,
        geometry=model.known_geometry if model else None,
        drafter=drafter.known_geometry if drafter else None,
        quantisation=model.quantisation if model else Quantisation(),
        mtp_weights=model.mtp_weights if model else None,
        env=run.env,
        gpus=run.gpus,
        spark=spark,
        nodes=nodes,
        patched=patched,
        beside=run.beside,
        name=model.repository if model else run.served,
        architectures=model.geometry.architectures if model else (),
        not_read=run.not_read,
        from_hub=model.from_hub if model else None,
        gaps=model.geometry.gaps if model else (),
    )
