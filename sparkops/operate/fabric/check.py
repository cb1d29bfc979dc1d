"""`sparkops fabric check`: every cable between nodes measured, one after the other. It must not know who reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sparkops.core import events
from sparkops.core.errors import InventoryError
from sparkops.core.wording import Message
from sparkops.inventory.inventory import Inventory
from sparkops.models.fabric import plan as fabric_plan
from sparkops.models.fabric.plan import Cable
from sparkops.operate.connect import Context, reach
from sparkops.resources.measuring.cable import SECONDS, Figure, Measurement, addresses


@dataclass
class Checked:
    """All figures, the nodes that did not answer, and those of which no link is declared, so that none was measured."""

    figures: list[Figure] = field(default_factory=list)
    silent: dict[str, Message] = field(default_factory=dict)
    unlinked: tuple[str, ...] = ()

    @property
    def exit_status(self) -> int:
        """0 all is good, 2 something is wrong, 3 something is not known."""
        if any(each.reason is not None and not each.unknown for each in self.figures):
            return 2
        return 3 if self.silent or any(each.unknown for each in self.figures) else 0


def cables(inventory: Inventory, nodes: Sequence[str]) -> tuple[Cable, ...]:
    """What there is to measure between these nodes. Raises InventoryError where the inventory declares no link."""
    variables = {
        name: {"fabric": inventory.variables(name).get("fabric"), "state": node.state}
        for name, node in inventory.nodes.items()
    }
    found = fabric_plan.cables(variables, nodes)
    if not found:
        raise InventoryError.of("fabric-not-declared", nodes=list(nodes))
    return found


def check(context: Context, nodes: Sequence[str], *, seconds: float = SECONDS, serving: bool = False) -> Checked:
    """Measure all cables between these nodes. Engines that use them are refused, unless `serving` lets them."""
    whole = cables(context.inventory, nodes)
    taking_part = sorted({name for each in whole for name in (each.sender, each.receiver)})
    checked = Checked(unlinked=tuple(node for node in nodes if node not in taking_part))
    with reach(context, taking_part, ["measure"]) as fleet:
        known, silent = fleet.each(
            taking_part, lambda node, session: session.call("measure.look", addresses(node, whole))
        )
        checked.silent = {node: error.message for node, error in silent.items()}
        busy = {node: found["units"] for node, found in known.items() if found["units"]}
        if busy and not serving:
            units = [f"{unit} on {node}" for node, each in busy.items() for unit in each]
            raise InventoryError.of("fabric-in-use", units=units)
        for cable in whole:
            if cable.sender in known and cable.receiver in known:
                context.listener(events.Notice(node=cable.sender, message=_measuring(cable)))
                checked.figures += Measurement(fleet.session, cable, known, seconds).figures()
    return checked


def _measuring(cable: Cable) -> Message:
    return Message.of("fabric-measuring", sender=cable.sender, receiver=cable.receiver)
