"""Progress and room on the disk in the older form, for work that `privileges.run` forks."""

from collections.abc import Callable
from typing import Any

from sparkops.programs import progress
from sparkops.programs.atomic import sync as sync
from sparkops.programs.disk import free as free_space
from sparkops.programs.disk import require as enough_space
from sparkops.programs.disk import with_margin as with_margin
from sparkops.worker.system.privileges import Said, Say

__all__ = ["Say", "Tracker", "enough_space", "free_space", "size_text", "sync", "with_margin"]


class Tracker(progress.Tracker):
    """One phase of a forked work."""

    def __init__(self, say: Say, check: Callable[[], None], word: str, total: int) -> None:
        super().__init__(Said(say, check), word, total)
        self.check: Any = check


def size_text(amount: int) -> str:
    """Bytes for a person."""
    return f"{amount / (1 << 30):.1f} GiB" if amount >= 1 << 30 else f"{amount / (1 << 20):.1f} MiB"
