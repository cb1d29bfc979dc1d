"""What engines say when they fail: the typed view of `knowledge/engine-errors.yml`. It must not know where logs are."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache

from sparkops.core.data import bundled
from sparkops.models import knowledge_file


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
    """All entries, the special ones first."""
    path = bundled("knowledge") / "engine-errors.yml"
    return tuple(EngineError(**each) for each in knowledge_file.read(path)["errors"])


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
