"""Where files are on this machine: the bundled data (knowledge, recipes, roles, templates, inventories), state, cache.

One function for the wheel (`sparkops/data/NAME`) and the checkout (`NAME` beside the package).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent


def bundled(name: str) -> Path:
    """The folder of that name that came with sparkops. Raises FileNotFoundError when the installation lacks it."""
    for place in (PACKAGE / "data" / name, PACKAGE.parent / name):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"this installation of sparkops has no folder {name}/; reinstall it")


def parsed(path: Path) -> Any:
    """The content of a YAML file, by a safe loader, in C where there is one. Raises OSError, ValueError, YAMLError."""
    import yaml

    return yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def module_text(path: str) -> str:
    """The source of a module of this package, by its path in there: `programs/launch/launcher.py`."""
    return (PACKAGE / path).read_text(encoding="utf-8")


def folders(name: str, beside: Path | None = None) -> tuple[Path, ...]:
    """The folders to search for `name`, first come first served: the user's beside the inventory, then the bundled."""
    own = (beside / name,) if beside is not None and (beside / name).is_dir() else ()
    return tuple(dict.fromkeys([*own, bundled(name)]))


def state_folder() -> Path:
    """Where what must survive is kept: `$XDG_STATE_HOME/sparkops`, else `~/.local/state/sparkops`."""
    return _base("XDG_STATE_HOME", ".local/state")


def cache_folder() -> Path:
    """Where what can be had again is kept: `$XDG_CACHE_HOME/sparkops`, else `~/.cache/sparkops`."""
    return _base("XDG_CACHE_HOME", ".cache")


def _base(variable: str, default: str) -> Path:
    """A folder of the XDG base directory specification; a relative one is ignored, as it demands."""
    value = Path(os.environ.get(variable) or "~")
    return (value if value.is_absolute() else Path.home() / default) / "sparkops"
