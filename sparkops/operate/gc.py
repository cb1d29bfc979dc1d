"""What can be given back on nodes: images and checkpoints that nothing declares or uses any more, with their bytes.

What is declared is taken from the whole inventory; who uses what is the nodes' own word, given twice: when it is shown,
and once more under the lock, just before it is removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sparkops import resources
from sparkops.compile.compiler import compile_inventory, spec_of
from sparkops.core.messages import reason as as_reason
from sparkops.core.request_messages import GcLook, GcRemove, ItemTold
from sparkops.core.wording import Message
from sparkops.inventory.inventory import Inventory
from sparkops.reconcile.fleet import Fleet
from sparkops.reconcile.history import actor, record
from sparkops.resources.resource import Resource

KIND = "gc"
"""The worker's module that looks and removes."""
PATIENCE = 600.0
"""Seconds that a look may take: sizes of large folders are counted file by file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An image or a folder on a node. `bytes` become free with it; `kept` says why it stays, `unknown`: because it is
    not known who uses it.

    `kind` is checkpoint, image, leftover (of a fetch), or foreign (an image that sparkops did not bring).
    """

    node: str
    kind: str
    name: str
    bytes: int
    kept: Message | None = None
    note: Message | None = None
    unknown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reclaimable:
    """What was found of `kinds`.

    `silent` maps nodes that did not answer to the reason, `outcomes` items to why they were left; None: they were not.
    """

    cluster: str
    items: tuple[Item, ...]
    kinds: tuple[str, ...] = ()
    silent: Mapping[str, Message] = field(default_factory=dict)
    outcomes: Mapping[Item, Message | None] = field(default_factory=dict)

    @property
    def going(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if not item.kept)

    @property
    def exit_status(self) -> int:
        """4 where a removal failed, 2 where something is left to reclaim, 3 where something is not known, else 0."""
        if any(self.outcomes.values()):
            return 4
        if len(self.outcomes) < len(self.going):
            return 2
        return 3 if self.silent or any(item.unknown for item in self.items) else 0


def kinds() -> tuple[str, ...]:
    """The kinds whose things are left for gc."""
    return tuple(name for name in resources.names() if resources.kind(name).prune == "collect")


def declared(things: Sequence[Resource]) -> dict[str, list[str]]:
    """What the resources of one node need there, by the words of `Resource.uses` (`folders`, `images`, …). Pure."""
    found: dict[str, set[str]] = {"folders": set()}
    for each in things:
        if each.desired() is None:
            continue
        for what, used in each.uses().items():
            found[what] = found.get(what, set()) | set(used)
        found["folders"] |= {mount["source"] for mount in (spec_of(each) or {}).get("mounts", ())}
    return {what: sorted(used) for what, used in found.items()}


def look(
    fleet: Fleet, inventory: Inventory, nodes: Sequence[str], only: Sequence[str] = (), *, foreign: bool = False
) -> Reclaimable:
    """Ask these nodes, of all kinds or `only` some; nothing is touched. Raises InventoryError."""
    asked = tuple(only) or kinds()
    asks = _asks(fleet, inventory, nodes, asked, foreign)
    told, silent = fleet.each(nodes, lambda node, session: session.call(f"{KIND}.look", asks[node], timeout=PATIENCE))
    return Reclaimable(
        cluster=inventory.cluster,
        kinds=asked,
        items=tuple(_item(node, each) for node, found in told.items() for each in found),
        silent={node: each.message for node, each in silent.items()},
    )


def _item(node: str, each: ItemTold) -> Item:
    kept, note = (Message.from_json(why) if why else None for why in (each["kept"], each["note"]))
    return Item(
        node=node,
        kind=each["kind"],
        name=each["name"],
        bytes=each["bytes"],
        unknown=each["unknown"],
        kept=kept,
        note=note,
    )


def _asks(
    fleet: Fleet, inventory: Inventory, nodes: Sequence[str], kinds: Sequence[str], foreign: bool
) -> dict[str, GcLook]:
    compiled = compile_inventory(inventory)
    return {
        node: {
            "state_dir": fleet.targets[node].state_dir,
            "cluster": inventory.cluster,
            "former": inventory.renamed_from,
            "kinds": list(kinds),
            "declared": declared(compiled.of(node)),
            "foreign": foreign,
        }
        for node in nodes
    }


def remove(
    fleet: Fleet,
    inventory: Inventory,
    found: Reclaimable,
    *,
    reason: str = "",
) -> Reclaimable:
    """Remove what `look` found, under the nodes' locks; what came into use meanwhile stays. Raises LockBusy."""
    command = f"gc {inventory.path.name}"
    nodes = list(dict.fromkeys(item.node for item in found.going))
    asks = _asks(fleet, inventory, nodes, found.kinds, False)
    fleet.lock(nodes, actor(command))
    orders: dict[str, GcRemove] = {
        node: {**asks[node], "items": [(item.kind, item.name) for item in found.going if item.node == node]}
        for node in nodes
    }
    answers, silent = fleet.each(nodes, lambda node, session: session.call(f"{KIND}.remove", orders[node]))
    outcomes: dict[Item, Message | None] = {}
    told = {(node, each["kind"], each["name"]): each["left"] for node, answer in answers.items() for each in answer}
    for item in found.going:
        if item.node in silent:
            outcomes[item] = silent[item.node].message
            continue
        left = told.get((item.node, item.kind, item.name), as_reason("not-answered"))
        outcomes[item] = Message.from_json(left) if left else None
    done: dict[str, list[dict[str, str]]] = {}
    for item, outcome in outcomes.items():
        step = {"id": f"{item.kind} {item.name}", "action": "delete"}
        done.setdefault(item.node, []).append({**step, "outcome": "failed" if outcome else "done"})
    record(fleet, inventory, command, done, reason=reason)
    fleet.unlock()
    return replace(found, outcomes=outcomes)
