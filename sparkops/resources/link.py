"""A symbolic link on a node, or its absence."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Literal

from sparkops.core.errors import InventoryError
from sparkops.core.kind_messages import PathAsk
from sparkops.core.states import State
from sparkops.resources import validators
from sparkops.resources.resource import Resource


@dataclass(frozen=True, kw_only=True)
class Link(Resource):
    """A symbolic link. `name` is its absolute path.

    target: the path that is written into it; it need not exist.
    state: present or absent.
    """

    kind: ClassVar[str] = "link"
    contained: ClassVar[bool] = True
    prune: ClassVar[Literal["remove"]] = "remove"
    at_path: ClassVar[bool] = True
    file_type: ClassVar[str] = "link"

    target: str = ""
    state: str = "present"

    def __post_init__(self) -> None:
        validators.place(self.name, "the name of a link", self.where)
        validators.one_of(self.state, "state", ("present", "absent"), self.where)
        if self.state == "present" and (not isinstance(self.target, str) or not self.target or "\0" in self.target):
            raise InventoryError.of("link-target-invalid", where=self.where, name=self.name, target=self.target)

    @classmethod
    def retires(cls, parameters: Collection[str]) -> bool:
        return True

    def claim(self) -> dict[str, object]:
        return {**super().claim(), **({"content": [self.target]} if self.state == "present" else {})}

    def ask(self) -> PathAsk:
        return {"path": self.name}

    def desired(self) -> State:
        return None if self.state == "absent" else {"type": "link", "target": self.target}
