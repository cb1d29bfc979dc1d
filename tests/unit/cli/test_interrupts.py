"""Signals at the moment that hurts: while the main thread writes to standard error."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from sparkops.cli.interrupts import interrupts

WRITES = """
import sys, threading
from sparkops.cli.interrupts import interrupts
from sparkops.cli.process import prepare
prepare()
stop = threading.Event()
threading.Thread(target=lambda: (stop.wait(), print("stopping", flush=True)), daemon=True).start()
with interrupts(stop):
    print("ready", flush=True)
    while True:
        sys.stderr.write("progress " * 100 + "\\n")
"""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_stops_and_the_second_leaves_also_where_nobody_reads_what_is_written(first: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(first)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_what_nohup_or_a_command_made_of_a_hangup_stays() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts(threading.Event()):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
