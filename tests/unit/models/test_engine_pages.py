"""A page of differences composes to the complete version, and what it gets wrong about its base is an error."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparkops.models.engine import engine, versions
from sparkops.models.engine_pages import composed, engine_content
from tests.errors import fails
from tools.engine_page import difference, page, written

BASE = {"flags": {"pair": "a b", "text": "x"}, "defaults": {"a": 1}, "words": "auto fp8 None", "list": [1]}


@pytest.mark.parametrize("version", versions()[1:])
def test_the_difference_to_any_other_version_composes_to_it(version: str) -> None:
    for other in set(versions()) - {version}:
        base, wanted = engine_content(other, None), engine_content(version, None)
        assert composed(base, difference(base, wanted)) == wanted
        assert composed(base, yaml.safe_load(written(difference(base, wanted)))) == wanted


def test_a_bundled_page_is_what_the_tool_writes() -> None:
    folder = Path(__file__).parents[3] / "knowledge" / "engines"
    for before, version in itertools.pairwise(versions()):
        text = (folder / f"{version}.yml").read_text()
        assert yaml.safe_load(page(before, engine_content(version, None))) == yaml.safe_load(text)
        assert len(text.splitlines()) <= 180


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        ({}, {}),
        ({"flags": {"pair": {"add": "ab", "remove": "b"}}}, {"flags": {"pair": "a ab", "text": "x"}}),
        ({"words": {"add": "bf16"}}, {"words": "auto bf16 fp8 None"}),
        ({"words": "z a"}, {"words": "z a"}),
        ({"list": [2]}, {"list": [2]}),
        ({"defaults": {"b": 2, "a": None}}, {"defaults": {"b": 2}}),
        ({"flags": {"json": "j"}, "new": {"k": "v"}}, {"flags": {**BASE["flags"], "json": "j"}, "new": {"k": "v"}}),
    ],
)
def test_a_change_touches_only_what_it_names(changes: dict[str, Any], result: dict[str, Any]) -> None:
    assert composed(BASE, changes) == {**BASE, **result}


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"flags": {"pair": {"add": "b"}}}, "flags.pair: b: added"),
        ({"flags": {"pair": {"remove": "c"}}}, "flags.pair: c: removed"),
        ({"flags": {"pair": {"also": "c"}}}, "flags.pair is a list of words"),
        ({"defaults": {"c": None}}, "defaults.c is removed"),
        ({"new": {"c": None}}, "new.c is removed"),
    ],
)
def test_a_change_that_does_not_fit_the_base_is_refused(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(ValueError, match=place):
        composed(BASE, changes)


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("based_on: '0.33.0'\nversion: '0.20.0'\n", "engine-base-invalid"),
        ("based_on: '0.19.0'\nversion: '0.20.0'\n", "engine-base-invalid"),
        ("based_on: '0.19.1'\nshort: {zz: null}\n", "engine-page-invalid"),
        ("- x\n", "knowledge-file-not-mapping"),
        ("a: [\n", "knowledge-file-invalid"),
    ],
)
def test_a_page_that_cannot_be_composed_is_named(tmp_path: Path, text: str, id: str) -> None:
    (tmp_path / "knowledge" / "engines").mkdir(parents=True)
    (tmp_path / "knowledge" / "engines" / "0.20.0.yml").write_text(text)
    with fails(id) as error:
        engine("0.20.0", tmp_path)
    assert "0.20.0.yml" in str(error.value.where)
