"""Which address each end of each cable has: topology and members in, links out. Pure; it must not know interfaces.

Each cable is two links, one for each twin of its port, in subnets of their own: in one subnet the kernel answers for
both on either, and half the bandwidth is lost (NVIDIA's playbook connect-multiple-sparks).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sparkops.core.errors import InventoryError

Topology: TypeAlias = Literal["pair", "ring", "switch"]
TWINS = (0, 1)
SIZES: Mapping[str, tuple[int, int]] = {"pair": (2, 2), "ring": (3, 64), "switch": (2, 200)}
"""The least and the greatest number of nodes."""
CABLE = "cable"
"""The port of a node that has one cable, whichever port that is in."""
FIRST_HOST = 10
"""The last part of the first node's address at a pair or switch, as in NVIDIA's pages."""


@dataclass(frozen=True, slots=True)
class Link:
    """One end of a link: port (`p0`, `p1`, or CABLE), twin (0 or 1), address with prefix.

    `peers` are the nodes at its other end, with their addresses there.
    """

    port: str
    twin: int
    address: str
    peers: tuple[tuple[str, str], ...]

    @property
    def slot(self) -> str:
        """Its name on the node: `p0/1` is the second function of port 0."""
        return f"{self.port}/{self.twin}"


@dataclass(frozen=True, slots=True)
class Line:
    """One link between two nodes: the twin's number, and the address at either end."""

    twin: int
    address: str
    peer: str


@dataclass(frozen=True, slots=True)
class Cable:
    """The lines of one cable, or of two nodes at a switch; traffic goes from `sender` to `receiver`."""

    sender: str
    receiver: str
    lines: tuple[Line, ...]

    @property
    def turned(self) -> Cable:
        """The same with traffic in the other direction."""
        lines = tuple(Line(each.twin, each.peer, each.address) for each in self.lines)
        return Cable(self.receiver, self.sender, lines)


def links(
    topology: Topology, members: Sequence[str], node: str, first: str, ports: Mapping[str, str | None] | None = None
) -> tuple[Link, ...]:
    """The links of `node`; `first` is the first of the consecutive subnets, `ports` the declared port of each member.

    In a ring port 0 of each member is connected to port 1 of the next, as NCCL pairs devices by their index.
    Raises InventoryError for a number of members that the topology cannot have, and for subnets that cannot hold them.
    """
    least, most = SIZES[topology]
    if not least <= len(members) <= most:
        raise InventoryError.of(
            "fabric-topology-size", topology=topology, least=least, most=most, count=len(members), members=list(members)
        )
    at = members.index(node)
    if topology != "ring":
        port = (ports or {}).get(node) or CABLE
        return tuple(_shared(port, twin, first, members, at) for twin in TWINS)
    before = (at - 1) % len(members)
    mine = [_point(first, "p0", at, twin, 1, members[(at + 1) % len(members)]) for twin in TWINS]
    return (*mine, *(_point(first, "p1", before, twin, 2, members[before]) for twin in TWINS))


def _shared(port: str, twin: int, first: str, members: Sequence[str], at: int) -> Link:
    network = _subnet(first, twin)
    addresses = [str(network[FIRST_HOST + number]) for number in range(len(members))]
    peers = tuple((name, addresses[number]) for number, name in enumerate(members) if number != at)
    return Link(port, twin, f"{addresses[at]}/{network.prefixlen}", peers)


def _point(first: str, port: str, cable: int, twin: int, host: int, peer: str) -> Link:
    network = _subnet(first, 2 * cable + twin)
    return Link(port, twin, f"{network[host]}/{network.prefixlen}", ((peer, str(network[3 - host])),))


def _subnet(first: str, number: int) -> ipaddress.IPv4Network:
    """The subnet behind `first` by so many of its size. Raises InventoryError."""
    try:
        network = ipaddress.IPv4Network(first)
        found = ipaddress.IPv4Network(
            (int(network.network_address) + number * network.num_addresses, network.prefixlen)
        )
    except ValueError:
        raise InventoryError.of("fabric-subnet-invalid", subnet=first) from None
    if network.prefixlen > 24 or not found.is_private:
        raise InventoryError.of("fabric-subnet-invalid", subnet=first)
    return found


def links_of(name: str, nodes: Mapping[str, Mapping[str, Any]]) -> tuple[Link, ...]:
    """The links of a node out of the variables of all (`fabric` and `state` of each); none without a `subnet`.

    Members are the nodes that declare the same topology and subnet, in their order, or those that `members` lists.
    """
    own = nodes[name].get("fabric") or {}
    topology, first = own.get("topology"), own.get("subnet")
    if not topology or not first:
        return ()
    alike = [
        other
        for other, variables in nodes.items()
        if variables.get("state") != "retired"
        and [(variables.get("fabric") or {}).get(key) for key in ("topology", "subnet")] == [topology, first]
    ]
    members = list(own.get("members") or alike)
    if name not in members:
        raise InventoryError.of("fabric-node-not-member", node=name, members=members)
    ports = {other: (nodes.get(other, {}).get("fabric") or {}).get("port") for other in members}
    return links(topology, members, name, first, ports)


def address_of(name: str, nodes: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The address by which the other nodes reach this one over the fabric: declared, else its first one.

    None in a ring, where no address of a node is in reach of all others.
    """
    own = nodes[name].get("fabric") or {}
    if own.get("address") or own.get("topology") == "ring":
        return str(own["address"]) if own.get("address") else None
    found = links_of(name, nodes)
    return found[0].address.partition("/")[0] if found else None


def cables(nodes: Mapping[str, Mapping[str, Any]], chosen: Sequence[str]) -> tuple[Cable, ...]:
    """What there is to measure between the chosen nodes: at a switch each with the next of them, else every cable.

    One line between each and the next where only addresses are declared; nothing where not even these are.
    """
    found: dict[tuple[str, str], list[Line]] = {}
    for node in chosen:
        declared = nodes[node].get("fabric") or {}
        for link in links_of(node, nodes):
            near = {node, *(name for name, _ in link.peers)}
            following = _next(node, [each for each in chosen if each in near])
            for peer, address in link.peers:
                wanted = declared.get("topology") != "switch" or following == peer
                if wanted and peer in chosen and (peer, node) not in found:
                    own = link.address.partition("/")[0]
                    found.setdefault((node, peer), []).append(Line(link.twin, own, address))
    found = found or _by_address(nodes, chosen)
    return tuple(Cable(one, other, tuple(lines)) for (one, other), lines in found.items())


def _next(node: str, nodes: Sequence[str]) -> str:
    return nodes[(list(nodes).index(node) + 1) % len(nodes)]


def _by_address(nodes: Mapping[str, Mapping[str, Any]], chosen: Sequence[str]) -> dict[tuple[str, str], list[Line]]:
    found: dict[tuple[str, str], list[Line]] = {}
    addresses = {node: own.partition("/")[0] for node in chosen if (own := address_of(node, nodes))}
    for node, own in addresses.items():
        peer = _next(node, [*addresses])
        if node != peer and (peer, node) not in found:
            found[node, peer] = [Line(0, own, addresses[peer])]
    return found


def measured_cables(nodes: Mapping[str, Mapping[str, Any]]) -> tuple[Cable, ...]:
    """The cables between the nodes that declare `fabric.measure`, each from the end that measures it in an apply.

    That is the later one: where nodes are changed one after the other, both ends are there only then.
    """
    measured = [each for each in nodes if (nodes[each].get("fabric") or {}).get("measure")]
    return tuple(
        each if measured.index(each.receiver) < measured.index(each.sender) else each.turned
        for each in cables(nodes, measured)
    )
