"""A directory on a node: owner, group and mode, or its absence. Its absence is brought about only when it is empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from sparkops.core.kind_messages import DirectoryAct, DirectoryAsk
from sparkops.core.plan import Step
from sparkops.core.states import State
from sparkops.resources import validators
from sparkops.resources.resource import Resource


@dataclass(frozen=True, kw_only=True)
class Directory(Resource):
    """A directory. `name` is its absolute path.

    owner, group: names or numbers; of a new directory root.
    mode: octal, as text; of a new directory 0755.
    parents: whether missing directories above it are made too (root, 0755); they are not compared later.
    state: present or absent.
    """

    kind: ClassVar[str] = "directory"
    contained: ClassVar[bool] = True
    prune: ClassVar[Literal["remove"]] = "remove"
    at_path: ClassVar[bool] = True
    file_type: ClassVar[str] = "directory"

    owner: str | int | None = None
    group: str | int | None = None
    mode: str | None = None
    parents: bool = False
    state: str = "present"

    def __post_init__(self) -> None:
        put = object.__setattr__
        validators.place(self.name, "the name of a directory", self.where, folder=True)
        validators.one_of(self.state, "state", ("present", "absent"), self.where)
        put(self, "owner", validators.account(self.owner, "owner", self.where))
        put(self, "group", validators.account(self.group, "group", self.where))
        put(self, "mode", validators.mode(self.mode, self.where))

    @property
    def common(self) -> bool:
        """Two clusters may need one directory; it goes when it is empty and nobody claims it."""
        return True

    def ask(self) -> DirectoryAsk:
        asked: DirectoryAsk = {"path": self.name}
        if isinstance(self.owner, str):
            asked["owner"] = self.owner
        if isinstance(self.group, str):
            asked["group"] = self.group
        return asked

    def desired(self) -> State:
        if self.state == "absent":
            return None
        declared_keys = {key: getattr(self, key) for key in ("owner", "group", "mode")}
        return {"type": "directory", **{key: value for key, value in declared_keys.items() if value is not None}}

    def act(self, step: Step) -> DirectoryAct:
        return {"parents": self.parents}
