"""One function makes the words of a serve command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.models.argv import serve_argv
from tests.errors import fails

FLAGS = st.from_regex(r"[a-z]{1,6}(-[a-z]{1,5}){0,2}", fullmatch=True)
SIMPLE = st.none() | st.booleans() | st.integers() | st.text(alphabet="abc -{}\"'", max_size=5)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, ["--x"]),
        (False, ["--no-x"]),
        (None, []),
        (4, ["--x", "4"]),
        (0.85, ["--x", "0.85"]),
        ("auto", ["--x", "auto"]),
        ("", ["--x", ""]),
        ("-1", ["--x=-1"]),
        (["a", 2], ["--x", "a", "2"]),
        ({"b": [1, True], "a": None}, ["--x", '{"a":null,"b":[1,true]}']),
        ([{"b": 1}], ["--x", '{"b":1}']),
    ],
)
def test_each_sort_of_value_makes_its_words(value: Any, words: list[str]) -> None:
    assert serve_argv(["vllm", "serve"], "/model", {"x": value}) == ["vllm", "serve", "/model", *words]


@pytest.mark.parametrize("key", ["--x", "-x", "max model len", "", "x=1", "x;y", "é"])
def test_a_key_that_is_no_flag_name_is_refused(key: str) -> None:
    with fails("serve-key-invalid"):
        serve_argv([], "m", {key: 1})


def test_dashes_in_front_are_told_to_be_left_out() -> None:
    with fails("serve-key-invalid") as error:
        serve_argv([], "m", {"--max-model-len": 1})
    assert error.value.id == "serve-key-invalid"


@pytest.mark.parametrize(
    ("value", "id"),
    [
        ([], "serve-list-empty"),
        (["-x"], "serve-word-like-flag"),
        (object(), "serve-value-type"),
        ("a\0b", "serve-word-nul"),
        ([[1]], "serve-value-type"),
    ],
)
def test_a_value_that_makes_no_words_is_refused(value: Any, id: str) -> None:
    with fails(id):
        serve_argv([], "m", {"x": value})


@given(st.dictionaries(FLAGS, SIMPLE, max_size=5), st.randoms())
def test_the_order_of_the_lines_does_not_matter(serve: dict[str, Any], random: Any) -> None:
    items = list(serve.items())
    random.shuffle(items)
    assert serve_argv([], "m", dict(items)) == serve_argv([], "m", serve)


@given(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=3))
def test_a_mapping_comes_back_out_of_its_word(value: dict[str, Any]) -> None:
    assert json.loads(serve_argv([], "m", {"x": value})[-1]) == value
