"""What `sparkops remove` takes back: which of a node's claims, and what goes beyond what a prune removes. Pure.

Beside the kinds these are checkpoints and images by the rules of gc, and the own folder of sparkops, which no inventory
declares. It must not know how what stays declared is found out: that is given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from sparkops.core.messages import Claimer
from sparkops.core.plan import Orphan
from sparkops.core.request_messages import GcAsk
from sparkops.core.states import Observed, State
from sparkops.core.wording import Message
from sparkops.reconcile import orphans
from sparkops.resources import kind, known, names
from sparkops.resources.resource import Resource


@dataclass(frozen=True, kw_only=True)
class TakenBack(Resource):
    """Something that is to be absent, unless the node says in `stays` why it is left."""

    claimed: ClassVar[bool] = False

    removal: Removal = field(repr=False)

    def claimer(self) -> Claimer:
        """Whose claims they are, and where these are kept."""
        of = self.removal
        return {"state_dir": of.state_dirs[self.node], "cluster": of.cluster, "former": of.former}

    def desired(self) -> State:
        return None

    def stays(self, found: Observed) -> Message | None:
        why = found.get("stays") if isinstance(found, Mapping) else None
        return Message.from_json(why) if why else None


@dataclass(frozen=True, kw_only=True)
class Reclaimed(TakenBack):
    """A checkpoint or an image that goes where nothing else needs it.

    `what` is the kind that it was declared as, `leaving` are the paths of what goes before it.
    """

    kind: ClassVar[str] = "gc"
    volatile: ClassVar[frozenset[str]] = frozenset({"bytes"})

    what: str
    leaving: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.what} {self.name} @{self.node}"

    def ask(self) -> GcAsk:
        return {
            **self.claimer(),
            "kinds": [name for name in sorted(self.removal.kinds) if kind(name).prune == "collect"],
            "declared": self.removal.needed.get(self.node, {}),
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
        return {**self.claimer(), "going": list(self.going)}

    @property
    def id(self) -> str:
        return f"state {self.name} @{self.node}"


def kinds_of(options: Collection[str]) -> frozenset[str]:
    """The kinds that otherwise stay and that these options ask for."""
    return frozenset(name for name in names() if kind(name).removed_with in options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """All of `nodes`, and on any node what belongs to `services`; `kinds` are those that are asked for beside.

    former: the name that the cluster had before.
    staying: what goes on being declared on the nodes; needed: the folders, images and builds of that, by node.
    state_dirs: sparkops' folder on each node.
    """

    cluster: str
    former: str = ""
    nodes: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    staying: tuple[Resource, ...] = ()
    needed: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    state_dirs: Mapping[str, str] = field(default_factory=dict)

    def taken(self, found: Iterable[Orphan]) -> tuple[Orphan, ...]:
        """Those of the orphans that it is about."""
        return tuple(each for each in found if each.node in self.nodes or each.service in self.services)

    def gone(self, found: Sequence[Orphan]) -> tuple[Resource, ...]:
        """What goes, as resources that are to be absent; sparkops' own folder last, on nodes that are taken whole."""
        leaving: dict[str, list[str]] = {}
        for each in found:
            if not each.kept and each.occupied.path:
                leaving.setdefault(each.node, []).append(each.occupied.path)

        def absent(orphan: Orphan, after: tuple[str, ...]) -> Resource:
            if kind(orphan.kind).prune != "collect":
                return orphans.pruned(orphan, after)
            return Reclaimed(
                node=orphan.node,
                name=orphan.name,
                role=orphan.role,
                service=orphan.service,
                after=after,
                removal=self,
                what=orphan.kind,
                leaving=tuple(leaving.get(orphan.node, ())),
            )

        going = orphans.removed(found, (), prune=True, absent=absent)
        return (*going, *(self._own_state(node, going) for node in sorted(self.nodes)))

    def _own_state(self, node: str, going: Sequence[Resource]) -> OwnState:
        here = [each for each in going if each.node == node]
        return OwnState(
            node=node,
            name=self.state_dirs[node],
            after=tuple(each.id for each in here),
            removal=self,
            going=tuple(each.name for each in here if isinstance(each, Reclaimed)),
        )

    def left(
        self, gone: Sequence[Resource], found: Mapping[str, Observed], staying: Iterable[Orphan]
    ) -> dict[str, Message]:
        """Why things stay as they were `found`, by their ids: of sparkops' own folder also since others need it."""
        stay = {each.id: why for each in gone if (why := each.stays(found.get(each.id)))}
        claimed = [each for each in staying if stays_claimed(each)]
        for each in gone:
            held = [other.id for other in claimed if other.node == each.node]
            held += [other.id for other in gone if other.node == each.node and other.id in stay and other is not each]
            if isinstance(each, OwnState) and held and found.get(each.id) is not None:
                stay[each.id] = Message.of("own-state-records", thing=held[0].partition(" @")[0])
        return stay


def stays_claimed(orphan: Orphan) -> bool:
    """Whether what stays goes on being claimed: what may be asked for later, and what no installed kind knows."""
    if (of := known(orphan.kind)) is Resource or orphan.kept is None:
        return of is Resource
    return of.prune == "collect" or (bool(of.removed_with) and orphan.kept.id in orphans.UNASKED)
