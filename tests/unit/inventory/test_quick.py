"""The quick yes about a schema is never wrong: whatever it lets pass, jsonschema lets pass."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core import data
from sparkops.core.secrets import SecretRef
from sparkops.inventory import quick
from sparkops.inventory.document import read
from sparkops.inventory.faults import Faults
from sparkops.inventory.schema import schema
from sparkops.inventory.validate import _validator

WORDS = st.sampled_from(["a", "b", "ab", "c-d", "", "0", "x" * 9])
PLAIN = st.none() | st.booleans() | st.integers(-3, 9) | st.sampled_from([0.0, 1.0, 1.5]) | WORDS
VALUES = st.recursive(PLAIN, lambda v: st.lists(v, max_size=3) | st.dictionaries(WORDS, v, max_size=3), max_leaves=8)
NUMBERS = st.integers(0, 3)
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "object", "array", "null"])


def schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
            "enum": st.lists(PLAIN, min_size=1, max_size=4),
            "const": PLAIN,
            "pattern": st.sampled_from(["^a", "b$", "^[a-z]+$"]),
            "anyOf": st.lists(inner, min_size=1, max_size=3),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "$ref": st.sampled_from(["#/$defs/x", "#/$defs/y", "#"]),
            "properties": st.dictionaries(WORDS, inner, max_size=3),
            "patternProperties": st.dictionaries(st.just("^a"), inner, max_size=1),
            "additionalProperties": inner | st.booleans(),
            "propertyNames": inner,
            "required": st.lists(WORDS, max_size=2, unique=True),
            "items": inner | st.booleans(),
            "uniqueItems": st.booleans(),
            **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), NUMBERS),
            **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), NUMBERS),
            **dict.fromkeys(("minProperties", "maxProperties"), NUMBERS),
        },
    )


SCHEMAS = schemas(st.recursive(st.just({}), schemas, max_leaves=5))
DEFINITIONS = {"x": {"type": "string", "minLength": 1}, "y": {"anyOf": [{"$ref": "#/$defs/x"}, {"minimum": 1}]}}


@given(VALUES, SCHEMAS, st.booleans())
def test_what_passes_has_no_fault(value: Any, given_schema: dict[str, Any], fragment: bool) -> None:
    whole = {**given_schema, "$defs": DEFINITIONS}
    if quick.passes(value, whole, fragment=fragment):
        assert not list(_validator(fragment)(whole).iter_errors(value))


@pytest.mark.parametrize("path", sorted(data.bundled("inventories").glob("*.yml")), ids=lambda path: str(path.name))
def test_our_examples_pass_without_jsonschema(path: Any) -> None:
    faults = Faults()
    assert quick.passes(read(path, faults=faults).data, schema(path.parent), fragment=False)


def test_what_is_not_plain_is_left_to_jsonschema() -> None:
    assert not quick.passes(SecretRef("env", "X"), {"type": "string"}, fragment=False)
    assert not quick.passes("x", {"format": "uri"}, fragment=False)


def test_a_schema_that_leads_in_circles_is_not_sure() -> None:
    assert not quick.passes("x", {"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/x"}}}, fragment=False)
