"""The one tree of errors that a user can meet; each says what, where and the way out.

It must not know who prints them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, TypeVar

from sparkops.core.wording import FrontEnd, Message, words

if TYPE_CHECKING:
    from sparkops.core.states import Observed

_Error = TypeVar("_Error", bound="SparkopsError")
_Fault = TypeVar("_Fault", bound="InventoryError")


class SparkopsError(Exception):
    """What went wrong, where (a file position or a node) and the way out.

    `what` is one sentence without a final stop, `where` a place or "", `hint` an imperative sentence or "". `what` and
    `hint` are made from `id`, an entry in `knowledge/errors/`, and its arguments `args_by_name`.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, id: str, args: Mapping[str, object], *, where: str, front_end: FrontEnd) -> None:
        super().__init__(id)
        self.where = where
        self.id = id
        self.args_by_name = args
        self.front_end = front_end

    @cached_property
    def what(self) -> str:
        """The sentence; made when it is shown, since most errors of a run never are (each session ends with one)."""
        return words(self.id, self.args_by_name, self.front_end)[0]

    @cached_property
    def hint(self) -> str:
        """The way out."""
        return words(self.id, self.args_by_name, self.front_end)[1]

    @classmethod
    def of(
        cls: type[_Error], id: str, /, *, where: str = "", front_end: FrontEnd = "inventory", **args: object
    ) -> _Error:
        """The error of an id in `knowledge/errors/`, with its arguments."""
        return cls(id, args, where=where, front_end=front_end)

    def at(self: _Error, where: str) -> _Error:
        """The same error for another place."""
        error = copy.copy(self)
        error.where = where
        return error

    def __copy__(self: _Error) -> _Error:
        error = type(self).__new__(type(self), *self.args)
        error.__dict__.update(self.__dict__)
        return error

    @property
    def message(self) -> Message:
        """Its id and arguments, without the place."""
        return Message(self.id, self.args_by_name)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  → {self.hint}" if self.hint else text


class InventoryError(SparkopsError):
    """What is given is wrong: a declaration, or a saved plan. `others` are further faults found in the same reading."""

    others: tuple[InventoryError, ...] = ()

    @staticmethod
    def joined(faults: Sequence[_Fault]) -> _Fault:
        """The first of some faults (at least one), which carries the others."""
        error = copy.copy(faults[0])
        error.others = tuple(faults[1:])
        return error

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(str(other) for other in self.others)])


class LintError(InventoryError):
    """What is declared would fail on the nodes: the errors that lint found and nobody accepted."""


class SecretError(SparkopsError):
    """A secret could not be read; names its reference, never its value."""


class NodeError(SparkopsError):
    """Something about one node; `where` is its name."""

    exit_status = 3


class ConnectionFailed(NodeError):
    """The node does not answer, or no longer."""


class HostKeyError(ConnectionFailed):
    """The node's host key is unknown, revoked or not the known one."""


class AuthenticationFailed(ConnectionFailed):
    """The node answered and refused the user."""


class BecomeFailed(NodeError):
    """sudo on the node refused."""


class WorkerFailed(NodeError):
    """The worker could not start on the node, or what it said was not its protocol."""


class ConvergeFailed(SparkopsError):
    """A step did not reach the declared state."""

    exit_status = 4


class Stale(ConvergeFailed):
    """What was compared has changed before the act: a node, or what a saved plan was made from. Nothing was done."""


class Changed(Stale):
    """A thing is no longer as it was compared; `found` is what is there now."""

    found: Observed = None


class LockBusy(SparkopsError):
    """Another run holds a node's lock; `what` names the holder."""

    exit_status = 75


class Interrupted(SparkopsError):
    """The user asked to stop; the run can be resumed by the same command."""

    exit_status = 130
