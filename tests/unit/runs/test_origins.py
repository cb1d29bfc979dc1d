"""Who moved, the node or the declaration: by what was declared and found when a thing was last proven."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core.digests import digest
from sparkops.core.secrets import Secret
from sparkops.core.states import Pending
from sparkops.runs.origins import origin_of
from sparkops.runs.store import Thing
from tests.unit.reports.made import step

VALUES = st.sampled_from(["1", "2", "3", "declared"])
STATES = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)


def digests(state: Any) -> Any:
    return None if state is None else {key: digest(value) for key, value in state.items()}


def origin(now: Any, found: Any, then: Any, found_then: Any, *changes: str) -> str | None:
    """Of a difference between `now` and `found`, after `then` and `found_then` were proven to agree."""
    action = "create" if found is None else "delete" if now is None else "update"
    moved = step("file /x @a", "a", action=action, changes=changes, before=found)
    return origin_of(moved, digests(now), Thing(proven=True, keys=digests(then), found=digests(found_then) or {}))


ONE, TWO, THREE = {"a": "1"}, {"a": "2"}, {"a": "3"}


@pytest.mark.parametrize(
    ("now", "found", "then", "found_then", "expected"),
    [
        (ONE, TWO, ONE, ONE, "corrective"),
        (TWO, ONE, ONE, ONE, "intentional"),
        (TWO, THREE, ONE, ONE, "both"),
        (TWO, {"a": "01"}, ONE, {"a": "01"}, "intentional"),
        (ONE, None, ONE, ONE, "corrective"),
        (TWO, None, ONE, ONE, "both"),
        (ONE, None, None, None, "intentional"),
        (None, ONE, ONE, ONE, "intentional"),
        (None, ONE, None, None, "corrective"),
        ({"a": "declared"}, {"a": "other"}, {"a": "declared"}, {"a": "declared"}, None),
        ({"a": "1", "b": "1"}, {"a": "1"}, ONE, ONE, "intentional"),
    ],
)
def test_who_moved(now: Any, found: Any, then: Any, found_then: Any, expected: str | None) -> None:
    changes = [key for key in now or {} if (now or {}).get(key) != (found or {}).get(key)]
    assert origin(now, found, then, found_then, *changes) == expected


@given(st.none() | STATES, st.sampled_from(["create", "update", "delete"]))
def test_what_was_never_as_declared_is_new(keys: Any, action: str) -> None:
    assert origin_of(step("file /x @a", "a", action=action), keys, Thing()) == "new"


@given(STATES, STATES)
def test_with_the_same_declaration_the_declaration_did_not_move(now: Any, found: Any) -> None:
    changes = [key for key in now if now[key] != found.get(key)]
    assert origin(now, found, now, now, *changes) in ("corrective", None)


@given(STATES, STATES)
def test_a_node_that_has_what_was_proven_did_not_move(now: Any, then: Any) -> None:
    changes = [key for key in now if now[key] != then.get(key)]
    assert origin(now, then, then, then, *changes) in ("intentional", None)


@pytest.mark.parametrize("value", [Secret("x"), {"a": [Secret("x")]}, Pending("s"), "declared", "current"])
def test_what_does_not_name_its_value_has_no_digest(value: Any) -> None:
    assert digest(value) == ""
