"""Order, reachability and cycles of named things."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core.graph import Cycle, ordered, reachable

GRAPHS = st.dictionaries(st.integers(0, 9), st.lists(st.integers(0, 9), max_size=3), max_size=10)


@given(GRAPHS)
def test_each_stands_behind_those_it_comes_after_or_the_cycle_is_named(after: dict[int, list[int]]) -> None:
    try:
        found = ordered(after)
    except Cycle as error:
        assert error.members[0] == error.members[-1]
        assert all(
            other in after[each]  # type: ignore[index]
            for each, other in zip(error.members, error.members[1:], strict=False)
        )
        return
    assert sorted(found) == sorted(after)
    assert all(found.index(other) < found.index(each) for each in after for other in after[each] if other in after)
    assert not any(each in reachable(after, each) for each in after)


def test_what_is_free_keeps_the_given_order() -> None:
    assert ordered({"c": ["b"], "a": [], "b": [], "d": ["unknown"]}) == ("a", "b", "c", "d")


def test_a_cycle_has_its_members_in_order() -> None:
    with pytest.raises(Cycle, match="dependency cycle: (a → b → a|b → a → b)"):
        ordered({"a": ["b"], "b": ["a"]})


def test_reachable_goes_over_any_number_of_steps() -> None:
    assert reachable({"a": ["b"], "b": ["c"], "d": ["a"]}, "a") == {"b", "c"}
