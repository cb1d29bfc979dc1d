"""Where the bundled data stands: knowledge, recipes, roles, templates, inventories.

One function for the wheel (`sparkops/data/NAME`) and the checkout (`NAME` beside the package).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent
NAMES = ("knowledge", "recipes", "roles", "templates", "inventories")


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
