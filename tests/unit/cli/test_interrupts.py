"""Ctrl-C at the moment that hurts: while the main thread writes to standard error."""

from __future__ import annotations

import signal
import subprocess
import sys

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


def test_a_second_interrupt_leaves_also_where_nobody_reads_what_is_written() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
