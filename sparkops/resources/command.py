"""A check on a node and a program that makes it true, for what no other kind covers.

The parameter is `run`, not `converge`, because that is what every kind does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from sparkops.core.errors import InventoryError
from sparkops.core.kind_messages import CommandAct, CommandAsk
from sparkops.core.plan import Step
from sparkops.core.states import Observed, State
from sparkops.core.wording import Message
from sparkops.resources import validators
from sparkops.resources.resource import Resource


@dataclass(frozen=True, kw_only=True)
class Command(Resource):
    """A check, and the command that makes it true. `name` says in a few words what it is about.

    It is as declared when `creates` exists and `check` ends with 0, where those are declared.

    check: the argument list of the check.
    run: the argument list that is run when the check fails.
    creates: a path that has to exist.
    stdout: the exact output of `check`.
    matches: a regular expression for the output of `check`.
    env: further environment of `run`.
    timeout: seconds for `run`.
    check_timeout: seconds for `check`; beyond them its result is unknown.
    disruptive: whether running it interrupts a service.
    """

    kind: ClassVar[str] = "command"
    claimed: ClassVar[bool] = False
    volatile: ClassVar[frozenset[str]] = frozenset({"why"})

    check: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    creates: str | None = None
    stdout: str | None = None
    matches: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 600.0
    check_timeout: float = 20.0
    disruptive: bool = False

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("check", "run"):
            put(self, name, validators.words(getattr(self, name), name, self.where))
        if self.creates is not None:
            validators.path(self.creates, "creates", self.where)
        if not self.check and self.creates is None:
            raise InventoryError.of("command-without-check", where=self.where, name=self.name)
        if not self.check and (self.stdout is not None or self.matches is not None):
            raise InventoryError.of("command-compares-nothing", where=self.where, name=self.name)
        self._refuse_bad_pattern()
        self._refuse_bad_values()

    def _refuse_bad_pattern(self) -> None:
        if self.matches is None:
            return
        try:
            re.compile(self.matches)
        except re.error as error:
            raise InventoryError.of("matches-not-regular-expression", where=self.where, reason=str(error)) from None

    def _refuse_bad_values(self) -> None:
        for name in ("timeout", "check_timeout"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
                raise InventoryError.of("seconds-invalid", where=self.where, name=name, value=value)
        if not isinstance(self.env, Mapping) or not all(isinstance(each, str) for each in self.env.values()):
            raise InventoryError.of("command-environment-not-text", where=self.where, name=self.name)

    @property
    def interrupting(self) -> frozenset[str]:
        return frozenset({"ok"}) if self.disruptive else self.interrupts

    @property
    def replaceable(self) -> bool:
        """Replacing is running its program again."""
        return bool(self.run)

    def ask(self) -> CommandAsk:
        return {
            "check": list(self.check),
            "creates": self.creates,
            "stdout": self.stdout,
            "matches": self.matches,
            "timeout": self.check_timeout,
        }

    def desired(self) -> State:
        return {"ok": True}

    def act(self, step: Step) -> CommandAct:
        return {"run": list(self.run), "timeout": self.timeout, "env": dict(self.env)}

    def explain(self, found: Observed) -> Message | None:
        """Why the check still fails after the program ran."""
        why = found.get("why") if isinstance(found, Mapping) else None
        return Message.of("command-still-failing", reason=why) if why else None
