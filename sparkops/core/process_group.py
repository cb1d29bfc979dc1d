"""Ending a program with all that it started, on the controller and on nodes."""

import contextlib
import os
import signal
import subprocess

KILLED = 5.0
"""Seconds in which a killed process is gone."""


def end(leader: "subprocess.Popen[bytes]", patience: float) -> None:
    """SIGTERM for the group of a program that was started in a session of its own, SIGKILL after `patience` seconds.

    The whole group gets both: a leader that ends at once may leave children that do not. One that even SIGKILL does
    not end, since it waits for a disk, is left to the kernel.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        leader.wait(patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        leader.wait(KILLED)
