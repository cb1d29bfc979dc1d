"""How nodes seem to be connected, out of what they say of themselves: a proposal with its evidence. Pure.

Evidence of a cable are addresses in one subnet, and MAC addresses that a node's kernel has learnt on a link. Links that
are up say how many cables there are, not where they lead.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, TypeAlias

from sparkops.core.wording import Message

End: TypeAlias = tuple[str, str]
"""A node and one of its ports."""
SUBNETS = ("192.168.100.0/24", "192.168.176.0/24", "10.177.0.0/24", "172.29.100.0/24")
"""First subnets to propose, of which the first that no node uses is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What to declare. `members` in order; `ports` where one must be named; `addresses` that are there already.

    `subnet` is proposed where there are none. `notes` say what is not known.
    """

    topology: str | None
    members: tuple[str, ...] = ()
    ports: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)
    subnet: str = ""
    notes: tuple[Message, ...] = ()


def propose(fabrics: Mapping[str, Mapping[str, Any]], networks: Iterable[str] = ()) -> Proposal:
    """The proposal for nodes by their facts of the group `fabric`; `networks` are all that any interface is in."""
    nodes = {name: each for name, each in fabrics.items() if each.get("present")}
    cabled = {name: tuple(each.get("cabled", ())) for name, each in nodes.items()}
    members = tuple(name for name in nodes if cabled[name])
    notes = [Message.of("discover-not-connected", node=name) for name in fabrics if name not in members]
    if len(members) < 2:
        return Proposal(topology=None, members=members, notes=tuple(notes))
    seen = cables(nodes)
    if len(members) > 2 and all(len(cabled[name]) == 2 for name in members) and not _meet(seen):
        order = _cycle(seen, members)
        notes += [] if order else [Message.of("discover-order-unknown", nodes=list(members))]
        return _with_addresses("ring", order or members, {}, nodes, networks, notes)
    ports, unsure = _ports(members, cabled, seen)
    notes += [Message.of("discover-port-unknown", node=name, ports=list(cabled[name])) for name in unsure]
    topology = "switch" if len(members) > 2 or _meet(seen) else "pair"
    if not {name for pair in seen for name, _ in pair} >= set(members):
        notes.append(Message.of("discover-cable-unproven", nodes=list(members)))
    return _with_addresses(topology, members, ports, nodes, networks, notes)


def cables(nodes: Mapping[str, Mapping[str, Any]]) -> frozenset[frozenset[End]]:
    """The pairs of ends that see each other."""
    owners: dict[str, End] = {}
    within: list[tuple[End, ipaddress.IPv4Network]] = []
    for name, each in nodes.items():
        for rail in each["rails"].values():
            end = (name, str(rail["port"]))
            owners[str(rail.get("mac")).lower()] = end
            plain = (ipaddress.ip_interface(address).network for address in rail["addresses"])
            within += [(end, network) for network in plain if isinstance(network, ipaddress.IPv4Network)]
    found = {frozenset((one, other)) for (one, a), (other, b) in combinations(within, 2) if a == b}
    for name, each in nodes.items():
        for rail in each["rails"].values():
            ends = (owners.get(str(mac).lower()) for mac in rail.get("neighbours") or ())
            found |= {frozenset(((name, str(rail["port"])), end)) for end in ends if end}
    return frozenset(pair for pair in found if len({name for name, _ in pair}) == 2)


def _meet(seen: Iterable[frozenset[End]]) -> bool:
    """Whether one end sees several others, as at a switch."""
    ends = [end for pair in seen for end in pair]
    return any(ends.count(end) > 1 for end in ends)


def _cycle(seen: Iterable[frozenset[End]], members: Sequence[str]) -> tuple[str, ...]:
    """The order in which port 0 of each leads to port 1 of the next, through all members; empty if not seen."""
    following = {}
    for pair in seen:
        for (one, port), (other, to) in (sorted(pair), sorted(pair, reverse=True)):
            if (port, to) == ("p0", "p1"):
                following[one] = other
    order = [members[0]]
    while (after := following.get(order[-1])) is not None and after not in order:
        order.append(after)
    whole = len(order) == len(members) and following.get(order[-1]) == members[0]
    return tuple(order) if whole else ()


def _ports(
    members: Sequence[str], cabled: Mapping[str, Sequence[str]], seen: Iterable[frozenset[End]]
) -> tuple[dict[str, str], list[str]]:
    """The port of each node that has two cables, by what is seen on them; the nodes where that says nothing."""
    ports, unsure = {}, []
    for name in members:
        if len(cabled[name]) > 1:
            used = {port for pair in seen for node, port in pair if node == name}
            if len(used) == 1:
                ports[name] = used.pop()
            else:
                unsure.append(name)
    return ports, unsure


def _with_addresses(
    topology: str,
    members: Sequence[str],
    ports: Mapping[str, str],
    nodes: Mapping[str, Mapping[str, Any]],
    networks: Iterable[str],
    notes: list[Message],
) -> Proposal:
    """The addresses that all members have in one subnet already, where that serves; else a subnet that nobody uses."""
    by_network: dict[str, dict[str, str]] = {}
    for name in members:
        for rail in nodes[name]["rails"].values():
            for each in rail["addresses"]:
                found = ipaddress.ip_interface(each)
                by_network.setdefault(str(found.network), {}).setdefault(name, str(found.ip))
    shared = [each for network, each in sorted(by_network.items()) if set(each) == set(members) and "." in network]
    there = shared[0] if shared and topology != "ring" else {}
    used = [ipaddress.ip_network(each) for each in networks]
    free = (first for first in SUBNETS if not any(each.overlaps(_block(first)) for each in used if each.version == 4))
    subnet = "" if there else next(free, "")
    return Proposal(
        topology=topology, members=tuple(members), ports=ports, addresses=there, subnet=subnet, notes=tuple(notes)
    )


def _block(first: str) -> ipaddress.IPv4Network:
    """The subnets that a fabric may take from `first` on."""
    return ipaddress.IPv4Network(first).supernet(new_prefix=20)
