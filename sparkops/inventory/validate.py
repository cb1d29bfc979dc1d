"""Holding a part of a document against a JSON Schema; faults carry the value, the expectation, the place and a way out.

The standard's keywords as jsonschema knows them, with four changes: 8000.0 is no whole number, since it is not written
as one; a secret's reference passes where the schema says `secret: true`, `null` passes where variables are merged (it
unsets), and there `required` waits until all layers are merged. jsonschema is imported by the first check: it takes
0.05 s, and `--help` checks nothing.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from sparkops.core.secrets import SecretRef
from sparkops.inventory.document import Document, Where
from sparkops.inventory.faults import Faults, suggest
from sparkops.inventory.schema import Schema

if TYPE_CHECKING:
    from jsonschema import ValidationError

Check = Callable[..., "Iterable[ValidationError] | None"]
"""A keyword of a schema, as jsonschema calls it."""
SHOWN = 80


def validate(
    document: Document,
    path: Where,
    schema: Mapping[str, object],
    faults: Faults,
    *,
    label: str = "",
    fragment: bool = False,
    instance: object = ...,
    also: Iterable[str] = (),
) -> bool:
    """Adds the faults of the value at `path` and says whether there was none.

    `fragment` says that it is one layer of variables. `instance` replaces the value where only a part of it is meant;
    `also` are further words to suggest at its top.
    """
    value = document.at(path) if instance is ... else instance
    words = tuple(also)
    sound = True
    for error in _validator(fragment)(schema, format_checker=_formats()).iter_errors(value):
        _explain(error, document, path, faults, label, words)
        sound = False
    return sound


def missing(schema: Schema, values: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """The required variables that no layer sets, with their schemas."""
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if values.get(name) is None:
            yield name, properties.get(name, {})


def check_schema(document: Document, path: Where, faults: Faults) -> None:
    """Adds a fault when the value at `path` is itself no JSON Schema."""
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(document.at(path)):
        here = (*path, *error.absolute_path)
        faults.add("schema-invalid", where=document.where(here), here=dotted(here), message=_clip(error.message))


@cache
def _formats() -> Any:
    """The formats that are held against a value: a date that the calendar has."""
    from jsonschema import FormatChecker

    checker = FormatChecker(formats=())

    @checker.checks("date", raises=ValueError)
    def date(value: object) -> bool:
        return not isinstance(value, str) or datetime.date.fromisoformat(value).isoformat() == value

    return checker


@cache
def _validator(fragment: bool) -> Callable[..., Any]:
    """The validator class."""
    from jsonschema import Draft202012Validator, ValidationError, validators

    def required(
        validator: object, names: Iterable[str], instance: object, schema: Mapping[str, object]
    ) -> Iterator[ValidationError]:
        if isinstance(instance, dict):
            for name in names:
                if name not in instance:
                    yield ValidationError(name)

    def guarded(check: Check) -> Check:
        def passes(validator: object, wanted: object, instance: object, schema: Schema) -> Iterator[ValidationError]:
            if (fragment and instance is None) or (isinstance(instance, SecretRef) and schema.get("secret")):
                return iter(())
            return iter(check(validator, wanted, instance, schema) or ())

        return passes

    known: dict[str, Check] = {**Draft202012Validator.VALIDATORS, "required": required}
    if fragment:
        whole: Any = _validator(False)

        def items(_: object, wanted: object, instance: object, schema: Mapping[str, object]) -> Iterator[Any]:
            """A list replaces that of another layer: nothing in it waits for one, and null unsets nothing."""
            return iter(whole.VALIDATORS["items"](whole(schema), wanted, instance, schema) or ())

        known["required"] = lambda validator, names, instance, schema: ()
        known["items"] = items
    for keyword in ("type", "pattern", "enum", "const", "format", "minLength", "maxLength", "anyOf", "oneOf"):
        known[keyword] = guarded(known[keyword])
    extend: Callable[..., Any] = validators.extend
    whole_numbers = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    made: Callable[..., object] = extend(Draft202012Validator, known, type_checker=whole_numbers)
    return made


def _explain(
    error: ValidationError, document: Document, prefix: Where, faults: Faults, label: str, also: tuple[str, ...]
) -> None:
    here = (*prefix, *error.absolute_path)
    name = dotted(here) or label or "the file"
    where = document.where(here)
    wanted = error.validator_value
    shown = _shown(error.instance, document.raw.get(here))
    if "propertyNames" in error.relative_schema_path:
        faults.add(
            "declared-name-invalid", where=document.where_key((*here, str(error.instance))), instance=error.instance
        )
    elif error.validator == "additionalProperties" and wanted is False:
        known = (*_named(error, "properties"), *(also if not error.absolute_path else ()))
        for key in _unknown_keys(error):
            inside = f" in {name}" if name else ""
            faults.add(
                "unknown-key",
                where=document.where_key((*here, key)),
                key=key,
                inside=inside,
                suggestion=suggest(key, known),
            )
    elif error.validator == "required":
        faults.add(
            "required-key-missing",
            where=document.where_key(here),
            name=name,
            key=error.message,
            hint=_described(_named(error, "properties").get(error.message), error.message),
        )
    elif error.validator == "type":
        faults.add(
            "value-type-wrong",
            where=where,
            name=name,
            shown=shown,
            wanted=_types(wanted),
            hint=_type_hint(error, document.raw.get(here)),
        )
    elif error.validator in ("enum", "const"):
        choices = [wanted] if error.validator == "const" else _as_list(wanted)
        listed, hint = ", ".join(map(str, choices)), _nearest(error.instance, choices)
        faults.add("value-not-allowed", where=where, name=name, shown=shown, listed=listed, hint=hint)
    elif error.validator in ("anyOf", "oneOf") and error.context:
        _explain_choice(error, document, prefix, faults, label, also)
    else:
        faults.add(
            "value-out-of-limits",
            where=where,
            name=name,
            shown=shown,
            reason=_limit(error),
            hint=_description(error.schema),
        )


def _nearest(value: object, choices: Sequence[object]) -> str:
    """What was probably meant by a text; "" where nothing is near."""
    hint = suggest(value, [each for each in choices if isinstance(each, str)]) if isinstance(value, str) else ""
    return "" if "known:" in hint else hint


def _explain_choice(
    error: ValidationError, document: Document, prefix: Where, faults: Faults, label: str, also: tuple[str, ...]
) -> None:
    """One fault for a choice of schemas: the types when none fits, else the fault of the choice that came furthest."""
    top = len(error.absolute_path)
    if all(each.validator == "type" and len(each.absolute_path) == top for each in error.context):
        here = (*prefix, *error.absolute_path)
        words = [word for each in error.context for word in _as_list(each.validator_value)]
        raw = document.raw.get(here)
        faults.add(
            "value-type-not-a-choice",
            where=document.where(here),
            here=dotted(here) or label,
            instance=_shown(error.instance, raw),
            words=_types(words),
            hint=_trap(error.instance, words, raw) or _description(error.schema),
        )
        return
    furthest = max(error.context, key=lambda each: (len(each.absolute_path), each.validator != "type"))
    _explain(furthest, document, prefix, faults, label, also)


def dotted(path: Iterable[str | int]) -> str:
    """A path as a user writes it: `services.qwen.nodes[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _unknown_keys(error: ValidationError) -> list[str]:
    import re

    patterns, properties = _named(error, "patternProperties"), _named(error, "properties")
    return [
        key
        for key in map(str, _as_list(error.instance))
        if key not in properties and not any(re.search(pattern, key) for pattern in patterns)
    ]


def _named(error: ValidationError, keyword: str) -> Mapping[str, object]:
    """What a keyword of the schema says by name; {} where it is not there."""
    found = error.schema.get(keyword) if isinstance(error.schema, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _type_hint(error: ValidationError, raw: str | None) -> str:
    if isinstance(error.instance, SecretRef):
        return "write the value itself; a secret may stand where the schema says `secret: true`, as in environment"
    return _trap(error.instance, _as_list(error.validator_value), raw) or _description(error.schema)


def _trap(value: object, wanted: list[object], raw: str | None) -> str:
    """Words for what YAML 1.1 makes of an unquoted scalar, where that is likely the cause."""
    if raw and "string" in wanted and value is not None:
        read = json.dumps(value)
        seen = f"YAML reads {raw} as {read}" if read != raw else f"YAML reads {raw} as {_KINDS.get(type(value), 'it')}"
        return f'{seen}; write it in quotes: "{raw}"'
    if isinstance(value, str) and "boolean" in wanted and value.lower() in _BOOLEANS:
        return f"write {value.lower()} without quotes"
    if isinstance(value, float) and "integer" in wanted and value.is_integer():
        return f"write {value:.0f}"
    if isinstance(value, str) and {"integer", "number"} & set(wanted) and value.strip().lstrip("-").isdecimal():
        return f"write {value} without quotes"
    return ""


def _limit(error: ValidationError) -> str:
    wanted = error.validator_value
    words = {
        "minimum": f"expected at least {wanted}",
        "maximum": f"expected at most {wanted}",
        "exclusiveMinimum": f"expected more than {wanted}",
        "exclusiveMaximum": f"expected less than {wanted}",
        "pattern": f"expected text that matches {wanted}",
        "minLength": "expected text that is not empty" if wanted == 1 else f"expected at least {wanted} characters",
        "minItems": "expected at least one item" if wanted == 1 else f"expected at least {wanted} items",
        "minProperties": "expected at least one entry" if wanted == 1 else f"expected at least {wanted} entries",
        "maxProperties": "expected only one entry" if wanted == 1 else f"expected at most {wanted} entries",
        "uniqueItems": "expected no item twice",
        "format": f"expected a {wanted} as the calendar has it",
    }
    return words.get(str(error.validator), f"which breaks its rule: {_clip(error.message)}")


def _shown(value: object, raw: str | None = None) -> str:
    if raw:
        return raw
    if value is None:
        return "empty"
    if isinstance(value, SecretRef):
        return str(value)
    if isinstance(value, dict):
        return f"a mapping ({_clip(', '.join(value))})" if value else "an empty mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    return _clip(repr(value))


def _types(wanted: object) -> str:
    words = [_NAMES.get(str(each), str(each)) for each in _as_list(wanted) if each != "null"]
    return " or ".join(dict.fromkeys(words))


def _described(part: object, name: str) -> str:
    text = _description(part)
    return f"{name}: {text}" if text else f"add {name}"


def _description(part: object) -> str:
    return str(part["description"]) if isinstance(part, Mapping) and "description" in part else ""


def _as_list(value: object) -> list[object]:
    """The words of a keyword that takes one or several, or the keys of a mapping."""
    return list(value) if isinstance(value, (list, tuple, dict)) else [value]


def _clip(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


_NAMES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}
_KINDS: Mapping[type, str] = {bool: "a boolean", int: "a number", float: "a number"}
_BOOLEANS = ("true", "false", "yes", "no", "on", "off")
