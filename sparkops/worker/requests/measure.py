"""One side of a measurement of links: the program `measure`, and pings that must not be fragmented."""

import os
import pwd
import shutil
from collections.abc import Mapping

from sparkops.core.messages import Fields
from sparkops.core.request_messages import LinkCounters, LinksTold, PathRequest
from sparkops.programs import runner
from sparkops.programs.measure import main as program
from sparkops.programs.progress import Listener
from sparkops.worker.calls import Call
from sparkops.worker.facts import fabric, network
from sparkops.worker.facts.network import number
from sparkops.worker.kinds.fabric import units_on_rails
from sparkops.worker.system import processes

HEADERS = 28
"""Bytes of the IPv4 and ICMP headers, which an MTU counts."""


def look(call: Call, args: Mapping[str, list[str]]) -> LinksTold:
    """What a measurement of the links of these `addresses` goes by."""
    told = network.network("/")
    card = fabric.fabric("/", told["interfaces"])
    found = {}
    for address in args["addresses"]:
        name = told["owners"].get(address)
        if name is not None:
            each = told["interfaces"][name]
            kept = {key: each[key] for key in ("mtu", "speed_mbps", "carrier", "mac")}
            rdma = card["rails"].get(name, {}).get("rdma")
            found[address] = {"interface": name, **kept, "rdma": rdma}
    perftest = shutil.which("ib_write_bw") is not None
    return {"addresses": found, "perftest": perftest, "units": list(units_on_rails("/"))}


def counters(call: Call, args: Mapping[str, list[str]]) -> dict[str, LinkCounters]:
    """What is counted behind each of the `addresses`, as far as its drivers count it."""
    told = network.network("/")
    rails = fabric.fabric("/", told["interfaces"])["rails"]
    names = {each: told["owners"].get(each) for each in args["addresses"]}
    return {each: counted(name, rails.get(name, {})) for each, name in names.items()}


def counted(interface: str | None, rail: Fields, root: str = "/") -> LinkCounters:
    """The counters of an interface and of the RDMA device behind it. RDMA counts in units of four bytes."""
    ethernet = f"/sys/class/net/{interface}/statistics"
    rdma = f"/sys/class/infiniband/{rail.get('rdma')}/ports/1/counters"

    def both(name: str, data: str) -> list[int]:
        return [number(root, f"{ethernet}/{name}") or 0, 4 * (number(root, f"{rdma}/{data}") or 0)]

    return {
        "errors": {name: value for name, value in (rail.get("counters") or {}).items() if value is not None},
        "sent": both("tx_bytes", "port_xmit_data"),
        "received": both("rx_bytes", "port_rcv_data"),
    }


def path(call: Call, args: PathRequest) -> dict[str, bool]:
    """Whether `peer` answers whole packets of `mtu` bytes from `address`: `{whole, small}`."""

    def answers(size: int) -> bool:
        argv = ["ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", "-M", "do", "-s", str(size), "-I", args["address"]]
        status, _, _ = processes.ask([*argv, args["peer"]], timeout=15)
        return status == 0

    whole = answers(int(args["mtu"]) - HEADERS)
    return {"whole": whole, "small": whole or answers(56)}


class _Listener(Listener):
    """The program's ports go on as progress; it has nothing else to say."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call

    def record(self, value: object) -> None:
        self._call.progress("listening", ports=value)

    def stopped(self) -> bool:
        return self._call.stopping.is_set() or self._call.session_over.is_set()


def measure(call: Call, args: program.Spec) -> dict[str, object]:
    """`rates` in Gb/s by link, and `busy`, processors. `args` is the program's spec; by TCP it has no rights."""
    plain = args["method"] == "tcp" and os.getuid() == 0
    user = pwd.getpwnam("nobody") if plain else None
    return dict(runner.run(program.__name__, args, _Listener(call), user=user, grace=1.0))


CALLS = {"look": look, "counters": counters, "path": path, "run": measure}
