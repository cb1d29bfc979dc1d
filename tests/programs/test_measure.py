"""The program that measures: two sides on loopback, and the table that perftest prints."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import Any

import pytest

from sparkops.core.messages import Refused
from sparkops.programs import runner
from sparkops.programs.measure import main
from sparkops.programs.progress import Listener
from tests.errors import fails


class Listening(Listener):
    """Hands the ports of the receiving side on."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: SimpleQueue[Any] = SimpleQueue()

    def record(self, value: Any) -> None:
        self.ports.put(value)


COMMON: dict[str, Any] = {"method": "tcp", "seconds": 0.5, "bytes": 64 << 20}


def test_two_links_at_once_are_measured_on_both_sides_and_bounded_in_bytes() -> None:
    listening, received = Listening(), {}
    links = [{"slot": "0", "address": "127.0.0.1"}, {"slot": "1", "address": "127.0.0.2"}]

    def receive() -> None:
        spec = {**COMMON, "mode": "receive", "links": links}
        received.update(runner.run(main.__name__, spec, listening))

    side = threading.Thread(target=receive)
    side.start()
    ports = listening.ports.get(timeout=20)
    to = [{**each, "peer": each["address"], "port": ports[each["slot"]]} for each in links]
    sent = runner.run(main.__name__, {**COMMON, "mode": "send", "links": to}, Listening())
    side.join(30)

    assert set(sent["rates"]) == set(received["rates"]) == {"0", "1"}
    assert all(rate > 0.01 for rate in (*sent["rates"].values(), *received["rates"].values()))
    assert sent["busy"] > 0 and received["busy"] > 0


def test_a_peer_that_does_not_listen_is_said() -> None:
    link = {"slot": "0", "address": "127.0.0.1", "peer": "127.0.0.1", "port": 1}
    with fails("measure-no-connection", Refused):
        runner.run(main.__name__, {**COMMON, "mode": "send", "links": [link]}, Listening())


PERFTEST = """\
---------------------------------------------------------------------------------------
                    RDMA_Write BW Test
 Dual-port       : OFF          Device         : rocep1s0f0
 Connection type : RC           Using SRQ      : OFF
 Mtu             : 4096[B]
 Link type       : Ethernet
 rdma_cm QPs     : ON
---------------------------------------------------------------------------------------
 local address: LID 0000 QPN 0x0127 PSN 0x4a3f2c
 GID: 00:00:00:00:00:00:00:00:00:00:255:255:192:168:100:10
---------------------------------------------------------------------------------------
 #bytes     #iterations    BW peak[Gb/sec]    BW average[Gb/sec]   MsgRate[Mpps]
 65536      557345           0.00               97.40              0.185776
---------------------------------------------------------------------------------------
"""


def test_the_average_of_perftest_is_read() -> None:
    assert main.parse_perftest(PERFTEST) == 97.4
    with fails("measure-broken-off", Refused):
        main.parse_perftest("Couldn't allocate MR\n")


def test_perftest_is_run_with_small_buffers_and_no_gid(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    class Done:
        returncode, stdout, stderr = 0, PERFTEST, ""

    def run(argv: list[str], **_: Any) -> Done:
        seen.append(argv)
        return Done()

    monkeypatch.setattr(main.subprocess, "run", run)
    link: main.Link = {"slot": "0", "address": "192.168.100.10", "peer": "192.168.100.11", "port": 4000}
    spec: main.Spec = {"mode": "send", "method": "rdma", "links": [link], "seconds": 3.0, "bytes": 0}

    assert main._rdma(spec, None) == {"0": 97.4}  # type: ignore[arg-type]  # a sender writes nothing

    (argv,) = seen
    assert argv[-1] == "192.168.100.11" and argv[argv.index("-s") + 1] == "65536"
    assert "-x" not in argv and "-R" in argv
