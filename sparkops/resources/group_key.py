"""The kind `group_key`: the key by which the ranks of one engine know each other's messages, alike on all its nodes.

It is made here when it is needed and kept on the nodes alone: where all of them have the same one, that is the declared
one; else all get a new one. So several machines may run sparkops, and a second run changes nothing. It must not know
what ranks say to each other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from sparkops.core.group_keys import fingerprint
from sparkops.core.kind_messages import GroupKeyAct, GroupKeyAsk
from sparkops.core.plan import Occupied, Step
from sparkops.core.secrets import Secret
from sparkops.core.states import State
from sparkops.resources import validators
from sparkops.resources.resource import Resource


@dataclass(frozen=True, kw_only=True)
class GroupKey(Resource):
    """A key of a group. `name` is the absolute path of its file.

    known: the fingerprints of the keys that the nodes of the group have now, facts of each.
    content: a new key, for the case that these are not all the same.
    state: present or absent.
    """

    kind: ClassVar[str] = "group_key"
    prune: ClassVar[Literal["remove"]] = "remove"
    file_type: ClassVar[str] = "file"

    known: str = ""
    content: Secret | None = None
    state: str = "present"

    def __post_init__(self) -> None:
        validators.place(self.name, "the name of a group_key", self.where)
        validators.one_of(self.state, "state", ("present", "absent"), self.where)

    @classmethod
    def occupied(cls, name: str, claim: Mapping[str, object]) -> Occupied:
        return Occupied(path=name)

    @classmethod
    def retires(cls, parameters: Collection[str]) -> bool:
        return True

    @property
    def _kept(self) -> str:
        """The fingerprint that all nodes have; "" where they differ or have none."""
        found = {*self.known.split()}
        return found.pop() if len(found) == 1 else ""

    @property
    def _new(self) -> bytes:
        return self.content.reveal().encode() if self.content else b""

    def ask(self) -> GroupKeyAsk:
        new = fingerprint(self._new)
        return {"path": self.name, "fingerprint": self._kept if len(self._kept) == len(new) else new}

    def desired(self) -> State:
        return None if self.state == "absent" else {"type": "file", "mode": "0600", "shared": True}

    def act(self, step: Step) -> GroupKeyAct:
        return {"content": self._new}
