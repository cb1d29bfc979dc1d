"""Reports of parts of one inventory, joined into the report of all of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TypeVar

from sparkops.core.errors import SparkopsError
from sparkops.core.plan import Plan
from sparkops.core.report import Past, Report, Shards
from sparkops.core.wording import Message

OF_A_PART = "shard-part"
"""The notice of a run that it is one part; a report of all parts says nothing."""
ABSENT = "shard "
"""How a shard stands among the nodes whose report is not there; no node's name has a space."""

Value = TypeVar("Value")


def joined(reports: Sequence[Report]) -> Report:
    """The report of all their nodes together. A shard that none of them is of stands in it as a node that is silent.

    Raises SparkopsError for reports of other clusters, commands, numbers of shards or of nodes, and for a node that two
    have.
    """
    first = reports[0]
    for each in reports:
        shards_of = [1 if one.shards is None else one.shards.of for one in (first, each)]
        pairs = {"cluster": (first.cluster, each.cluster), "command": (first.command, each.command)}
        if all(nodes_of := [_all_nodes(one) for one in (first, each)]):
            pairs["number of nodes"] = (nodes_of[0], nodes_of[1])
        for what, (one, other) in {**pairs, "number of shards": shards_of}.items():
            if one != other:
                raise SparkopsError.of("reports-not-alike", what=what, one=one, other=other)
    shards = _shards(reports)
    return Report(
        command=first.command,
        cluster=first.cluster,
        inventory=first.inventory,
        plan=_plan([each.plan for each in reports], shards),
        results=_all(each.results for each in reports),
        endpoints=_merged(each.endpoints for each in reports),
        rollouts=_all(each.rollouts for each in reports),
        seconds=max(each.seconds for each in reports),
        interrupted=any(each.interrupted for each in reports),
        declined=any(each.declined for each in reports),
        run=first.run if len({each.run for each in reports}) == 1 else "",
        time=max(each.time for each in reports),
        whole=all(each.whole for each in reports),
        shards=shards if shards and shards.missing else None,
        past=Past(
            since=_merged(each.past.since for each in reports),
            origins=_merged(each.past.origins for each in reports),
            took=_merged(each.past.took for each in reports),
        ),
    )


def _all_nodes(report: Report) -> str:
    """How many nodes the inventory had of which the report is a part; "" where it does not say."""
    return next((str(each.args.get("all_nodes", "")) for each in report.plan.notices if each.id == OF_A_PART), "")


def _shards(reports: Sequence[Report]) -> Shards | None:
    found = [each.shards for each in reports if each.shards is not None]
    _refuse_overlap([f"{ABSENT}{number}/{each.of}" for each in found for number in each.numbers])
    return Shards(tuple(sorted(chain(*(each.numbers for each in found)))), found[0].of) if found else None


def _refuse_overlap(names: Sequence[str]) -> None:
    if twice := [name for name in names if names.count(name) > 1]:
        raise SparkopsError.of("reports-overlap", what=twice[0])


def _plan(plans: Sequence[Plan], shards: Shards | None) -> Plan:
    names = [f"{ABSENT}{number}/{shards.of}" for number in shards.missing] if shards else []
    absent = dict.fromkeys(names, Message.of("shard-not-merged"))
    nodes = [node for plan in plans for node in plan.nodes if not node.startswith(ABSENT)]
    _refuse_overlap(nodes)
    silent = _merged(plan.unreachable for plan in plans)
    notices = dict.fromkeys(each for plan in plans for each in plan.notices if each.id != OF_A_PART)
    return Plan(
        steps=_all(plan.steps for plan in plans),
        violations=_all(plan.violations for plan in plans),
        unknown=_merged(plan.unknown for plan in plans),
        unreachable={**{node: why for node, why in silent.items() if node in nodes}, **absent},
        blocked=_merged(plan.blocked for plan in plans),
        notices=tuple(notices),
        nodes=(*nodes, *absent),
        total=sum(plan.total for plan in plans),
        orphans=_all(plan.orphans for plan in plans),
        declared=_all(plan.declared for plan in plans),
        between=_all(plan.between for plan in plans),
    )


def _all(parts: Iterable[Iterable[Value]]) -> tuple[Value, ...]:
    return tuple(chain.from_iterable(parts))


def _merged(parts: Iterable[Mapping[str, Value]]) -> dict[str, Value]:
    return {key: value for part in parts for key, value in part.items()}
