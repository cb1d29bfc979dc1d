"""One side of a measurement between two nodes: receive, or send for so many seconds and bytes.

RDMA by `ib_write_bw` of perftest with small buffers (NVIDIA's own test with 16 GB froze a node: dgx-spark-playbooks
#102), its GID chosen by rdma_cm; else TCP with several streams. Several links at once share the time. The receiver
tells its ports as a record; the result of both is Gb/s by link, that of the receiver counts.
"""

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Literal, TypedDict

from sparkops.core.messages import Refused
from sparkops.programs.parallel import Result, Thing, at_once
from sparkops.programs.protocol import Output

STREAMS = 4
"""TCP connections for each link: one does not fill 100 Gb/s."""
BLOCK = 1 << 20
CONNECT = 10.0
QUIET = 5.0
"""Seconds beyond the measurement that a side waits for the other one."""
MESSAGE = 65536


class Link(TypedDict, total=False):
    """One link: its name, this side's address, and for the sender the other's with its port."""

    slot: str
    address: str
    peer: str
    port: int


class Spec(TypedDict):
    """What the program is given. `bytes` bounds each link by TCP."""

    mode: Literal["receive", "send"]
    method: Literal["tcp", "rdma"]
    links: list[Link]
    seconds: float
    bytes: int


def work(spec: Spec, output: Output) -> dict[str, object]:
    """`rates` by link, and `busy`: processors that this side took on average, which bound TCP near one."""
    if spec["method"] == "rdma":
        return {"rates": _rdma(spec, output), "busy": 0.0}
    before = time.process_time()
    receives = spec["mode"] == "receive"
    rates = _receive(spec, output) if receives else _of_links(lambda link: _poured(link, spec), spec)
    return {"rates": rates, "busy": (time.process_time() - before) / spec["seconds"]}


def _receive(spec: Spec, output: Output) -> dict[str, float]:
    """Gb/s of each link, from its first byte to its last."""
    with contextlib.ExitStack() as ends:
        listeners = {}
        for link in spec["links"]:
            listener = ends.enter_context(socket.socket())
            listener.bind((link["address"], 0))
            listener.listen(STREAMS)
            listener.settimeout(CONNECT + spec["seconds"] + QUIET)
            listeners[link["slot"]] = listener
        output.record({slot: listener.getsockname()[1] for slot, listener in listeners.items()})
        return _of_links(lambda link: _drained(listeners[link["slot"]], spec), spec)


def _drained(listener: socket.socket, spec: Spec) -> float:
    try:
        accepted = [listener.accept()[0] for _ in range(STREAMS)]
    except OSError as error:
        raise Refused.of("measure-no-connection", text=str(error)) from None
    started = time.monotonic()

    def drain(stream: socket.socket) -> int:
        buffer, total = bytearray(BLOCK), 0
        with stream:
            stream.settimeout(spec["seconds"] + QUIET)
            while count := stream.recv_into(buffer):
                total += count
        return total

    return _rate(_side_by_side(drain, accepted), started)


def _poured(link: Link, spec: Spec) -> float:
    streams = []
    for _ in range(STREAMS):
        try:
            where = (link["peer"], link["port"])
            streams.append(socket.create_connection(where, CONNECT, source_address=(link["address"], 0)))
        except OSError as error:
            raise Refused.of("measure-no-connection", text=f"{link['address']} to {link['peer']}: {error}") from None
    started = time.monotonic()
    end = started + spec["seconds"]
    most = spec["bytes"] // STREAMS

    def pour(stream: socket.socket) -> int:
        block, total = bytes(BLOCK), 0
        with stream:
            stream.settimeout(QUIET)
            while time.monotonic() < end and total < most:
                total += stream.send(block)
        return total

    return _rate(_side_by_side(pour, streams), started)


def _rate(counts: Sequence[int], started: float) -> float:
    return sum(counts) * 8 / 1e9 / max(time.monotonic() - started, 1e-6)


def _of_links(work: Callable[[Link], float], spec: Spec) -> dict[str, float]:
    """What `work` returns for each link, all at once. Raises Refused."""
    return dict(zip((each["slot"] for each in spec["links"]), _side_by_side(work, spec["links"]), strict=True))


def _side_by_side(work: Callable[[Thing], Result], things: Sequence[Thing]) -> list[Result]:
    try:
        return at_once(work, things, len(things))
    except OSError as error:
        raise Refused.of("measure-broken-off", text=str(error)) from None


def _rdma(spec: Spec, output: Output) -> dict[str, float]:
    """perftest on each link; the client's figure is the average over its time."""
    ports = {link["slot"]: link.get("port") or _free_port() for link in spec["links"]}
    if spec["mode"] == "receive":
        output.record(ports)
    return _of_links(lambda link: _perftest(link, ports, spec), spec)


def _perftest(link: Link, ports: dict[str, int], spec: Spec) -> float:
    argv = ["ib_write_bw", "-R", "-F", "--report_gbits", "-s", str(MESSAGE), "-D", str(max(2, round(spec["seconds"])))]
    argv += ["-p", str(ports[link["slot"]]), "--bind_source_ip", link["address"]]
    argv += [link["peer"]] if spec["mode"] == "send" else []
    deadline = time.monotonic() + CONNECT
    while True:
        try:
            limit = CONNECT + spec["seconds"] * 2 + QUIET
            done = subprocess.run(argv, capture_output=True, text=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            raise Refused.of("measure-broken-off", text="ib_write_bw did not end") from None
        if done.returncode == 0:
            return parse_perftest(done.stdout)
        if spec["mode"] == "receive" or time.monotonic() > deadline:
            text = (done.stderr or done.stdout).strip().rpartition("\n")[2]
            raise Refused.of("measure-broken-off", text=f"ib_write_bw: {text}")
        time.sleep(0.5)  # its server takes a moment to listen


def parse_perftest(said: str) -> float:
    """Gb/s on average out of the table of `ib_write_bw --report_gbits`: bytes, iterations, peak, average, rate."""
    rows = re.findall(r"^\s*\d+\s+\d+\s+[\d.]+\s+([\d.]+)\s+[\d.]+\s*$", said, re.MULTILINE)
    if not rows:
        raise Refused.of("measure-broken-off", text="ib_write_bw printed no table")
    return float(rows[-1])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
