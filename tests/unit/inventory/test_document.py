"""Reading YAML: places, traps and bounds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sparkops.core.errors import InventoryError
from sparkops.core.secrets import SecretRef
from sparkops.inventory import document
from sparkops.inventory.document import Document, parse, read
from tests.errors import fails


def reading(text: str) -> Document:
    return parse(text, name="i.yml", folder=Path("/project"))


def fault(text: str) -> str:
    with pytest.raises(InventoryError) as caught:
        reading(text)
    return str(caught.value)


def test_every_value_and_key_knows_its_line_and_column() -> None:
    found = reading("a:\n  b: [1, {c: x}]\n")
    assert found.data == {"a": {"b": [1, {"c": "x"}]}}
    assert found.where(("a", "b", 1, "c")) == "i.yml:2:14"
    assert found.where_key(("a", "b", 1, "c")) == "i.yml:2:11"


def test_a_place_that_is_not_in_the_file_is_told_by_the_nearest_one_around_it() -> None:
    assert reading("a:\n  b: 1\n").where(("a", "b", "c", 0)) == "i.yml:2:6"


def test_columns_count_characters_and_not_bytes() -> None:
    assert reading("{ä: ö, b: x}").where(("b",)) == "i.yml:1:11"


def test_dates_and_base_sixty_numbers_stay_text() -> None:
    assert reading("[2026-01-01, 22:22, 1e5, 12345e6]").data == ["2026-01-01", "22:22", "1e5", "12345e6"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("0x10", 16), ("0b11", 3), ("0644", 420), ("-1_000", -1000), ("0", 0), ("+7", 7), (".5", 0.5), ("~", None)],
)
def test_scalars_are_read_as_yaml_1_1_does(text: str, value: object) -> None:
    assert reading(f"[{text}]").data == [value]


def test_the_text_of_an_unquoted_scalar_is_kept() -> None:
    found = reading("[no, 580.10, '580.10', 0644]")
    assert found.raw == {(0,): "no", (1,): "580.10", (3,): "0644"}


def test_a_key_that_stands_twice_is_a_fault_at_the_second() -> None:
    assert fault("a: 1\nb: 2\na: 3\n") == (
        "i.yml:3:1: the key 'a' appears twice in this mapping\n  → the first is in line 1"
    )


def test_a_key_that_yaml_reads_as_a_boolean_is_explained() -> None:
    assert "the key on is read as a boolean" in fault("on: 1\n")


def test_all_faults_are_told_together_in_the_order_of_their_places() -> None:
    places = [
        line.split(": ")[0] for line in fault("a: 1\non: 2\na: !nope 3\nb: .nan\n").splitlines() if "→" not in line
    ]
    assert places == ["i.yml:2:1", "i.yml:3:1", "i.yml:4:4"]


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\ta: 1", "a: 'x", "--- 1\n--- 2", "a: *nowhere", "%", "\x01"])
def test_what_is_no_yaml_is_a_fault_with_a_place(text: str) -> None:
    assert fault(text).startswith("i.yml:")


def test_a_tab_is_explained() -> None:
    assert "never with tabs" in fault("a:\n\tb: 1\n")


def test_secrets_are_references_with_their_place() -> None:
    found = reading("[!env TOKEN, !file key.txt, !command [pass, show, hf]]").data
    assert found == [
        SecretRef("env", "TOKEN", "i.yml:1:2", "/project"),
        SecretRef("file", "key.txt", "i.yml:1:14", "/project"),
        SecretRef("command", ("pass", "show", "hf"), "i.yml:1:29", "/project"),
    ]


@pytest.mark.parametrize(
    "text", ["!env", "!env [a]", "!command ls -l", "!command []", "!command [[a]]", "!file {a: b}"]
)
def test_a_secret_of_the_wrong_form_is_a_fault(text: str) -> None:
    assert " takes " in fault(f"a: {text}")


def test_an_unknown_tag_tells_the_nearest_one() -> None:
    assert "did you mean !env?" in fault("a: !envv X")
    assert "!!python/object/apply:os.system" in fault("a: !!python/object/apply:os.system [ls]")


def test_merge_keys_fill_in_what_is_not_said() -> None:
    found = reading("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\n")
    assert found.data["y"] == {"a": 1, "b": 3}
    assert found.where(("y", "a")) == "i.yml:1:11"


def test_an_alias_keeps_the_place_of_its_anchor() -> None:
    assert reading("x: &x [1]\ny: *x\n").where(("y", 0)) == "i.yml:1:8"


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{a: " * 50_000,
        "- " * 50_000,
        "a: &a [*a]",
        "a: &a {<<: *a}",
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)),
        "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 20)}]}}\n" for i in range(1, 30)),
        "[" + "1, " * 400_000 + "]",
        "x: 1\n" * 200_000,
    ],
    ids=["lists", "mappings", "dashes", "self", "self-merge", "bomb", "merge-bomb", "many", "twice"],
)
def test_hostile_files_end_in_a_fault_in_bounded_time(text: str) -> None:
    started = time.process_time()
    assert fault(text).startswith("i.yml:")
    assert time.process_time() - started < 15


def test_nesting_up_to_the_bound_is_read() -> None:
    depth = document.MAX_DEPTH - 1
    assert reading("[" * depth + "]" * depth).data is not None


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "big.yml"
    with file.open("wb") as handle:
        handle.truncate(1 << 32)
    with fails("declared-file-too-large"):
        read(file)


def test_a_file_that_is_not_utf8_is_told_by_line(tmp_path: Path) -> None:
    file = tmp_path / "latin.yml"
    file.write_bytes(b"a: 1\nb: \xe4\n")
    with fails("file-not-utf8"):
        read(file)


@pytest.mark.parametrize("name", ["nothing.yml", "."])
def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path, name: str) -> None:
    with fails("not-a-file" if name == "." else "file-unreadable") as caught:
        read(tmp_path / name)
    assert caught.value.where == str(tmp_path / name)


def test_an_endless_number_is_a_fault() -> None:
    assert "is no int" in fault("a: " + "9" * 10_000)
