"""The laws of merging, held by property tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sparkops.inventory.document import Document
from sparkops.inventory.merge import Layer, fold, leaves, merge, origin, settle

KEYS = st.sampled_from("abc")
SCALARS = (
    st.none() | st.integers(0, 3) | st.text("xy", max_size=2) | st.booleans() | st.lists(st.integers(0, 2), max_size=2)
)
VALUES = st.recursive(SCALARS, lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)
TREES = st.dictionaries(KEYS, VALUES, max_size=3)
UNIFORM = st.fixed_dictionaries(
    {}, optional={"a": st.integers(), "b": st.fixed_dictionaries({}, optional={"x": st.integers(), "y": st.integers()})}
)


@given(TREES)
def test_an_empty_layer_changes_nothing(tree: dict[str, Any]) -> None:
    assert merge(tree, {}) == tree
    assert merge({}, tree) == tree


@given(TREES)
def test_a_layer_laid_upon_itself_changes_nothing(tree: dict[str, Any]) -> None:
    assert merge(tree, tree) == tree


@given(TREES, TREES)
def test_the_stronger_layer_wins_every_leaf_that_it_names(weak: dict[str, Any], strong: dict[str, Any]) -> None:
    merged = merge(weak, strong)
    for path, value in leaves(strong):
        here: Any = merged
        for part in path:
            here = here[part]
        assert here == value or (value == {} and isinstance(here, dict))


@given(TREES, TREES)
def test_what_the_stronger_layer_does_not_name_stays(weak: dict[str, Any], strong: dict[str, Any]) -> None:
    merged = merge(weak, strong)
    assert {key: merged[key] for key in weak if key not in strong} == {
        key: weak[key] for key in weak if key not in strong
    }


@given(UNIFORM, UNIFORM, UNIFORM)
def test_layers_of_one_shape_may_be_grouped_freely(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(TREES, TREES)
def test_merging_leaves_its_layers_as_they_were(weak: dict[str, Any], strong: dict[str, Any]) -> None:
    before = repr((weak, strong))
    merged = merge(weak, strong)
    merged["new"] = 1
    assert repr((weak, strong)) == before


@given(st.lists(TREES, max_size=4))
def test_a_settled_result_holds_nothing_unset(layers: list[dict[str, Any]]) -> None:
    assert all(value is not None for _, value in leaves(fold(layers)))


@given(TREES)
def test_settling_twice_is_settling_once(tree: dict[str, Any]) -> None:
    assert settle(settle(tree)) == settle(tree)


@given(st.lists(TREES, min_size=1, max_size=4))
def test_every_merged_leaf_comes_from_the_layer_that_says_it(trees: list[dict[str, Any]]) -> None:
    document = Document("i.yml", Path(), {})
    layers = [Layer(str(index), tree, document, {}) for index, tree in enumerate(trees)]
    for path, value in leaves(fold(trees)):
        source = origin(layers, path)
        assert source is not None
        here: Any = source.data
        for part in path:
            here = here[part]
        assert here == value or (value == {} and isinstance(here, dict))


def test_null_unsets_and_a_stronger_layer_sets_again() -> None:
    assert fold([{"s": {"a": 1, "b": 2}}, {"s": {"a": None}}]) == {"s": {"b": 2}}
    assert fold([{"s": {"a": 1}}, {"s": None}, {"s": {"b": 2}}]) == {"s": {"b": 2}}


def test_lists_replace() -> None:
    assert fold([{"a": [1, 2]}, {"a": [3]}]) == {"a": [3]}
