"""Who gets content from whom: one node fetches or makes it, the others get it from nodes of the run. Pure.

Nodes that are proven to have it are sources. Those that lack it form chains behind them, or behind the first of their
own: each gets part by part what the one before it has proven. What can't be served before it is whole goes from each
source to all of its receivers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from sparkops.checkpoints.authority import Authority
from sparkops.core.plan import Plan, Step
from sparkops.core.wording import Message
from sparkops.reconcile.plan import Observations
from sparkops.reconcile.targets import Address
from sparkops.resources.resource import Resource
from sparkops.resources.transfers.source import Upstream
from sparkops.resources.transfers.transferable import Transferable


def arrange(
    plan: Plan, resources: Sequence[Resource], seen: Observations, address: Callable[[str], Address]
) -> tuple[Mapping[str, Upstream], tuple[Message, ...]]:
    """The sources by the receiving resource's id, and notices. `address` is asked for sources only."""
    steps = {step.id: step for step in plan.steps}
    upstreams: dict[str, Upstream] = {}
    notices: list[Message] = []
    authority = Authority()
    for group in _groups(plan, resources, steps):
        for source, receivers in _assigned(group, steps, plan, seen):
            where = address(source.node)
            for receiver in receivers:
                if not where.all:
                    id = "transfer-source-without-address"
                    notices.append(Message.of(id, resource=receiver.id, source=source.node))
                    continue
                upstream = Upstream(
                    source=source,
                    receiver=receiver,
                    addresses=where.all,
                    fabric=bool(where.fabric),
                    receivers=tuple(each.node for each in receivers),
                    authority=authority,
                )
                upstreams[receiver.id] = upstream
                id = "transfer-from" if where.fabric else "transfer-from-management-address"
                notices.append(Message.of(id, resource=receiver.id, way=upstream.way, source=source.node))
    return upstreams, tuple(notices)


def _groups(plan: Plan, resources: Iterable[Resource], steps: Mapping[str, Step]) -> Iterable[Sequence[Transferable]]:
    """Those of one content each, with a step in the plan's order before the others."""
    order = {step.id: number for number, step in enumerate(plan.steps)}
    found: dict[tuple[str, str], list[Transferable]] = {}
    for each in sorted(resources, key=lambda one: order.get(one.id, len(order))):
        if isinstance(each, Transferable) and each.spread and not each.pruned and (key := each.transfer_key):
            found.setdefault((each.kind, key), []).append(each)
    return [group for group in found.values() if len(group) > 1 and any(e.lacks(steps.get(e.id)) for e in group)]


def _assigned(
    group: Sequence[Transferable], steps: Mapping[str, Step], plan: Plan, seen: Observations
) -> Iterable[tuple[Transferable, Sequence[Transferable]]]:
    """Each source of one content with its receivers."""
    able = [each for each in group if each.id not in plan.blocked and each.node not in seen.unreachable]
    known = {each.id: found for each in able if isinstance(found := seen.found.get(each.id), Mapping)}
    lacking = [each for each in able if each.lacks(steps.get(each.id))]
    complete = [each for each in able if each.id in known and each not in lacking]
    proven = [each for each in complete if each.proven(known[each.id])]
    to_be_proven = [each for each in complete if each not in proven and each.id in steps]
    heads = proven or to_be_proven or lacking[:1]
    lacking = [each for each in lacking if each not in heads]
    for number, head in enumerate(heads):
        receivers = lacking[number :: len(heads)]
        if receivers and not head.streamed:
            yield head, receivers
        elif head.streamed:
            yield from ((source, [each]) for source, each in zip([head, *receivers], receivers, strict=False))
