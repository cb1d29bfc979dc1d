"""The kind `rank`: what one rank of an engine over several nodes stands on, to be compared with the other ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from sparkops.core.states import State
from sparkops.resources.resource import Resource


@dataclass(frozen=True, kw_only=True)
class Rank(Resource):
    """A rank, looked at and never changed. `name` is its service.

    container: the container that it runs in.
    """

    kind: ClassVar[str] = "rank"
    claimed: ClassVar[bool] = False

    container: str

    @property
    def essential(self) -> bool:
        """What is only compared holds nothing up."""
        return False

    def ask(self) -> Mapping[str, object]:
        return {"container": self.container}

    def desired(self) -> State:
        return {}
