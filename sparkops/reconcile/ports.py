"""Ports that other services of sparkops hold. Pure.

Where services of one run change ports, their own steps settle it. Nothing does where the other one is of another
inventory, or stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparkops.core.plan import Plan, Violation
from sparkops.core.states import Observed
from sparkops.core.wording import Message
from sparkops.resources.resource import Resource
from sparkops.resources.unit import Unit


def taken(resources: Sequence[Resource], found: Mapping[str, Observed], plan: Plan) -> dict[str, tuple[Violation, ...]]:
    """The violations of units whose port another service holds that this plan leaves as it is, by their ids."""
    changed = {
        (each.node, each.service) for each in plan.steps if each.kind == Unit.kind and each.id not in plan.blocked
    }
    violations: dict[str, tuple[Violation, ...]] = {}
    for each in resources:
        if not isinstance(each, Unit) or each.state == "absent":
            continue
        holder = _holder(found.get(each.id))
        if holder and holder != each.service and (each.node, holder) not in changed:
            service = each.service or each.name
            about = {"port": each.port, "holder": holder, "service": service, "node": each.node}
            violations[each.id] = (each.violation(Message.of("port-taken-by-service", **about)),)
    return violations


def _holder(found: Observed) -> str:
    owner = found.get("port_taken") if isinstance(found, Mapping) else None
    return str(owner.get("service") or "") if isinstance(owner, Mapping) else ""
