"""What engines say when they fail: the typed view of `knowledge/engine-errors.yml`. It must not know where logs are."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache

import yaml

from sparkops.core.data import bundled
from sparkops.core.errors import InventoryError


@dataclass(frozen=True, slots=True)
class EngineError:
    """One message: a regular expression over a line, its likely cause and the way out, with {groups} of the pattern.

    `permanent`: another start of the same service fails alike.
    """

    id: str
    pattern: str
    cause: str
    remedy: str
    source: str
    permanent: bool = False


@cache
def known() -> tuple[EngineError, ...]:
    """All entries, the special ones first. Raises InventoryError for a file that is broken."""
    path = bundled("knowledge") / "engine-errors.yml"
    try:
        found = tuple(EngineError(**each) for each in yaml.safe_load(path.read_text(encoding="utf-8"))["errors"])
        for each in found:
            re.compile(each.pattern)
    except (yaml.YAMLError, KeyError, TypeError, re.error) as error:
        raise InventoryError(f"the table of engine errors is broken: {error}", where=str(path)) from error
    return found


def permanent() -> str:
    """The patterns of the permanent errors as a JSON list: what the launcher compares an engine's last words with."""
    return json.dumps([each.pattern for each in known() if each.permanent], indent=1) + "\n"


def likely(log: str) -> tuple[EngineError, str, str] | None:
    """The first known error that a log shows, with its cause and remedy filled in; None where none is known."""
    for error in known():
        found = re.search(error.pattern, log)
        if found:
            groups = {key: (value or "").strip() for key, value in found.groupdict().items()}
            return error, error.cause.format(**groups), error.remedy.format(**groups)
    return None
