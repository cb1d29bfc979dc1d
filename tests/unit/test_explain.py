"""`sparkops explain`: every id that a person can meet has its page."""

from __future__ import annotations

from typing import get_args

import pytest

from sparkops.cli.app import run
from sparkops.core import wording
from sparkops.lint.rules import rules
from sparkops.resources.expectation import Fault
from tests.unit.core.test_error_ids import uses


def explain(*words: str) -> int:
    return run(["explain", *words])


def test_a_rule_says_the_versions_in_which_it_is_in_force(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("align-block-over-batched-tokens") == 0
    assert "In force: 0.19.1 to 0.26.0" in capsys.readouterr().out


def test_an_error_is_explained_with_its_cause_and_its_fix(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("host-key-unknown") == 0
    text = capsys.readouterr().out
    assert "There is no switch that turns this off" in text
    assert "Fix: compare the fingerprint" in text
    assert "<fingerprint>" in text


def test_every_id_has_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain() == 0
    ids = capsys.readouterr().out.split()
    assert set(ids) == {*rules(), *wording.entries()}
    for each in ids:
        assert explain(each) == 0
        assert capsys.readouterr().out.startswith(each)


def test_every_id_that_can_be_shown_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    catalogue = {id for _, id, _ in uses()}
    faults = {f"driver.version-{fault}" for fault in (*get_args(Fault), "absent")}
    for each in {*rules(), *catalogue, *faults, "gpu.absent", "sysctl-overridden:vm.swappiness"}:
        assert explain(each) == 0, each
        assert capsys.readouterr().out


def test_an_unknown_id_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("host-key-unknow") == 1
    assert "error[id-unknown]" in (shown := capsys.readouterr().err)
    assert "did you mean host-key-unknown?" in shown
