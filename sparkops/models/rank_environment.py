"""The environment by which the ranks of an engine find each other: made on each host of what is observed there.

Never a GID index: NCCL since 2.21 chooses it for each device where it is not set, and it moves (NVIDIA/nccl 1333).
Never one value for all hosts: names of interfaces and devices differ. It must not know how a node is asked.
"""

from __future__ import annotations

from collections.abc import Mapping

from sparkops.core.fact_text import FactOf
from sparkops.models.service_variables import ServiceVariables

SOCKETS = (
    "NCCL_SOCKET_IFNAME",
    "GLOO_SOCKET_IFNAME",
    "TP_SOCKET_IFNAME",
    "MN_IF_NAME",
    "OMPI_MCA_btl_tcp_if_include",
)
"""What names the interface of bootstrap and of Gloo (sparkrun 0.4.2)."""
OF_HOST = (*SOCKETS, "NCCL_IB_HCA", "UCX_NET_DEVICES")
"""All that is another on each host."""
RING = {"NCCL_NET_PLUGIN": "none", "NCCL_IB_SUBNET_AWARE_ROUTING": "1", "NCCL_IB_MERGE_NICS": "0"}
"""NVIDIA's and sparkrun's settings where each link of a ring is a network of its own."""
CLOSED_RING = {"NCCL_ALGO": "Ring"}
"""Four and more in a ring: nodes that are no neighbours cannot reach each other (eugr NETWORKING.md)."""


def rank_environment(service: ServiceVariables, fabric: Mapping[str, object], node: str) -> dict[str, str]:
    """The variables of a rank on `node`, with marks for what its facts give; `fabric` are the node's variables.

    Without RDMA devices in the container there are none for RDMA: NCCL takes TCP there.
    """
    network = _bootstrap(fabric, node)
    found = {name: str(network) for name in SOCKETS}
    devices = service["container"]["devices"]
    if any(device == "/dev/infiniband" or device.startswith("/dev/infiniband/") for device in devices):
        port = fabric.get("port")
        path = ("fabric", "active_on", str(port)) if port else ("fabric", "active")
        found["NCCL_IB_HCA"] = str(FactOf(node, path))
        found["UCX_NET_DEVICES"] = str(FactOf(node, path, ":1"))
        found |= {"NCCL_CROSS_NIC": "1", "NCCL_IGNORE_CPU_AFFINITY": "1"}
    if fabric.get("topology") == "ring":
        found |= RING | (CLOSED_RING if len(service["nodes"]) > 3 else {})
    return found


def rank_address(declared: str | None, fabric: Mapping[str, object], node: str) -> str:
    """Where the ranks find this node: its address on the fabric, if all of them can reach that, else on management.

    In a ring a node has another address on each link, and no other node reaches them all.
    """
    if declared and fabric.get("topology") != "ring":
        return declared.partition("/")[0]
    return str(FactOf(node, ("network", "management", "address")))


def _bootstrap(fabric: Mapping[str, object], node: str) -> FactOf:
    address = fabric.get("address")
    if fabric.get("bootstrap") == "fabric" and address:
        return FactOf(node, ("network", "owners", str(address).partition("/")[0]))
    return FactOf(node, ("network", "management", "interface"))
