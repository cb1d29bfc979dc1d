"""RDMA devices as /sys shows them: their GID tables, and the counters that move where packets are lost.

The facts and the launcher read them here. Standard library only; it must not know services.
"""

import ipaddress
import os

from sparkops.programs.launch.listening import content_of

AT_START = "rdma-at-start.json"
INFINIBAND = "/sys/class/infiniband"
GIDS = 256
ERRORS = (
    "duplicate_request",
    "implied_nak_seq_err",
    "local_ack_timeout_err",
    "out_of_buffer",
    "out_of_sequence",
    "packet_seq_err",
    "req_transport_retries_exceeded",
    "rnr_nak_retry_err",
    "roce_adp_retrans",
    "roce_adp_retrans_to",
    "rx_icrc_encapsulated",
)
"""The `hw_counters` of mlx5 that move where packets are lost or refused (mlx5 counters; MiaAI-Lab pull request 115)."""


def rdma_devices(root: str = "/") -> dict[str, dict[str, object]]:
    """By name the `gids` and `counters` of each device's first port; empty where the node has none."""
    folder = os.path.join(root, INFINIBAND.lstrip("/"))
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return {name: port_of(os.path.join(folder, name, "ports/1")) for name in names}


def port_of(folder: str) -> dict[str, object]:
    """`gids`: the table without its empty entries: index, type (`RoCE v2`), the IPv4 address of a mapped one.
    `counters`: those of ERRORS, None for one that the driver lacks."""
    read = {name: content_of(f"{folder}/hw_counters/{name}").strip() for name in ERRORS}
    counters = {name: int(said) if said.isdecimal() else None for name, said in read.items()}
    gids = []
    for index in range(GIDS):
        gid = content_of(f"{folder}/gids/{index}").strip()
        if not gid:
            break
        if gid.replace(":", "").strip("0"):
            mapped = ipaddress.IPv6Address(gid).ipv4_mapped
            kind = content_of(f"{folder}/gid_attrs/types/{index}").strip() or None
            gids.append({"index": index, "gid": gid, "type": kind, "address": str(mapped) if mapped else None})
    return {"gids": gids, "counters": counters}
