"""Taking back what was put on nodes, for whole nodes or for services: what of their claims goes and what stays.

The acts are those of a run whose plan has nothing but removals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from sparkops.compile.compiler import compile_inventory
from sparkops.core.errors import InventoryError
from sparkops.core.report import Report
from sparkops.core.wording import Message
from sparkops.inventory.inventory import Inventory
from sparkops.operate import gc
from sparkops.operate.connect import Context
from sparkops.reconcile.removal import OwnState, Reclaimed, Removal
from sparkops.reconcile.run import run
from sparkops.resources import removable


def remove(
    context: Context,
    names: Sequence[str],
    *,
    kinds: frozenset[str] = frozenset(),
    agree: Callable[[Report], bool] | None = None,
) -> Report:
    """Take back what is on the named nodes, or of the named services; a plan only where `agree` is None.

    `kinds` go beside those that a prune removes. A service need not be declared any longer: the claims of all nodes
    are asked then. Raises InventoryError for a name that neither the inventory nor a claim knows, LockBusy.
    """
    inventory = context.inventory
    nodes = tuple(name for name in inventory.nodes if name in names)
    services = tuple(name for name in dict.fromkeys(names) if name not in nodes)
    unknown = [name for name in services if name not in inventory.services]
    asked = [node for name in services if name not in unknown for node in inventory.services[name].nodes]
    whole = tuple(node for node in inventory.nodes if unknown or node in nodes or node in asked)

    def known(report: Report) -> Report:
        claimed = {step.service for step in report.plan.steps} | {each.service for each in report.plan.orphans}
        if lost := [name for name in unknown if name not in claimed]:
            silent = ", ".join(report.plan.unreachable) or "none"
            raise InventoryError.of("removal-of-unknown", name=lost[0], silent=silent)
        return report

    chosen = context.options(
        "remove",
        f"remove {' '.join(names)}",
        agree=(lambda report: agree(known(report))) if agree is not None else None,
        removal=_removal(inventory, nodes, services, whole, kinds),
        modules=removable() | kinds | {Reclaimed.kind, OwnState.kind},
        whole=whole,
        notices=tuple(_notices(inventory, nodes, services)),
    )
    return dataclasses.replace(known(run((), chosen)), endpoints={})


def _removal(
    inventory: Inventory, nodes: Sequence[str], services: Sequence[str], whole: Sequence[str], kinds: frozenset[str]
) -> Removal:
    left = {name: each for name, each in inventory.services.items() if name not in services}
    compiled = compile_inventory(dataclasses.replace(inventory, services=left))
    staying = tuple(each for each in compiled.resources if each.node in whole and each.node not in nodes)
    return Removal(
        cluster=inventory.cluster,
        former=inventory.renamed_from,
        nodes=frozenset(nodes),
        services=frozenset(services),
        kinds=kinds,
        staying=staying,
        needed={node: gc.declared([each for each in staying if each.node == node]) for node in whole},
        state_dirs={node: inventory.nodes[node].connection.state_dir for node in whole},
    )


def _notices(inventory: Inventory, nodes: Sequence[str], services: Sequence[str]) -> Iterator[Message]:
    """What the next apply would do, and what of a service goes on elsewhere."""
    declared = [name for name in nodes if inventory.nodes[name].state != "retired"]
    declared += [
        name for name in services if name in inventory.services and inventory.services[name].state != "retired"
    ]
    if declared:
        yield Message.of("removal-declared", names=declared)
    for service in inventory.services.values():
        others = [node for node in service.nodes if node not in nodes]
        if service.name not in services and others and len(others) < len(service.nodes):
            yield Message.of("removal-rank-left", service=service.name, nodes=others)
