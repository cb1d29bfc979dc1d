"""The small JSON says what `json` says."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core import quickjson

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def refuse(value: Any) -> Any:
    raise TypeError(type(value).__name__)


@given(VALUES)
def test_it_writes_and_reads_as_json_does(value: Any) -> None:
    text = quickjson.dumps(value, refuse)
    assert text == json.dumps(value, separators=(",", ":"))
    assert quickjson.loads(text, dict) == value


def test_numbers_that_json_lacks_travel_as_python_writes_them() -> None:
    back = quickjson.loads(quickjson.dumps([math.inf, -math.inf, math.nan], refuse), dict)
    assert back[:2] == [math.inf, -math.inf]
    assert math.isnan(back[2])


@pytest.mark.parametrize("text", ["", "{", "[1", "nul", '{"a" 1}', "1 2", '{"a":1}x', '"\n"', "[1,]", "\ufeff1"])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        json.loads(text)
    with pytest.raises(ValueError):
        quickjson.loads(text, dict)


def test_deep_nesting_is_an_error_and_no_crash() -> None:
    with pytest.raises(RecursionError):
        quickjson.loads("[" * 200_000, dict)


def test_a_value_that_is_not_plain_is_refused() -> None:
    with pytest.raises(TypeError):
        quickjson.dumps({"a": object()}, refuse)


def test_an_interpreter_without_the_compiled_half_uses_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickjson, "_json", None)
    assert quickjson.loads(quickjson.dumps({"a": [1, "b"]}, refuse), dict) == {"a": [1, "b"]}
