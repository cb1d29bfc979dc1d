"""The head of a safetensors file: what is whole is read as the format's own library reads it, all else is refused."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.safetensors.header import BITS, LARGEST, Broken, header_length, parse_header


def head(entries: Any) -> bytes:
    return json.dumps(entries).encode()


def entry(start: int, end: int, shape: list[int], dtype: str = "BF16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_tensors_come_in_the_order_of_their_bytes_and_tell_how_long_the_file_is() -> None:
    header = parse_header(head({"b": entry(8, 12, [2]), "a": entry(0, 8, [2, 2]), "__metadata__": {"format": "pt"}}))
    assert [each.name for each in header.tensors] == ["a", "b"]
    assert header.file_size == header.data + 12
    assert header.metadata == {"format": "pt"}
    assert header.tensors[0].values == 4


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"a": entry(0, 4, [2]), "b": entry(2, 6, [2])}, "overlaps"),
        ({"a": entry(0, 4, [2]), "b": entry(6, 10, [2])}, "gap of 2 bytes"),
        ({"a": entry(4, 8, [2])}, "gap of 4 bytes"),
        ({"a": entry(0, 5, [2])}, "has 5 bytes"),
        ({"a": entry(-4, 0, [2])}, "offsets that are none"),
        ({"a": entry(0, 4, [-2])}, "a shape that is none"),
        ({"a": entry(0, 4, [True, 2])}, "a shape that is none"),
        ({"a": entry(0, 4, [2], "BF17")}, "unknown dtype"),
        ({"a": {"dtype": "BF16", "shape": [2]}}, "not exactly"),
        ({"a": entry(0, 0, [1 << 59, 1 << 59])}, "larger than any file"),
        ({"a": 3}, "'3' stands where an object was expected"),
        ([], "where an object was expected"),
        ({"__metadata__": {"x": 1}}, "'1' stands where a string was expected"),
    ],
)
def test_a_claim_that_cannot_be_true_is_refused(entries: Any, words: str) -> None:
    with pytest.raises(Broken, match=words):
        parse_header(head(entries))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}, "a": {}}', "'a' twice"),
        (b'{"a": {"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', "holds NaN"),
        (b"[" * 100_000, "where an object was expected"),
        (b'{"a"', "ends too early"),
        (b"\xff\xfe{}", "no UTF-8"),
        (b'{"a": {"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,1]}}', "does not end within 4096"),
    ],
)
def test_a_text_that_is_no_header_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(Broken, match=words):
        parse_header(text)


def test_a_header_that_claims_to_be_huge_is_refused_before_it_is_read() -> None:
    with pytest.raises(Broken, match="more than"):
        header_length(struct.pack("<Q", LARGEST + 1))
    with pytest.raises(Broken, match="ends after 3"):
        header_length(b"abc")
    with pytest.raises(Broken, match="too few"):
        header_length(bytes(8))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_hold_together(data: bytes) -> None:
    try:
        header = parse_header(data)
    except Broken:
        return
    assert header.file_size == header.data + sum(each.size for each in header.tensors)


@given(st.lists(st.tuples(st.sampled_from(sorted(BITS)), st.lists(st.integers(0, 4), max_size=3)), max_size=6))
def test_what_a_writer_lays_out_without_gaps_is_accepted(tensors: list[tuple[str, list[int]]]) -> None:
    entries, position = {}, 0
    for number, (dtype, shape) in enumerate(tensors):
        count = 1
        for each in shape:
            count *= each
        if count * BITS[dtype] % 8:
            return
        entries[str(number)] = entry(position, position + count * BITS[dtype] // 8, shape, dtype)
        position += count * BITS[dtype] // 8
    header = parse_header(head(entries))
    assert header.file_size == header.data + position
    assert {each.name for each in header.tensors} == header.names == set(entries)
