"""Rules about what the services of one node do to each other. It must not know what an engine makes of a line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sparkops.inventory.served import Placed
from sparkops.lint.case import Found
from sparkops.models.effective import effective
from sparkops.models.parallel import grouped
from sparkops.models.serve_line import parse

MOST_MEMORY = 0.90


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A service on a node, and those of the services declared before it that may run beside it."""

    place: Placed
    others: tuple[Placed, ...]


def port_taken_twice(here: Neighbours) -> Iterable[Found]:
    place = here.place
    port = place.variables["service"]["port"]
    for other in here.others:
        if not place.rank and not other.rank and other.variables["service"]["port"] == port:
            yield Found(f"port {port} on {place.node} is {other.service.name}'s as well", path=("service", "port"))


def group_port_taken_twice(here: Neighbours) -> Iterable[Found]:
    place = here.place
    port = place.variables["service"]["port"]
    for other in here.others:
        one_is_no_head = place.rank or other.rank  # of two heads the port for requests is taken twice, too
        if _grouped(place) and _grouped(other) and one_is_no_head and other.variables["service"]["port"] == port:
            yield Found(
                f"ranks of {place.service.name} and {other.service.name} on {place.node} both take UDP port {port}",
                path=("service", "port"),
            )


def _grouped(place: Placed) -> bool:
    return grouped(place.replica, place.variables["service"]["serve"])


def memory_of_services(here: Neighbours) -> Iterable[Found]:
    shares = {each.service.name: _share(each) for each in (*here.others, here.place)}
    total = sum(shares.values())
    if here.others and shares[here.place.service.name] and total > MOST_MEMORY:
        parts = " + ".join(f"{name} {share:g}" for name, share in shares.items() if share)
        yield Found(
            f"the services on {here.place.node} take {total:.2f} of its memory ({parts}), more than {MOST_MEMORY:g}",
            path=("service", "serve", "gpu-memory-utilization"),
        )


def _share(place: Placed) -> float:
    """The fraction of a node's memory that a service takes; 0 where it has no GPU, or its engine is not known."""
    if place.words is None or place.engine is None or place.variables["service"]["gpus"] is None:
        return 0.0
    return effective(parse(place.words, place.engine), None, place.engine).gpu_memory_utilization
