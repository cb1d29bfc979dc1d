"""What `sparkops remove` takes back beside the kinds: checkpoints and images by gc's rules, and sparkops' own folder.

Neither is declared by an inventory. It must not know what of a node is taken back: that is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from sparkops.core.request_messages import GcAsk
from sparkops.core.states import Observed, State
from sparkops.core.wording import Message
from sparkops.resources.resource import Resource


@dataclass(frozen=True, kw_only=True)
class TakenBack(Resource):
    """Something that is to be absent, unless the node says in `stays` why it is left."""

    claimed: ClassVar[bool] = False

    state_dir: str
    cluster: str
    former: str = ""

    def desired(self) -> State:
        return None

    def stays(self, found: Observed) -> Message | None:
        why = found.get("stays") if isinstance(found, Mapping) else None
        return Message.from_json(why) if why else None


@dataclass(frozen=True, kw_only=True)
class Reclaimed(TakenBack):
    """A checkpoint or an image that goes where nothing else needs it.

    `what` is the kind that it was declared as; `kinds` those that hold such data; `needed` is what stays declared (the
    words of `Resource.uses`); `leaving` the paths of what goes before it.
    """

    kind: ClassVar[str] = "gc"
    volatile: ClassVar[frozenset[str]] = frozenset({"bytes"})

    what: str
    kinds: tuple[str, ...]
    needed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    leaving: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.what} {self.name} @{self.node}"

    def ask(self) -> GcAsk:
        return {
            "state_dir": self.state_dir,
            "cluster": self.cluster,
            "former": self.former,
            "kinds": list(self.kinds),
            "declared": self.needed,
            "foreign": False,
            "what": self.what,
            "name": self.name,
            "leaving": list(self.leaving),
        }


@dataclass(frozen=True, kw_only=True)
class OwnState(TakenBack):
    """sparkops' own folder on a node and what is below /run: goes last, when no cluster has anything left there.

    `name` is the folder; `going` are the names of what goes before it.
    """

    kind: ClassVar[str] = "own_state"

    going: tuple[str, ...] = ()

    def ask(self) -> dict[str, object]:
        about = {"state_dir": self.name, "cluster": self.cluster, "former": self.former}
        return {**about, "going": list(self.going)}

    @property
    def id(self) -> str:
        return f"state {self.name} @{self.node}"
