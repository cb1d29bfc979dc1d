"""Where the engines of declared services answer, as others than SSH reach them. Offline: nobody is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sparkops.core.errors import SparkopsError
from sparkops.inventory.inventory import Inventory, Node
from sparkops.nodes.ssh.config import SSHConfigs
from sparkops.nodes.target import Target

EVERYWHERE = ("0.0.0.0", "::", "")
NEAR = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One engine of a service, at its head `node`. `name` is SERVICE, or SERVICE @HEAD where it has several engines.

    `near`: only processes of the node itself reach it.
    """

    name: str
    service: str
    node: str
    host: str
    port: int
    near: bool = False

    @property
    def place(self) -> str:
        """`HOST:PORT`, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The base URL of the OpenAI-compatible interface."""
        return f"http://{self.place}/v1"


def endpoints(inventory: Inventory, nodes: Sequence[str]) -> Iterator[Endpoint]:
    """Each engine with a port whose head is one of these nodes, in the inventory's order."""
    configs = SSHConfigs()
    for service in inventory.services.values():
        replicas = inventory.replicas(service.name) if service.state != "retired" else ()
        for head in (each[0] for each in replicas if each[0] in nodes):
            declared = inventory.variables(head, service.name).get("service", {})
            port, listening = declared.get("port"), declared.get("host") or ""
            if isinstance(port, int):
                node = inventory.nodes[head]
                yield Endpoint(
                    name=service.name if len(replicas) == 1 else f"{service.name} @{head}",
                    service=service.name,
                    node=head,
                    host=_address(node, configs) if listening in EVERYWHERE else listening,
                    port=port,
                    near=listening in NEAR and node.connection.type != "local",
                )


def urls(inventory: Inventory, nodes: Sequence[str]) -> Mapping[str, str]:
    """The URL of each of them by its name."""
    return {each.name: each.url for each in endpoints(inventory, nodes)}


def _address(node: Node, configs: SSHConfigs) -> str:
    """Where a node is found by others than SSH: an alias of SSH's configuration means nothing to them."""
    if node.connection.type == "local":
        return "localhost"
    try:
        return configs.route(Target(name=node.name, host=node.host)).end.host
    except SparkopsError:
        return node.host or node.name
