"""What nodes say of their fabric, and the inventory that follows from it. Reads only, and asks no other address."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from sparkops.core.errors import SparkopsError
from sparkops.core.messages import UNKNOWN
from sparkops.core.states import Unknown
from sparkops.core.wording import Message
from sparkops.models.fabric.proposal import Proposal, propose
from sparkops.nodes.connect import Connections
from sparkops.nodes.target import Target
from sparkops.operate.facts import facts
from sparkops.reconcile.fleet import THREADS

GROUPS = ("os", "network", "fabric")


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovered:
    """The nodes with the address that is asked, the proposal, and those that did not say what is needed."""

    hosts: Mapping[str, str]
    proposal: Proposal
    silent: Mapping[str, Message] = field(default_factory=dict)

    def inventory(self) -> dict[str, object]:
        """The part of an inventory that declares this."""
        fabric: dict[str, object] = {}
        if self.proposal.topology:
            fabric["topology"] = self.proposal.topology
            if self.proposal.subnet:
                fabric["subnet"] = self.proposal.subnet
            if self.proposal.topology == "ring" or set(self.proposal.members) != set(self.hosts):
                fabric["members"] = list(self.proposal.members)
        nodes: dict[str, object] = {}
        for name, host in self.hosts.items():
            own: dict[str, object] = {}
            if name in self.proposal.ports:
                own["port"] = self.proposal.ports[name]
            if name in self.proposal.addresses:
                own["address"] = self.proposal.addresses[name]
            nodes[name] = {"host": host, **({"fabric": own} if own else {})}
        return {**({"vars": {"fabric": fabric}} if fabric else {}), "nodes": nodes}


def discover(targets: Mapping[str, Target], connections: Connections, *, jobs: int = THREADS) -> Discovered:
    """Ask these nodes and no other. A machine that answers by two names is told of, not counted twice."""
    answers = facts(targets, connections, groups=GROUPS, jobs=jobs)
    silent: dict[str, Message] = {}
    fabrics: dict[str, Mapping[str, object]] = {}
    networks: set[str] = set()
    machines: dict[str, str] = {}
    for name, answer in answers.items():
        why = _why(answer)
        if why is not None:
            silent[name] = why
            continue
        assert isinstance(answer, Mapping)
        machine = str(answer["os"].get("machine") or name)
        if machine in machines:
            silent[name] = Message.of("discover-same-machine", other=machines[machine])
            continue
        machines[machine] = name
        fabrics[name] = answer["fabric"]
        for each in answer["network"]["interfaces"].values():
            networks |= {str(ipaddress.ip_interface(address).network) for address in each["addresses"]}
    hosts = {name: targets[name].address for name in fabrics}
    return Discovered(hosts=hosts, proposal=propose(fabrics, sorted(networks)), silent=silent)


def _why(answer: object) -> Message | None:
    """Why an answer says nothing; None where it has all groups."""
    if isinstance(answer, SparkopsError):
        return answer.message
    if isinstance(answer, Unknown):
        return answer
    groups = answer if isinstance(answer, Mapping) else {}
    for name in GROUPS:
        group = groups.get(name)
        if not isinstance(group, Mapping):
            return Message.of("answer-not-understood", answer=f"{answer!r:.200}")
        if UNKNOWN in group:
            return Message.from_json(group[UNKNOWN])
    return None
