"""What this cluster put on its nodes and no longer declares: found from claims, removed only when asked for. Pure.

A claim that no declared resource covers is an orphan. What its kind lets a prune remove can go, only while it is what
sparkops put there; everything else is named and left. It must not know any kind, nor how a node is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sparkops import resources as kinds
from sparkops.core.messages import Fields
from sparkops.core.plan import FOR_GC, Occupied, Orphan, Plan, Violation
from sparkops.core.system_places import below
from sparkops.core.wording import Message
from sparkops.reconcile.plan import Observations
from sparkops.resources.resource import Resource

NOT_OURS = {"edited": "orphan-edited", "other": "orphan-replaced", "unrecorded": "orphan-content-not-ours"}
"""The ids of why a file is left, by what the node says of it."""
UNASKED = frozenset({FOR_GC, "orphan-kind-kept", "orphan-kind-unasked"})
"""The ids of things that are left only because nobody asked for their kind."""


def find(
    declared: Sequence[Resource],
    seen: Observations,
    *,
    retired: Callable[[str, str | None], bool],
    asked: Collection[str] | None = None,
) -> tuple[Orphan, ...]:
    """The orphans on the nodes that told their claims. `retired` tells that of a node or a service on it.

    `asked` are kinds that go beside those that a prune removes; None where nobody can ask for more.
    """
    found: list[Orphan] = []
    for node, answer in seen.told.items():
        here = [each for each in declared if each.node == node]
        there = [_Stray.of(key, entry) for key, entry in answer["strays"].items() if entry["now"] != "gone"]
        strays = [stray for stray in there if not _covered(stray, here)]
        leaving = {each.occupies.path for each in here if each.desired() is None}
        for stray in sorted(strays, key=_Stray.turn):
            kept = stray.kept(leaving, asked)
            restores = kept is None and bool(stray.entry.get("original"))
            if kept is None and not restores:
                leaving.add(stray.occupied.path)
            found.append(
                Orphan(
                    id=f"{stray.kind} {stray.name} @{node}",
                    node=node,
                    kind=stray.kind,
                    name=stray.name,
                    role=str(stray.entry.get("role") or ""),
                    service=stray.entry.get("service"),
                    occupied=stray.occupied,
                    kept=kept,
                    retired=retired(node, stray.entry.get("service")),
                    restores=restores,
                )
            )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Stray:
    """A claim that nothing declares under its name."""

    kind: str
    name: str
    entry: Fields
    type: type[Resource]

    @classmethod
    def of(cls, key: str, entry: Mapping[str, object]) -> _Stray:
        kind, _, name = key.partition(" ")
        return cls(kind, name, entry, kinds.known(kind))

    @property
    def occupied(self) -> Occupied:
        return self.type.occupied(self.name, self.entry)

    def turn(self) -> tuple[bool, bool, bool, int, str, str]:
        """What runs goes before what it runs from, what lies in a directory before that."""
        path = self.occupied.path
        directory = self.type.file_type == "directory"
        return (self.type.prune != "remove", not self.occupied.unit, directory, -path.count("/"), self.kind, self.name)

    def kept(self, leaving: set[str], asked: Collection[str] | None) -> Message | None:
        """Why it would be left, and how it goes by hand; None for what can be removed."""
        now = self.entry["now"]
        if now == "shared":
            return Message.of("orphan-shared", clusters=self.entry["others"])
        if self.type is Resource:
            return Message.of("orphan-kind-not-installed", kind=self.kind)
        ours = self.type.brought(self.name, self.entry)
        unasked = self.type.prune != "remove" and self.kind not in (asked or ())
        kind, option = self.kind.replace("_", " "), self.type.removed_with
        released, removed = (
            Message.of(id, name=self.name) if id else None for id in (self.type.released_by, self.type.removed_by)
        )
        if not ours and (self.type.prune != "collect" or (unasked and self.entry.get("action") == "found")):
            return Message.of("orphan-there-before", hint=released)
        if unasked and asked is not None and option:
            return Message.of("orphan-kind-unasked", kind=kind, option=option)
        if unasked and self.type.prune == "collect":
            return Message.of(FOR_GC, kind=kind)
        if unasked:
            return Message.of("orphan-kind-kept", kind=kind, hint=removed)
        if now == "unrecorded" and self.occupied.unit:
            return Message.of("orphan-unit-not-ours")
        if now in NOT_OURS or (not now and self.type.file_type):
            return Message.of(NOT_OURS.get(now, NOT_OURS["unrecorded"]))
        if self.type.file_type == "directory":
            names = self.entry.get("entries")
            if names is None or any(f"{self.name.rstrip('/')}/{each}" not in leaving for each in names):
                return Message.of("orphan-not-empty")
        return None


def _covered(stray: _Stray, declared: Iterable[Resource]) -> bool:
    """Whether another declared resource is the same thing, or needs it: a unit's file, a folder of what is declared."""
    place = stray.occupied
    if not place.path or place.unit:
        return False
    for each in declared:
        other = each.occupies
        if other.path == place.path:
            if not each.file_type or (stray.type.file_type and (other.unit or stray.entry["now"] == "other")):
                return True
        elif stray.type.file_type == "directory" and each.desired() is not None and below(other.path, place.path):
            return True
    return False


def pruned(orphan: Orphan, after: tuple[str, ...]) -> Resource:
    """An orphan as a resource of its kind that is to be absent."""
    return kinds.kind(orphan.kind).absent(
        node=orphan.node, name=orphan.name, role=orphan.role, service=orphan.service, after=after
    )


def removed(
    orphans: Iterable[Orphan],
    declared: Sequence[Resource],
    *,
    prune: bool,
    absent: Callable[[Orphan, tuple[str, ...]], Resource] = pruned,
) -> tuple[Resource, ...]:
    """The orphans to remove, as resources that are to be absent, in the reverse order of their making.

    `absent` makes such a resource of an orphan and what it comes after.
    """
    going = [each for each in orphans if not each.kept and (prune or each.retired)]
    return tuple(absent(each, tuple(_before(each, going, declared))) for each in going)


def _before(orphan: Orphan, going: Sequence[Orphan], declared: Sequence[Resource]) -> Iterator[str]:
    """What goes before it: units before files, files before their directories, deep ones before those above."""
    for each in going:
        if each.node != orphan.node or each.id == orphan.id:
            continue
        if below(each.occupied.path, orphan.occupied.path) or (each.occupied.unit and not orphan.occupied.unit):
            yield each.id
    for other in declared:
        if other.node == orphan.node and other.desired() is None and below(other.occupies.path, orphan.occupied.path):
            yield other.id


def edges(
    declared: Sequence[Resource], gone: Sequence[Resource], orphans: Iterable[Orphan]
) -> dict[str, tuple[str, ...]]:
    """The declared resources that come after orphans which are in their way: on their port, or at their path."""
    ids = {each.id for each in gone}
    going = [each for each in orphans if each.id in ids]
    found = {each.id: tuple(other.id for other in going if _in_the_way(other, each)) for each in declared}
    return {id: after for id, after in found.items() if after}


def _in_the_way(orphan: Orphan, resource: Resource) -> bool:
    if orphan.node != resource.node or resource.desired() is None:
        return False
    mine, other = resource.occupies, orphan.occupied
    if other.unit:
        return other.port is not None and other.port == mine.port
    return bool(other.path) and other.path == mine.path and bool(resource.file_type) and not mine.unit


def renamed(seen: Observations, cluster: str, former: str) -> tuple[Message, ...]:
    """What is to be said of the cluster's `former` name: where its claims are taken over, or that none are left."""
    nodes = [node for node, answer in seen.told.items() if answer.get("renamed")]
    if nodes:
        return (Message.of("cluster-renamed", former=former, cluster=cluster, nodes=nodes),)
    everywhere = bool(former) and len(seen.told) == len(seen.claims) > 0 and not seen.unreachable
    return (Message.of("cluster-rename-done", former=former),) if everywhere else ()


def at_work(seen: Observations) -> tuple[Message, ...]:
    """What is to be said of other runs that work on the nodes meanwhile."""
    return tuple(
        Message.of("node-at-work", node=node, reason=Message.from_json(answer["locked"]))
        for node, answer in seen.told.items()
        if answer.get("locked") is not None
    )


def judged(
    declared: Sequence[Resource], seen: Observations, orphans: Sequence[Orphan]
) -> tuple[dict[str, tuple[Violation, ...]], frozenset[str]]:
    """What claims have against declared resources, by id; and the ids of what stays because others use it.

    `orphans` are those that are not removed.
    """
    against: dict[str, tuple[Violation, ...]] = {}
    left: set[str] = set()
    for each in declared:
        others: Mapping[str, bool] = {}
        if each.claimed and each.node in seen.told:
            others = seen.told[each.node]["foreign"].get(f"{each.kind} {each.name}", {})
        if others and all(others.values()) and each.common and each.desired() is None:
            left.add(each.id)
        elif strange := sorted(name for name, shared in others.items() if not (shared and each.common)):
            key = f"{each.kind} {each.name}"
            message = Message.of("claim-of-other-cluster", cluster=strange[0], key=key)
            against[each.id] = (each.violation(message),)
        for orphan in orphans:
            if _in_the_way(orphan, each) and not each.in_place(seen.found.get(each.id)):
                against[each.id] = (*against.get(each.id, ()), _in_its_way(each, orphan))
    return against, frozenset(left)


def _in_its_way(resource: Resource, orphan: Orphan) -> Violation:
    args = {"kind": orphan.kind, "name": orphan.name}
    if orphan.kept:
        message = Message.of("orphan-in-the-way-kept", **args, kept=orphan.kept)
    elif orphan.occupied.unit:
        message = Message.of("orphan-on-port", **args, port=orphan.occupied.port)
    else:
        message = Message.of("orphan-in-the-way", **args)
    return resource.violation(message)


def notes(
    declared: Sequence[Resource],
    seen: Observations,
    plan: Plan,
    *,
    prune: bool,
    claimed: Callable[[Orphan], bool] = lambda orphan: False,
) -> dict[str, dict[str, object]]:
    """What the record of each node lacks or has too much: `claims` and `drop` of the worker's `claimed.note`.

    What is already as it is declared is claimed too; what is gone is let go, and with `prune` what is left but for what
    stays `claimed`. A node with claims of the cluster's former name is among them though nothing else is to be written.
    """
    stay = {each.id for each in plan.orphans if claimed(each)}
    wrong = {violation.resource for violation in plan.violations if violation.blocks}
    busy = {step.id for step in plan.steps} | plan.unknown.keys() | wrong
    found: dict[str, dict[str, object]] = {}
    for node, answer in seen.told.items():
        if node in plan.held:
            continue
        here = [each for each in declared if each.node == node and each.claimed]
        claims, drop = {}, []
        for each in here:
            key = f"{each.kind} {each.name}"
            entry = answer["claims"].get(key)
            if each.id in busy:
                continue
            if each.desired() is None:
                drop += [key] if entry is not None else []
            elif entry is None or not _as_kept(entry, each.claim()):
                claims[key] = each.claim()
        strays = {key: each for key, each in answer["strays"].items() if f"{key} @{node}" not in stay}
        drop += _strays_to_drop(node, strays, here, plan, prune)
        if claims or drop or answer.get("renamed"):
            found[node] = {"claims": claims, "drop": drop}
    return found


def _strays_to_drop(node: str, strays: Fields, here: Sequence[Resource], plan: Plan, prune: bool) -> Iterator[str]:
    kept = {f"{each.kind} {each.name}" for each in plan.orphans if each.node == node and each.kept}
    for key, entry in strays.items():
        stray = _Stray.of(key, entry)
        replaced = (stray.type.file_type != "directory" or entry["now"] == "other") and _covered(stray, here)
        left = prune and key in kept and stray.type is not Resource and stray.type.prune != "collect"
        if entry["now"] == "gone" or replaced or left:
            yield key


def _as_kept(entry: Mapping[str, object], kept: Mapping[str, object]) -> bool:
    """Whether a record's entry says what it should. Which secret it is of can't be told here; the act has told it."""
    names = ["role", "service", "shared", "path", "type", "unit", "port", "content"]
    if "secret" in kept:
        names.remove("content")
        content = entry.get("content")
        if not (isinstance(content, Sequence) and len(content) == 1 and str(content[0]).startswith("hmac:")):
            return False
    return entry.get("phase") == "ours" and all(entry.get(name) == kept.get(name) for name in names)
