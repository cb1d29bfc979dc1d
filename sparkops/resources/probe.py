"""The kind `probe`: a service answers. One real completion within a limit, asked by the worker on the node itself.

`/health` and `/v1/models` answer 200 during a deadlock (vLLM #37729, #39863), so they are told and never believed. The
probe's own limit passing is a failure, not an unknown. It must not know how HTTP is spoken: that is the worker's half.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sparkops.core import wording
from sparkops.core.errors import ConvergeFailed, InventoryError
from sparkops.core.kind_messages import EngineAsk, ProbeAct, ProbeAsk
from sparkops.core.plan import Step
from sparkops.core.states import Observed, State
from sparkops.core.wording import Message
from sparkops.models import engine_errors
from sparkops.resources.resource import Resource

if TYPE_CHECKING:
    from sparkops.nodes.session import Session


@dataclass(frozen=True, kw_only=True)
class AskedEngine(Resource):
    """What proves an engine by asking it on its own node: where it answers, and what runs it."""

    claimed: ClassVar[bool] = False
    leavable: ClassVar[bool] = True

    port: int
    host: str = "127.0.0.1"
    model: str | list[str] | None = None
    prompt: str
    limit_seconds: float = 20.0
    unit: str | None
    container: str | None = None
    spec: str | None = None

    def endpoint(self) -> EngineAsk:
        """What the worker needs to ask the service's own engine."""
        model = next(iter(self.model), None) if isinstance(self.model, list) else self.model
        return {
            "host": self.host,
            "port": self.port,
            "service": self.service,
            "model": model or None,
            "prompt": self.prompt,
            "limit_seconds": float(self.limit_seconds),
            "unit": self.unit,
            "container": self.container,
            "spec": self.spec,
        }

    def check_expected(self, expression: str) -> None:
        """Raises InventoryError for what is no regular expression."""
        try:
            re.compile(expression)
        except re.error as error:
            raise InventoryError.of(
                "probe-expect-invalid", where=self.where, name=self.name, reason=str(error)
            ) from None


@dataclass(frozen=True, kw_only=True)
class Probe(AskedEngine):
    """A completion, asked from http://HOST:PORT on the node. `name` is the service's.

    port, host: the engine's address on the node.
    model: the name that it is served under; else the first of /v1/models.
    prompt: what the engine is asked to complete.
    expect: a regular expression that the answer must contain.
    max_tokens: tokens to ask for.
    limit_seconds: seconds within which the completion has to come.
    wait_seconds: seconds to wait for an engine that loads; less when the unit fails permanently.
    unit, container: what runs the engine, for its state and its log. An answer counts only where the listening socket
        belongs to the container or, where none is given, to a process of the unit.
    spec: path of the launcher's spec on the node, for the API key in its environment.
    """

    kind: ClassVar[str] = "probe"
    volatile: ClassVar[frozenset[str]] = frozenset({"answers", "why", "seconds"})
    reproved: ClassVar[bool] = True

    prompt: str = "The capital of France is"
    expect: str | None = None
    max_tokens: int = 1
    wait_seconds: float = 3600.0
    unit: str | None = None
    state: str = "present"

    def __post_init__(self) -> None:
        self.check_expected(self.expect or "")

    def ask(self) -> ProbeAsk:
        tokens = max(self.max_tokens, 16) if self.expect else self.max_tokens
        return {**self.endpoint(), "expect": self.expect, "max_tokens": tokens}

    def desired(self) -> State:
        return {"answers": True}

    def act(self, step: Step) -> ProbeAct:
        return {"wait_seconds": float(self.wait_seconds)}

    def converge(self, session: Session, step: Step) -> Generator[Mapping[str, object], None, Observed]:
        try:
            return (yield from super().converge(session, step))
        except ConvergeFailed as error:
            found = engine_errors.likely(str(getattr(error, "detail", "")))
            if found is not None:
                known, cause, remedy = found
                args = {"reason": error.message, "cause": cause, "remedy": remedy, "source": known.source}
                error.id, error.args_by_name = "engine-error-known", args
                error.what, error.hint = wording.words(error.id, args)
            raise

    def explain(self, found: Observed) -> Message | None:
        why = found.get("why") if isinstance(found, Mapping) else None
        return Message.of("endpoint-not-serving", text=str(why)) if why else None
