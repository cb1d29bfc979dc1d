"""Who gets content from whom: one node fetches or makes it, the others get it from nodes of the run. Pure.

Nodes that are proven to hold it are sources. Those that lack it form chains behind them, or behind the first of their
own: each gets part by part what the one before it has proven. What can't be passed on before it is whole goes from
each source to all of its receivers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from sparkops.checkpoints.authority import Authority
from sparkops.core.plan import Plan, Step
from sparkops.reconcile.plan import Comparison, Observations
from sparkops.reconcile.targets import Address
from sparkops.resources.resource import Resource
from sparkops.resources.transfer_source import Upstream
from sparkops.resources.transferable import Passed


def arrange(
    plan: Plan | Comparison, resources: Sequence[Resource], seen: Observations, address: Callable[[str], Address]
) -> tuple[tuple[Resource, ...], tuple[str, ...]]:
    """The resources with their upstreams, and what is to be said of it. `address` is asked for sources only."""
    steps = {step.id: step for step in plan.steps}
    behind: dict[str, Passed] = {}
    notices: list[str] = []
    authority = Authority()
    for group in _groups(plan, resources, steps):
        ways = _Ways(group, steps, plan, seen, address, authority)
        behind |= ways.behind
        notices += ways.notices
    return tuple(behind.get(each.id, each) for each in resources), tuple(notices)


def _groups(
    plan: Plan | Comparison, resources: Iterable[Resource], steps: Mapping[str, Step]
) -> Iterable[Sequence[Passed]]:
    """Those of one content each, with a step in the plan's order before the others."""
    order = {step.id: number for number, step in enumerate(plan.steps)}
    found: dict[tuple[str, str], list[Passed]] = {}
    for each in sorted(resources, key=lambda one: order.get(one.id, len(order))):
        if isinstance(each, Passed) and each.spread and not each.pruned and (content := each.passable):
            found.setdefault((each.kind, content), []).append(each)
    return [group for group in found.values() if len(group) > 1 and any(e.lacks(steps.get(e.id)) for e in group)]


class _Ways:
    """The ways of one content: `behind` holds the receivers with their upstreams."""

    def __init__(
        self,
        group: Sequence[Passed],
        steps: Mapping[str, Step],
        plan: Plan | Comparison,
        seen: Observations,
        address: Callable[[str], Address],
        authority: Authority,
    ) -> None:
        self.behind: dict[str, Passed] = {}
        self.notices: list[str] = []
        self._address, self._authority = address, authority
        able = [each for each in group if each.id not in plan.blocked and each.node not in seen.unreachable]
        known = [each for each in able if isinstance(seen.found.get(each.id), Mapping)]
        lacking = [each for each in able if each.lacks(steps.get(each.id))]
        holders = [each for each in known if each not in lacking and _proven(seen, each)]
        believed = [each for each in known if each not in lacking and each not in holders and each.id in steps]
        heads = holders or believed or lacking[:1]
        lacking = [each for each in lacking if each not in heads]
        for number, head in enumerate(heads):
            behind = lacking[number :: len(heads)]
            if not head.streamed:
                self._hang(head, behind)
                continue
            for source, receiver in zip([head, *behind], behind, strict=False):
                self._hang(source, [receiver])

    def _hang(self, source: Passed, receivers: Sequence[Passed]) -> None:
        """These all get it from this one, by one relay."""
        where = self._address(source.node) if receivers else Address()
        for receiver in receivers:
            if not where.all:
                text = f"{source.node} has no address that other nodes could reach; {receiver.alternative}"
                self.notices.append(f"{receiver.id}: {text}")
                continue
            upstream = Upstream(
                source=source,
                addresses=where.all,
                fabric=bool(where.fabric),
                receivers=tuple(each.node for each in receivers),
                authority=self._authority,
            )
            self.behind[receiver.id] = receiver.behind(upstream)
            slow = (
                "" if where.fabric else f", its management address: `fabric.address` of {source.node} is not declared"
            )
            self.notices.append(f"{receiver.id}: from {upstream.way}{slow}")


def _proven(seen: Observations, each: Passed) -> bool:
    found = seen.found[each.id]
    return isinstance(found, Mapping) and each.proven(found)
