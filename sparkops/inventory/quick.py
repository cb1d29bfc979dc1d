"""A quick yes to "does this value fit this JSON Schema?", so that a right inventory never waits for jsonschema.

Only a yes is an answer. False means "not sure": jsonschema decides then, and finds the words. So whatever is not
plainly right here (an unknown keyword, a secret's reference, a mixed comparison) is simply not sure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[["_Pass", Any, Any, Mapping[str, Any]], bool]


def passes(value: Any, schema: Mapping[str, Any], *, fragment: bool) -> bool:
    """Whether `value` certainly fits. `fragment`: null fits everywhere and nothing is required (see `validate`)."""
    try:
        return _Pass(schema, fragment).fits(value, schema)
    except (RecursionError, TypeError, re.error):  # a schema that is none, or leads in circles
        return False


class _Pass:
    """One value held against one schema; `root` is where references lead."""

    def __init__(self, root: Mapping[str, Any], fragment: bool) -> None:
        self.root = root
        self.fragment = fragment

    def fits(self, value: Any, schema: Any) -> bool:
        """Whether the value fits this part of the schema."""
        if schema is True:
            return True
        if not isinstance(schema, Mapping):
            return False
        for keyword, wanted in schema.items():
            check = _CHECKS.get(keyword)
            if check is None or not check(self, value, wanted, schema):
                return False
        return True

    def type(self, value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
        words = wanted if isinstance(wanted, list) else [wanted]
        return (value is None and self.fragment) or any(type(value) in _TYPES.get(word, ()) for word in words)

    def enum(self, value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
        if value is None and self.fragment:
            return True
        return type(value) in (str, int, bool) and any(type(each) is type(value) and each == value for each in wanted)

    def const(self, value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
        return self.enum(value, [wanted], schema)

    def pattern(self, value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
        return type(value) in _NO_TEXT or (type(value) is str and re.search(wanted, value) is not None)

    def any_of(self, value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
        return (value is None and self.fragment) or any(self.fits(value, each) for each in wanted)

    def ref(self, value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
        found: Any = self.root
        for part in str(wanted).removeprefix("#/").split("/"):
            found = found.get(part) if isinstance(found, Mapping) else None
        return str(wanted).startswith("#/") and found is not None and self.fits(value, found)

    def properties(self, value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
        return type(value) is not dict or all(self.fits(value[key], wanted[key]) for key in value if key in wanted)

    def others(self, value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
        known = schema.get("properties", {})
        return type(value) is not dict or all(self.fits(value[key], wanted) for key in value if key not in known)

    def names(self, value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
        return type(value) is not dict or all(self.fits(key, wanted) for key in value)

    def required(self, value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
        return self.fragment or type(value) is not dict or all(name in value for name in wanted)

    def items(self, value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
        return type(value) is not list or all(self.fits(each, wanted) for each in value)

    def unique(self, value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
        if type(value) is not list or wanted is False:
            return True
        return all(type(each) is str for each in value) and len(set(value)) == len(value)

    def nothing(self, value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
        return True


def _limit(sorts: tuple[type, ...], holds: Callable[[Any, Any], bool], size: bool = False) -> Check:
    """A bound on values of these types (or on their length); other known types have none."""

    def check(run: _Pass, value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
        if type(value) in sorts:
            return holds(len(value) if size else value, wanted)
        return type(value) in _KNOWN

    return check


_KNOWN = frozenset({str, int, float, bool, list, dict, type(None)})
_NO_TEXT = _KNOWN - {str}
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}
_NUMBER = (int, float)
_CHECKS: Mapping[str, Check] = {
    **dict.fromkeys(("description", "default", "title", "$schema", "$id", "$defs", "examples"), _Pass.nothing),
    "type": _Pass.type,
    "enum": _Pass.enum,
    "const": _Pass.const,
    "pattern": _Pass.pattern,
    "anyOf": _Pass.any_of,
    "$ref": _Pass.ref,
    "properties": _Pass.properties,
    "additionalProperties": _Pass.others,
    "propertyNames": _Pass.names,
    "required": _Pass.required,
    "items": _Pass.items,
    "uniqueItems": _Pass.unique,
    "minimum": _limit(_NUMBER, lambda value, bound: bool(value >= bound)),
    "maximum": _limit(_NUMBER, lambda value, bound: bool(value <= bound)),
    "exclusiveMinimum": _limit(_NUMBER, lambda value, bound: bool(value > bound)),
    "exclusiveMaximum": _limit(_NUMBER, lambda value, bound: bool(value < bound)),
    "minLength": _limit((str,), lambda value, bound: bool(value >= bound), size=True),
    "maxLength": _limit((str,), lambda value, bound: bool(value <= bound), size=True),
    "minItems": _limit((list,), lambda value, bound: bool(value >= bound), size=True),
    "maxItems": _limit((list,), lambda value, bound: bool(value <= bound), size=True),
    "minProperties": _limit((dict,), lambda value, bound: bool(value >= bound), size=True),
    "maxProperties": _limit((dict,), lambda value, bound: bool(value <= bound), size=True),
}
