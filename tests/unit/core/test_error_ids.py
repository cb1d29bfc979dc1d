"""Every id that the sources use has its words and gets the arguments that these name; no words are left without use."""

from __future__ import annotations

import ast
import dataclasses
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparkops
from sparkops import resources
from sparkops.core import wording
from sparkops.core.errors import InventoryError, SparkopsError

ROOT = Path(sparkops.__file__).parent
CALLS = ("of", "notice", "notice_of", "reason", "as_reason", "_failing")
NOT_ARGUMENTS = {"where", "front_end", "type", "detail"}


def uses() -> Iterator[tuple[str, str, set[str] | None]]:
    """(place, id, names of arguments or None where they are not written out) of each error that is made by its id."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, (ast.Attribute, ast.Name)) or not node.args:
                continue
            first, name = node.args[0], node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if name in CALLS and isinstance(first, ast.Constant) and isinstance(first.value, str):
                names = {each.arg for each in node.keywords if each.arg}
                spread = any(each.arg is None for each in node.keywords) or len(node.args) > 1
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                if name == "notice":
                    names.add("folder")  # a program's notices of its folder get it from their one sender
                yield place, first.value, None if spread else names - NOT_ARGUMENTS


def named(entry: wording.Entry) -> set[str]:
    """The arguments that an entry's words name."""
    texts = (entry.message, entry.fix, entry.fix_command)
    return {name for text in texts for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_id_has_its_words_and_its_arguments() -> None:
    for place, id, names in uses():
        entry = wording.entries().get(id)
        assert entry is not None, f"{place}: {id} is not in knowledge/errors"
        if names is not None:
            assert named(entry) <= names, f"{place}: {id} lacks {named(entry) - names}"


def test_no_words_are_left_without_use() -> None:
    text = "\n".join(path.read_text() for path in ROOT.rglob("*.py"))
    assert [id for id in wording.entries() if f'"{id}"' not in text] == []


def test_every_message_has_a_cause() -> None:
    assert [entry.id for entry in wording.entries().values() if not entry.cause] == []


def test_every_text_can_be_made_from_values_of_its_formats() -> None:
    samples = {"bytes": 4_200_000_000, "seconds": 90.0, "list": ["a", "b"], "g": 2.5, ".0f": 2.5}
    for entry in wording.entries().values():
        parsed = [
            each for text in (entry.message, entry.fix, entry.fix_command) for each in string.Formatter().parse(text)
        ]
        args = {name: samples.get(spec or "", "value") for _, name, spec, _ in parsed if name}
        for front_end in ("inventory", "command"):
            for text in wording.words(entry.id, args, front_end):
                assert "not given" not in text, entry.id


@pytest.mark.parametrize("folder", ["core", "compile", "reconcile"])
def test_no_argument_in_the_core_is_a_sentence(folder: str) -> None:
    for path in (ROOT / folder).glob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        made = [node for node in calls if isinstance(node.func, ast.Attribute) and node.func.attr in ("of", "add")]
        args = [each.value for node in made for each in node.keywords if each.arg not in NOT_ARGUMENTS]
        texts = [each.value for arg in args for each in ast.walk(arg) if isinstance(each, ast.Constant)]
        assert [text for text in texts if isinstance(text, str) and len(text.split()) > 1] == [], path.name


@pytest.mark.parametrize("error", [SparkopsError, InventoryError])
def test_no_error_can_be_made_of_a_text_alone(error: type[SparkopsError]) -> None:
    with pytest.raises(TypeError):
        error("a text")  # type: ignore[call-arg]


def test_every_collected_fault_is_named_by_an_id() -> None:
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and re.fullmatch(r"(self\.)?faults\.add", ast.unparse(node.func)):
                id = node.args[0]
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                assert isinstance(id, ast.Name) or (isinstance(id, ast.Constant) and id.value in wording.entries()), (
                    place
                )


@pytest.mark.parametrize("name", resources.names())
def test_a_kind_has_ids_and_no_words_of_its_own(name: str) -> None:
    kind = resources.kind(name)
    values = {each.name for each in dataclasses.fields(kind)}
    own = {key: each for key, each in vars(kind).items() if key not in values and not key.startswith("__")}
    texts = {key: each for key, each in own.items() if isinstance(each, str)}
    assert {key: each for key, each in texts.items() if " " in each} == {}
    assert {kind.removed_by, kind.released_by} <= {"", *wording.entries()}
    assert kind.removed_by or kind.prune != "keep" or not kind.claimed


COUNTED = re.compile(
    r"\{\w+\} (?:times|files|nodes|jobs|lines|restarts|tensors|images|links|layers|things|steps|units|services)\b"
)


def test_what_is_counted_is_counted_by_the_format_that_knows_one() -> None:
    texts = {entry.id: f"{entry.message} {entry.fix}" for entry in wording.entries().values()}
    assert {id: found[0] for id, text in texts.items() if (found := COUNTED.findall(text))} == {}


@pytest.mark.parametrize(("number", "words"), [(0, "0 restarts"), (1, "1 restart"), (2, "2 restarts")])
def test_one_is_not_many(number: int, words: str) -> None:
    args = {"unit": "q.service", "state": "failed", "result": "x", "restarts": number}
    assert words in wording.words("unit-not-running", args)[0]
