"""The folders of the XDG base directory specification on this machine; a relative one is ignored, as it demands."""

from __future__ import annotations

import os
from pathlib import Path


def state() -> Path:
    """Where what must survive is kept: `$XDG_STATE_HOME/sparkops`, else `~/.local/state/sparkops`."""
    return _base("XDG_STATE_HOME", ".local/state")


def cache() -> Path:
    """Where what can be had again is kept: `$XDG_CACHE_HOME/sparkops`, else `~/.cache/sparkops`."""
    return _base("XDG_CACHE_HOME", ".cache")


def _base(variable: str, default: str) -> Path:
    value = Path(os.environ.get(variable) or "~")
    return (value if value.is_absolute() else Path.home() / default) / "sparkops"
