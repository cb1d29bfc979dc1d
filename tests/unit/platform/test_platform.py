"""The bundled verdicts are of their schema, and the most specific match counts."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core.data import bundled
from sparkops.core.errors import InventoryError
from sparkops.models import platform


@pytest.fixture
def known() -> platform.Platform:
    return platform.load()


def test_the_bundled_knowledge_is_of_its_schema() -> None:
    folder = bundled("knowledge")
    schema = json.loads((folder / "platform.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load((folder / "platform.yml").read_text()), schema)


@pytest.mark.parametrize("version", ["580.95.05", "580.126.09", "580.142", "580.159.03", "580.173.02"])
def test_the_drivers_that_were_seen_serving_are_accepted_as_verified(known: platform.Platform, version: str) -> None:
    verdict = known.verdict("driver", version)
    assert (verdict.word, verdict.certainty, verdict.match) == ("accept", "verified", version)


@pytest.mark.parametrize(
    ("component", "version", "word", "certainty"),
    [
        ("driver", "580.178.04", "accept", "unverified"),
        ("driver", "590.48.01", "deny", "contradictory"),
        ("driver", "595.10", "warn", "unverified"),
        ("driver", "610.1", "warn", "unverified"),
        ("driver", "570.86.15", "warn", "unverified"),
        ("kernel", "6.17.0-1008-nvidia", "deny", "unverified"),
        ("kernel", "6.17.0-1031-nvidia", "accept", "verified"),
        ("kernel", "6.17.0-1014-nvidia", "accept", "unverified"),
        ("kernel", "7.0.0-1019-nvidia", "deny", "unverified"),
        ("kernel", "6.1.0-9-amd64", "warn", "unverified"),
        ("cuda", "13.0", "accept", "verified"),
        ("firmware", "5.36_0ACUM023", "accept", "unverified"),
    ],
)
def test_what_is_known_of_a_version(
    known: platform.Platform, component: str, version: str, word: str, certainty: str
) -> None:
    verdict = known.verdict(component, version)
    assert (verdict.word, verdict.certainty) == (word, certainty)


def test_every_verdict_is_reachable_by_a_version_of_its_own(known: platform.Platform) -> None:
    for component in known.components.values():
        matches = [each.match for each in component.verdicts]
        assert len(set(matches)) == len(matches), component.name


def test_the_inventory_accepts_a_denied_branch_by_naming_it(known: platform.Platform) -> None:
    assert known.component("driver").judge("590.48.01", accept=["590.*"]).word == "accept"


def test_a_wide_accept_does_not_overrule_what_is_known_of_one_branch(known: platform.Platform) -> None:
    assert known.component("driver").judge("590.48.01", accept=["*"]).word == "deny"


def test_the_inventory_denies_what_is_known_as_good(known: platform.Platform) -> None:
    assert known.component("driver").judge("580.95.05", deny=["580.95.05"]).word == "deny"


def test_between_equals_the_inventory_denies_before_it_accepts(known: platform.Platform) -> None:
    assert known.component("driver").judge("580.142", accept=["580.142"], deny=["580.142"]).word == "deny"


@given(st.text("0123456789.", min_size=1, max_size=12))
def test_a_literal_version_is_at_least_as_specific_as_any_glob_of_it(version: str) -> None:
    globs = [version[:length] + "*" for length in range(len(version) + 1)]
    assert platform.most_specific([*reversed(globs), version], version) in (0, len(globs))
    assert platform.specificity(version) == max(platform.specificity(glob) for glob in globs)


def test_a_component_that_no_one_knows_is_named_with_the_known_ones(known: platform.Platform) -> None:
    with pytest.raises(InventoryError) as error:
        known.component("drivers")
    assert "driver" in error.value.hint


def test_a_file_of_another_shape_is_refused_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "platform.yml"
    file.write_text("components: {driver: {title: x}}\n")
    with pytest.raises(InventoryError) as error:
        platform.load(file)
    assert error.value.where == str(file)
