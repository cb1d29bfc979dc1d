"""The one function that makes a serve command line out of declared values: for lint, fit and the unit alike.

Keys are vLLM's own flag names, verbatim. Which flags an engine knows is lint's business, not this module's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from sparkops.core.errors import InventoryError

FLAG = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_.][A-Za-z0-9]+)*")


def serve_argv(command: Sequence[str], model: str, serve: Mapping[str, object]) -> list[str]:
    """`command`, the model, then the flags sorted by name, so that the order of a file's lines restarts nothing.

    true → `--x`, false → `--no-x`, null → nothing, a list → several words, a mapping → compact JSON, the
    rest → one word. Raises InventoryError for a key that is not a flag name or a value that cannot become arguments.
    """
    argv = [*command, model] if model else list(command)
    for key in sorted(serve):
        argv += flag_words(key, serve[key])
    return argv


def flag_words(key: str, value: object) -> list[str]:
    """The words of one flag."""
    if not FLAG.fullmatch(key):
        raise InventoryError.of("serve-key-invalid", key=key)
    if value is None:
        return []
    if value is True:
        return [f"--{key}"]
    if value is False:
        return [f"--no-{key}"]
    if isinstance(value, (list, tuple)):
        return [f"--{key}", *_several(key, value)]
    word = _word(key, value)
    return [f"--{key}={word}"] if word.startswith("-") else [f"--{key}", word]


def canonical(value: object) -> str:
    """A value as JSON in one form: keys sorted, no spaces, characters as they are. Raises TypeError or ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _several(key: str, values: Sequence[object]) -> list[str]:
    if not values:
        raise InventoryError.of("serve-list-empty", key=key)
    words = [_word(key, each) for each in values]
    for word in words:
        if word.startswith("-"):
            raise InventoryError.of("serve-word-like-flag", key=key, word=word)
    return words


def _word(key: str, value: object) -> str:
    if isinstance(value, str):
        if "\0" in value:
            raise InventoryError.of("serve-word-nul", key=key)
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, Mapping):
        return canonical(value)
    raise InventoryError.of("serve-value-type", key=key, type_name=type(value).__name__)
