"""Who gets a checkpoint from whom: one node fetches from outside, the others get it from nodes of the run. Pure.

Nodes that are proven to hold it are sources. Those that lack it form chains behind them, or behind the first of their
own: each gets file by file what the one before it has proven.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from sparkops.checkpoints.authority import Authority
from sparkops.core.plan import Plan, Step
from sparkops.reconcile.plan import Observations
from sparkops.reconcile.targets import Address
from sparkops.resources.checkpoint import Checkpoint
from sparkops.resources.resource import Resource
from sparkops.resources.upstream import Upstream

_LACKS = frozenset({"manifest", "missing", "wrong"})
"""The keys that tell of content which is not there; what is only `unverified` is believed to be, and hashed."""


def arrange(
    plan: Plan, resources: Sequence[Resource], seen: Observations, address: Callable[[str], Address]
) -> tuple[tuple[Resource, ...], tuple[str, ...]]:
    """The resources with their upstreams, and what is to be said of it. `address` is asked for sources only."""
    steps = {step.id: step for step in plan.steps}
    behind: dict[str, Checkpoint] = {}
    notices: list[str] = []
    authority = Authority()
    for group in _groups(plan, resources, steps):
        chain = _Chains(group, steps, plan, seen, address, authority)
        behind |= chain.behind
        notices += chain.notices
    return tuple(behind.get(each.id, each) for each in resources), tuple(notices)


def _groups(plan: Plan, resources: Iterable[Resource], steps: Mapping[str, Step]) -> Iterable[Sequence[Checkpoint]]:
    """The checkpoints of one content each, those with a step in the plan's order before the others."""
    order = {step.id: number for number, step in enumerate(plan.steps)}
    found: dict[str, list[Checkpoint]] = {}
    for each in sorted(resources, key=lambda one: order.get(one.id, len(order))):
        if isinstance(each, Checkpoint) and each.spread and each.manifest is not None and not each.pruned:
            found.setdefault(each.manifest.digest, []).append(each)
    return [group for group in found.values() if len(group) > 1 and any(_lacks(steps.get(e.id)) for e in group)]


def _lacks(step: Step | None) -> bool:
    return step is not None and step.after is not None and (step.before is None or bool(_LACKS & set(step.changes)))


class _Chains:
    """The chains of one content: `behind` holds the receivers with their upstreams."""

    def __init__(
        self,
        group: Sequence[Checkpoint],
        steps: Mapping[str, Step],
        plan: Plan,
        seen: Observations,
        address: Callable[[str], Address],
        authority: Authority,
    ) -> None:
        self.behind: dict[str, Checkpoint] = {}
        self.notices: list[str] = []
        self._address, self._authority = address, authority
        able = [each for each in group if each.id not in plan.blocked and each.node not in seen.unreachable]
        known = [each for each in able if isinstance(seen.found.get(each.id), Mapping)]
        lacking = [each for each in able if _lacks(steps.get(each.id))]
        holders = [each for each in known if not _lacks(steps.get(each.id)) and not _unproven(seen, each)]
        believed = [each for each in known if each not in lacking and each not in holders and each.id in steps]
        heads = holders or believed or lacking[:1]
        lacking = [each for each in lacking if each not in heads]
        for number, head in enumerate(heads):
            chain = [head, *lacking[number :: len(heads)]]
            for source, receiver in itertools.pairwise(chain):
                self._hang(source, receiver)

    def _hang(self, source: Checkpoint, receiver: Checkpoint) -> None:
        where = self._address(source.node)
        if not where.all:
            text = f"{source.node} has no address that other nodes could reach; it is fetched from outside"
            self.notices.append(f"{receiver.id}: {text}")
            return
        upstream = Upstream(
            source=source,
            addresses=where.all,
            fabric=bool(where.fabric),
            receivers=(receiver.node,),
            authority=self._authority,
        )
        self.behind[receiver.id] = receiver.behind(upstream)
        slow = "" if where.fabric else f", its management address: `fabric.address` of {source.node} is not declared"
        self.notices.append(f"{receiver.id}: from {upstream.way}{slow}")


def _unproven(seen: Observations, each: Checkpoint) -> bool:
    found = seen.found[each.id]
    return not isinstance(found, Mapping) or any(found.get(key) for key in ("missing", "wrong", "unverified"))
