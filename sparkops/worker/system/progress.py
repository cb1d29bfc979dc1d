"""What long pieces of work share: telling how far they are, room on the disk, having it on the disk."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from sparkops.worker.calls import Refused

RATE_OVER = 10.0
"""Seconds over which the shown rate is an average."""
SHOWN_FROM = 1 << 20
"""Bytes of a phase from which its rate tells something."""
MARGIN = 4 << 20
"""Bytes that must stay free beside the needed ones and a fiftieth of them."""

Say = Callable[[dict[str, Any]], None]


class Tracker:
    """How far one phase is, told at most five times a second: text, bytes done and in total, rate."""

    def __init__(self, say: Say, check: Callable[[], None], word: str, total: int) -> None:
        self._say, self._word, self._total = say, word, total
        self.check = check
        self._done = 0
        self._lock = threading.Lock()
        self._past: list[tuple[float, int]] = [(time.monotonic(), 0)]

    def add(self, amount: int, lost: int = 0) -> None:
        """So many bytes more, and so many that turned out worthless."""
        with self._lock:
            self._done += amount - lost
            now = time.monotonic()
            if now - self._past[-1][0] < 0.2 and self._done < self._total:
                return
            self._past = [each for each in self._past if now - each[0] <= RATE_OVER] or self._past[-1:]
            since, before = self._past[0]
            rate = max(0, self._done - before) / max(now - since, 0.2)
            self._past.append((now, self._done))
            text = f"{self._word}, {rate / 1e6:.1f} MB/s" if self._total >= SHOWN_FROM else self._word
            self._say({"progress": {"text": text, "done": self._done, "total": self._total}})

    def read(self, amount: int) -> None:
        """`add` for one who may be told to stop meanwhile."""
        self.check()
        self.add(amount)


def enough_space(need: int, folder: str) -> None:
    """Raises Refused where the working directory's disk, which is that of `folder`, has no room for `need` bytes."""
    have, need = free_space("."), with_margin(need)
    if need > have:
        raise Refused(
            f"not enough space for {folder}: {size_text(need)} are needed, {size_text(have)} are free there",
            hint="free some space (sparkops gc shows what nothing needs), or declare a folder on a larger disk",
        )


def with_margin(need: int) -> int:
    """What has to be free for `need` bytes."""
    return need + MARGIN + need // 50


def free_space(folder: str) -> int:
    """The bytes that a user can still write to the disk of a folder, or of the nearest one above it that is there."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder) or "."
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize


def size_text(amount: int) -> str:
    """Bytes for a person."""
    return f"{amount / (1 << 30):.1f} GiB" if amount >= 1 << 30 else f"{amount / (1 << 20):.1f} MiB"


def sync(folder: str) -> None:
    """Have a folder's names on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
