"""What this cluster put on its nodes and no longer declares: found from claims, removed only when asked for. Pure.

A claim that no declared resource covers is an orphan. Units, files, links and directories can be removed, each only
while it is what sparkops put there; everything else is told and left. It must not know how a node is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sparkops import resources as kinds
from sparkops.core.plan import Orphan, Plan, Violation
from sparkops.core.states import Observed, Unknown
from sparkops.reconcile.plan import Observations
from sparkops.resources.resource import Resource

REMOVED = ("unit", "file", "link", "directory")
"""The kinds that `--prune` removes, in this order: what runs before what it runs from."""
HEAVY = ("image", "checkpoint", "built_checkpoint")
"""Kinds whose claims outlast a prune: they hold data that somebody has to decide about."""
PATHS = ("file", "link", "directory")
"""The kinds whose names are paths, of which one thing at a time can be had."""
UNITS = "/etc/systemd/system/"
STAYS = {
    "image": "`sparkops gc` removes it, once nothing on the node uses it",
    "checkpoint": "`sparkops gc` removes it, once nothing on the node uses it",
    "built_checkpoint": "`sparkops gc` removes it, once nothing on the node uses it",
    "package": "`apt-get remove {name}` on the node removes it",
    "user": "`userdel {name}` on the node removes it",
    "mount": "`umount {name}` and its line in /etc/fstab, on the node",
    "sysctl": "remove its line under /etc/sysctl.d on the node; the value stays until a reboot",
}
NOT_OURS = {
    "edited": "it was edited since sparkops wrote it",
    "other": "something else stands there now",
    "unrecorded": "what it holds was never sparkops'",
}


def find(
    declared: Sequence[Resource], seen: Observations, *, retired: Callable[[str, str | None], bool]
) -> tuple[Orphan, ...]:
    """The orphans on the nodes that told their claims. `retired` tells that of a node or a service on it."""
    found: list[Orphan] = []
    for node, answer in seen.claims.items():
        if answer is None or isinstance(answer, Unknown):
            continue
        here = [each for each in declared if each.node == node]
        strays: dict[tuple[str, str], Mapping[str, Any]] = {}
        for key, entry in answer["strays"].items():
            kind, _, name = key.partition(" ")
            if entry["now"] != "gone" and not _covered(kind, name, entry["now"], here):
                strays[kind, name] = entry
        leaving = {_path(each) for each in here if each.desired() is None}
        for kind in (*REMOVED, *sorted({kind for kind, _ in strays} - set(REMOVED))):
            names = sorted((name for each, name in strays if each == kind), key=lambda name: (-name.count("/"), name))
            for name in names:
                orphan = _orphan(node, kind, name, strays[kind, name], leaving, retired)
                found.append(orphan)
                if not orphan.kept:
                    leaving.add(UNITS + name if kind == "unit" else name)
    return tuple(found)


def _orphan(
    node: str,
    kind: str,
    name: str,
    entry: Mapping[str, Any],
    leaving: set[str],
    retired: Callable[[str, str | None], bool],
) -> Orphan:
    service, port = entry.get("service"), entry.get("port")
    kept, remedy = _kept(kind, name, entry, leaving)
    return Orphan(
        id=f"{kind} {name} @{node}",
        node=node,
        kind=kind,
        name=name,
        role=str(entry.get("role") or ""),
        service=service if isinstance(service, str) else None,
        port=port if isinstance(port, int) else None,
        kept=kept,
        remedy=remedy,
        retired=retired(node, service),
    )


def _kept(kind: str, name: str, entry: Mapping[str, Any], leaving: set[str]) -> tuple[str, str]:
    """Why it would be left, and how it goes by hand; two empty words for what can be removed."""
    now = entry["now"]
    if now == "shared":
        return f"the cluster {', '.join(entry['others'])} uses it too", ""
    if kind not in REMOVED:
        return f"sparkops never removes a {kind.replace('_', ' ')} unasked", STAYS.get(kind, "").format(name=name)
    if now in NOT_OURS:
        return NOT_OURS[now], "remove it by hand, or declare it again"
    if kind == "directory":
        names = entry.get("entries")
        if names is None or any(f"{name.rstrip('/')}/{each}" not in leaving for each in names):
            return "it is not empty", "remove by hand what nobody needs in it"
    return "", ""


def _path(resource: Resource) -> str:
    return UNITS + resource.name if resource.kind == "unit" else resource.name


def _covered(kind: str, name: str, now: str, declared: Sequence[Resource]) -> bool:
    """Whether another declared resource is the same thing, or needs it: a unit's file, a folder of what is declared."""
    if kind in HEAVY:
        return any(each.kind in HEAVY and each.name == name for each in declared)
    if kind not in PATHS:
        return False
    for each in declared:
        path = _path(each)
        if path == name and (each.kind not in PATHS or now == "other"):
            return True
        if kind == "directory" and each.desired() is not None and path.startswith(name.rstrip("/") + "/"):
            return True
    return False


def removed(orphans: Iterable[Orphan], declared: Sequence[Resource], *, prune: bool) -> tuple[Resource, ...]:
    """The orphans to remove, as resources that are to be absent, in the reverse order of their making."""
    going = [each for each in orphans if not each.kept and (prune or each.retired)]
    return tuple(_absent(each, tuple(_before(each, going, declared))) for each in going)


def _absent(orphan: Orphan, after: tuple[str, ...]) -> Resource:
    absent: dict[str, Any] = {"state": "absent", "pruned": True}
    return kinds.kind(orphan.kind)(
        node=orphan.node, name=orphan.name, role=orphan.role, service=orphan.service, after=after, **absent
    )


def _before(orphan: Orphan, going: Sequence[Orphan], declared: Sequence[Resource]) -> Iterator[str]:
    """What goes before it: units before files, files before their directories, deep ones before those above."""
    inside = orphan.name.rstrip("/") + "/"
    for each in going:
        if each.node != orphan.node or each.id == orphan.id:
            continue
        below = orphan.kind == "directory" and each.name.startswith(inside)
        if below or (orphan.kind != "unit" and each.kind == "unit"):
            yield each.id
    if orphan.kind == "directory":
        yield from (
            each.id
            for each in declared
            if each.node == orphan.node and each.desired() is None and _path(each).startswith(inside)
        )


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
    if orphan.kind == "unit":
        return orphan.port is not None and orphan.port == getattr(resource, "port", None) and resource.kind == "unit"
    return orphan.name == resource.name and resource.kind in PATHS


def judged(
    declared: Sequence[Resource], seen: Observations, orphans: Sequence[Orphan]
) -> tuple[dict[str, tuple[Violation, ...]], frozenset[str]]:
    """What claims have against declared resources, by id; and the ids of what stays because others use it.

    `orphans` are those that are not removed.
    """
    against: dict[str, tuple[Violation, ...]] = {}
    left: set[str] = set()
    for each in declared:
        others = _others(each, seen.claims.get(each.node))
        if others and all(others.values()) and each.common and each.desired() is None:
            left.add(each.id)
        elif strange := sorted(name for name, shared in others.items() if not (shared and each.common)):
            against[each.id] = (_claimed_twice(each, strange[0]),)
        for orphan in orphans:
            if _in_the_way(orphan, each) and not _in_place(each, seen.found.get(each.id)):
                against[each.id] = (*against.get(each.id, ()), _in_its_way(each, orphan))
    return against, frozenset(left)


def _in_place(resource: Resource, found: Observed) -> bool:
    """Whether the declared thing is there all the same: it runs, or nothing else stands at its path."""
    if resource.kind == "unit":
        return isinstance(found, Mapping) and bool(found.get("running"))
    return not isinstance(found, Mapping) or found.get("type") == resource.kind


def _others(resource: Resource, answer: Observed) -> Mapping[str, bool]:
    if answer is None or isinstance(answer, Unknown) or not resource.claimed:
        return {}
    found = answer["foreign"].get(f"{resource.kind} {resource.name}", {})
    return found if isinstance(found, Mapping) else {}


def _claimed_twice(resource: Resource, other: str) -> Violation:
    return Violation(
        id="claims.two-clusters",
        resource=resource.id,
        node=resource.node,
        severity="error",
        message=f"{resource.kind} {resource.name} is managed by the cluster {other!r} already",
        remedy=f"take it out of one of the two inventories, or retire it in {other!r} first",
    )


def _in_its_way(resource: Resource, orphan: Orphan) -> Violation:
    what = f"port {orphan.port} is held by" if orphan.kind == "unit" else "in its place stands"
    way = "`sparkops apply --prune` removes it first" if not orphan.kept else f"{orphan.kept}; {orphan.remedy}"
    return Violation(
        id="orphans.in-the-way",
        resource=resource.id,
        node=resource.node,
        severity="error",
        message=f"{what} {orphan.kind} {orphan.name}, which is no longer declared",
        remedy=way,
    )


def notes(declared: Sequence[Resource], seen: Observations, plan: Plan, *, prune: bool) -> dict[str, dict[str, Any]]:
    """What the record of each node lacks or has too much: `claims` and `drop` of the worker's `claimed.note`.

    What is already as it is declared is claimed too; what is gone, and with `prune` what is left, is let go.
    """
    wrong = {violation.resource for violation in plan.violations if violation.blocks}
    busy = {step.id for step in plan.steps} | plan.unknown.keys() | wrong
    found: dict[str, dict[str, Any]] = {}
    for node, answer in seen.claims.items():
        if answer is None or isinstance(answer, Unknown) or node in plan.held:
            continue
        here = [each for each in declared if each.node == node and each.claimed and each.converged]
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
        drop += _strays_to_drop(node, answer["strays"], here, plan, prune)
        if claims or drop:
            found[node] = {"claims": claims, "drop": drop}
    return found


def _strays_to_drop(
    node: str, strays: Mapping[str, Any], here: Sequence[Resource], plan: Plan, prune: bool
) -> Iterator[str]:
    kept = {f"{each.kind} {each.name}" for each in plan.orphans if each.node == node and each.kept}
    for key, entry in strays.items():
        kind, _, name = key.partition(" ")
        now = entry["now"]
        replaced = (kind != "directory" or now == "other") and _covered(kind, name, now, here)
        if now == "gone" or replaced or (prune and key in kept and kind not in HEAVY):
            yield key


def _as_kept(entry: Mapping[str, Any], kept: Mapping[str, Any]) -> bool:
    """Whether a record's entry says what it should. Which secret it is of can't be told here; the act has told it."""
    names = ["role", "service", "shared", "port", "content"]
    if "secret" in kept:
        names.remove("content")
        content = entry.get("content")
        if not (isinstance(content, Sequence) and len(content) == 1 and str(content[0]).startswith("hmac:")):
            return False
    return entry.get("phase") == "ours" and all(entry.get(name) == kept.get(name) for name in names)
