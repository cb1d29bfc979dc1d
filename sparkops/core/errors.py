"""The one tree of errors that a user can meet; each says what, where and the way out.

    SparkopsError
      InventoryError        the input is wrong: inventory, role, recipe, template      exit 1
        LintError             what is declared would fail; known before anything is touched
      SecretError           a declared secret could not be read                       exit 1
      PlanError             a saved plan is none, or not of this inventory            exit 1
      NodeError             something about one node                                  exit 3
        ConnectionFailed      no (or no longer an) answer from the node
        HostKeyError          the node's key is unknown or another one
        AuthenticationFailed  the node does not let us in
        BecomeFailed          sudo does not let us in
        WorkerFailed          the worker on the node could not start or broke its protocol
      ConvergeFailed        one step did not reach its declared state                 exit 4
      Stale, Changed        what was compared has changed in between                  exit 4
      LockBusy              another run holds a node                                  exit 75
      Interrupted           the user said stop                                        exit 130

It must not know who prints them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from sparkops.core.wording import FrontEnd, Message, words

_Error = TypeVar("_Error", bound="SparkopsError")


class SparkopsError(Exception):
    """What went wrong, where (a file position or a node) and the way out.

    `what` is one sentence without a final stop, `where` a place or "", `hint` an imperative sentence or "".
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        self.id = ""
        self.args_by_name: Mapping[str, Any] = {}

    @classmethod
    def of(cls: type[_Error], id: str, /, *, where: str = "", front_end: FrontEnd = "inventory", **args: Any) -> _Error:
        """The error of an id in `knowledge/errors/`, with its arguments; the words are made from both."""
        what, hint = words(id, args, front_end)
        error = cls(what, where=where, hint=hint)
        error.id, error.args_by_name = id, args
        return error

    def at(self: _Error, where: str) -> _Error:
        """The same error for another place."""
        error = type(self)(self.what, where=where, hint=self.hint)
        error.id, error.args_by_name = self.id, self.args_by_name
        return error

    @property
    def message(self) -> Message:
        """Its id and arguments, without the place."""
        if self.id:
            return Message(self.id, self.args_by_name)
        return Message.of("error", text=self.what, fix=self.hint)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  → {self.hint}" if self.hint else text


class InventoryError(SparkopsError):
    """The declaration is wrong. `others` are the further faults found in the same reading."""

    def __init__(self, what: str, *, where: str = "", hint: str = "", others: tuple[InventoryError, ...] = ()) -> None:
        super().__init__(what, where=where, hint=hint)
        self.others = others

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(str(other) for other in self.others)])


class LintError(InventoryError):
    """What is declared would fail on the nodes: the errors that lint found and nobody accepted."""


class SecretError(SparkopsError):
    """A secret could not be read; names its reference, never its value."""


class PlanError(SparkopsError):
    """A saved plan is not valid, or of another inventory; `where` is its file."""


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

    found: Any = None


class LockBusy(SparkopsError):
    """Another run holds a node's lock; `what` names the holder."""

    exit_status = 75


class Interrupted(SparkopsError):
    """The user asked to stop; the run can be resumed by the same command."""

    exit_status = 130
