"""Rules about one engine over several nodes, and about several such engines on one head.

It must not know what is observed on a node.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sparkops.inventory.served import Placed
from sparkops.lint.case import Found
from sparkops.models.rank_environment import OF_HOST
from sparkops.models.serve_line import parse

MASTER_PORT = 29501
"""What the head listens on for its ranks without --master-port (vllm/config/parallel.py)."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """An engine's ranks, the head first, and the heads of the engines on the same node that may run beside it."""

    places: tuple[Placed, ...]
    others: tuple[Placed, ...] = ()


def address_of_all_ranks(ranks: Ranks) -> Iterable[Found]:
    if value := _same(ranks, "VLLM_HOST_IP"):
        path = ("service", "environment", "VLLM_HOST_IP")
        yield Found(f"VLLM_HOST_IP is {value} on {_nodes(ranks)}", "VLLM_HOST_IP", path=path)


def host_value_on_all_ranks(ranks: Ranks) -> Iterable[Found]:
    for name in OF_HOST:
        if value := _same(ranks, name):
            path = ("service", "environment", name)
            yield Found(f"{name} is {value} on {_nodes(ranks)}, whatever is found there", name, path=path)


def ring_not_declared(ranks: Ranks) -> Iterable[Found]:
    topology = (ranks.places[0].variables.get("fabric") or {}).get("topology")
    if len(ranks.places) > 2 and topology is None:
        yield Found(f"how the {len(ranks.places)} nodes are connected is not declared", path=("fabric", "topology"))


def master_port_taken_twice(ranks: Ranks) -> Iterable[Found]:
    port = _master_port(ranks.places[0])
    for other in ranks.others:
        if port is not None and port == _master_port(other):
            yield Found(
                f"{ranks.places[0].node} is the head of {other.service.name} as well, and both take port {port}",
                path=("service", "serve", "master-port"),
            )


def _master_port(head: Placed) -> int | None:
    if head.words is None or head.engine is None:
        return None
    port = parse(head.words, head.engine).get("master-port")
    return port if isinstance(port, int) else MASTER_PORT


def _same(ranks: Ranks, name: str) -> str:
    """The value that a variable has on several nodes; "" where each has its own, or none is declared."""
    values = [place.environment[name] for place in ranks.places if name in place.environment]
    return values[0] if len(values) > 1 and len(set(values)) == 1 else ""


def _nodes(ranks: Ranks) -> str:
    return ", ".join(place.node for place in ranks.places)
