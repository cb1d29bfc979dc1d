"""The node half of `command` with small real programs."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from sparkops.core.secrets import Secret
from sparkops.resources.command import Command
from sparkops.worker import dispatch
from sparkops.worker.calls import Refused
from sparkops.worker.kinds import command
from tests.errors import fails
from tests.worker.nodes import apply, call


def declared(**given: Any) -> Command:
    return Command(node="n1", name="some words", **given)


def test_a_failing_check_is_made_true_once(tmp_path: Path) -> None:
    one = declared(check=["test", "-e", f"{tmp_path}/f"], run=["touch", f"{tmp_path}/f"])
    assert apply(one) == ["ok"]
    assert apply(one) == []


def test_what_creates_a_path_runs_until_the_path_is_there(tmp_path: Path) -> None:
    one = declared(creates=f"{tmp_path}/f", run=["touch", f"{tmp_path}/f"])
    assert apply(one) == ["ok"]
    assert apply(one) == []


@pytest.mark.parametrize(
    ("given", "ok"),
    [({"stdout": "a b"}, True), ({"stdout": "a"}, False), ({"matches": "^a"}, True), ({"matches": "^b"}, False)],
)
def test_the_output_of_a_check_is_compared(given: dict[str, str], ok: bool) -> None:
    assert command.observe(declared(check=["echo", "a b"], **given).ask())["ok"] is ok


def test_a_check_that_hangs_is_unknown_and_its_children_are_gone() -> None:
    one = declared(check=["sh", "-c", "sleep 60 & sleep 60"], check_timeout=0.3)
    started = time.monotonic()
    answer = dispatch.look("command", one.id, one.ask())
    assert answer["$unknown"]["id"] == "program-timeout"
    assert time.monotonic() - started < 30


def test_a_check_whose_program_is_missing_fails_and_may_be_made_true() -> None:
    found = command.observe(declared(check=["/no/such/program"]).ask())
    assert found["ok"] is False
    assert found["why"]["args"]["output"] == "not installed"


def test_a_failure_carries_the_last_of_the_output() -> None:
    with fails("program-failed", Refused) as caught:
        apply(declared(check=["false"], run=["sh", "-c", "echo first; echo the reason >&2; exit 3"]))
    assert "first" in caught.value.detail


def test_a_program_that_takes_too_long_is_stopped() -> None:
    with fails("program-timeout", Refused):
        apply(declared(check=["false"], run=["sh", "-c", "sleep 60 & sleep 60"], timeout=0.3))


def test_a_program_that_leaves_the_check_failing_is_a_failure(tmp_path: Path) -> None:
    one = declared(check=["false"], run=["true"])
    args = {"kind": "command", "id": one.id, "ask": one.ask(), "before": {"ok": False}, "want": {"ok": True}}
    args["volatile"] = ["why"]
    after = dispatch.converge(call(), {**args, "action": "update", "act": {"run": ["true"], "timeout": 5}})
    assert after["found"]["ok"] is False
    why = one.explain(after["found"])
    assert why is not None
    assert why.text == "the program ended well, but false ended with status 1: no output"


def test_without_a_program_the_failing_check_is_the_answer() -> None:
    with fails("command-without-run", Refused):
        apply(declared(check=["false"]))


def test_a_cancelled_call_leaves_the_program_to_its_end(tmp_path: Path) -> None:
    cancelled = call()
    cancelled.stopping.set()
    one = declared(check=["false"], run=["sh", "-c", f"sleep 0.5; touch {tmp_path}/f"])
    with pytest.raises(Refused) as caught:
        command.converge(cancelled, one.ask(), {"ok": False}, {"ok": True}, {"run": list(one.run), "timeout": 5})
    assert caught.value.type == "cancelled"
    deadline = time.monotonic() + 20
    while not (tmp_path / "f").exists():
        assert time.monotonic() < deadline, "it was ended with the call"
        time.sleep(0.05)


def test_only_a_disruptive_command_interrupts() -> None:
    assert declared(check=["true"]).interrupting == frozenset()
    assert declared(check=["true"], disruptive=True).interrupting == {"ok"}


@pytest.mark.parametrize(
    ("given", "id"),
    [
        ({}, "command-without-check"),
        ({"check": "true"}, "not-a-list"),
        ({"check": ["a", Secret("x")]}, "secret-on-command-line"),
        ({"check": ["true"], "matches": "("}, "matches-not-regular-expression"),
        ({"creates": "rel"}, "path-not-absolute"),
        ({"check": ["true"], "timeout": 0}, "seconds-invalid"),
    ],
)
def test_declarations_that_cannot_work_are_refused(given: dict[str, Any], id: str) -> None:
    with fails(id):
        declared(**given)


@pytest.mark.parametrize(("state", "id"), [("stopping", "machine-goes-down"), ("degraded", "program-failed")])
def test_what_fails_while_the_machine_goes_down_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, id: str
) -> None:
    """systemctl says that the job was cancelled; an engine would be brought back for it, and what is declared held."""
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\necho {state}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(dispatch, "DOWN_SECONDS", 0.1)
    with fails(id, Refused) as caught:
        apply(declared(check=["false"], run=["false"]))
    assert (caught.value.type == "unknown") == (state == "stopping")
