"""JSON by the interpreter's own compiled half of `json`, without loading the rest of it.

Loading `json` loads `re` and `enum`: a quarter of what a worker's start costs a node. Where an interpreter lacks the
compiled half, `json` does the work. Same values, same errors; nothing here knows frames.
"""

from collections.abc import Callable
from typing import Any

try:
    import _json
except ImportError:  # an interpreter other than CPython
    _json = None  # type: ignore[assignment]


class _Rules:
    """What the compiled scanner is made from: `json.JSONDecoder`'s attributes, with its defaults."""

    strict = True
    object_pairs_hook = None
    parse_float = float
    parse_int = int

    def __init__(self, hook: Callable[[dict[str, Any]], Any]) -> None:
        self.object_hook = hook

    @staticmethod
    def parse_constant(word: str) -> float:
        """NaN and the infinities, which Python writes though JSON has none."""
        return float(word.replace("Infinity", "inf"))


def dumps(value: object, default: Callable[[Any], Any]) -> str:
    """`value` as compact ASCII JSON. `default` turns what is no plain value into one, or raises TypeError."""
    if _json is None:
        import json

        return json.dumps(value, default=default, separators=(",", ":"))
    encode = _json.make_encoder({}, default, _json.encode_basestring_ascii, None, ":", ",", False, False, True)
    return "".join(encode(value, 0))


def loads(text: str, hook: Callable[[dict[str, Any]], Any]) -> Any:
    """The value of a JSON text without space around it; `hook` sees each object. Raises ValueError, RecursionError."""
    if _json is None:
        import json

        return json.loads(text, object_hook=hook)
    try:
        value, end = _json.make_scanner(_Rules(hook))(text, 0)  # type: ignore[arg-type]
    except StopIteration as stop:
        raise ValueError(f"no value at {stop.value}") from None
    if end != len(text):
        raise ValueError(f"more than one value, from {end} on")
    return value
