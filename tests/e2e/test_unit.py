"""Units on a real systemd."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from sparkops.resources.unit import Unit, inputs_lines
from tests.e2e.applying import Applying, applying
from tests.e2e.conftest import until
from tests.lab.lab import Lab
from tests.lab.node import Node

HUNG = "/usr/local/sbin/systemctl"
CLEAR = f"""
rm -f {HUNG}
cd /etc/systemd/system
systemctl disable --now $(ls | grep '^lab-.*service$')
rm -rf lab-*.service* /run/sparkops/units /run/one /run/two
systemctl daemon-reload
systemctl reset-failed
"""


@pytest.fixture(scope="module")
def road(lab: Lab, machine: Node) -> Iterator[Applying]:
    with applying(lab, [machine.name], "unit") as found:
        yield found


@pytest.fixture
def node(machine: Node) -> Iterator[Node]:
    """That node; the units of a test are gone after it."""
    yield machine
    machine.exec("sh", "-c", CLEAR, check=False)


def sleeper(node: Node, inputs: str = "one", comment: str = "", **more: object) -> Unit:
    lines = "\n".join(inputs_lines(inputs))
    text = f"# {comment}\n[Service]\nExecStart=/bin/sleep 1000\n{lines}\n[Install]\nWantedBy=multi-user.target\n"
    given = {"content": text, "enabled": True, "running": True, "inputs": inputs, **more}
    return Unit(node=node.name, name="lab-sleeper.service", **given)  # type: ignore[arg-type]


def pid(node: Node, name: str = "lab-sleeper.service") -> str:
    return node.text("systemctl", "show", "-P", "MainPID", name)


def state(node: Node, name: str) -> str:
    return node.text("systemctl", "show", "-P", "ActiveState", name)


def test_a_unit_is_made_kept_reloaded_restarted_and_removed(node: Node, road: Applying) -> None:
    road.settle(sleeper(node))
    first = pid(node)
    assert first != "0"
    assert node.text("systemctl", "is-enabled", "lab-sleeper.service") == "enabled"

    changed = sleeper(node, comment="other text, same inputs")
    (step,) = road.plan(changed).steps
    assert step.changes == ("content",)
    assert not step.disruptive
    assert "+# other text, same inputs" in step.diff
    road.settle(changed)
    assert pid(node) == first
    assert node.text("systemctl", "show", "-P", "NeedDaemonReload", "lab-sleeper.service") == "no"

    other = sleeper(node, inputs="two")
    (step,) = road.plan(other).steps
    assert step.disruptive
    road.settle(other)
    assert pid(node) != first

    road.settle(sleeper(node, state="absent"))
    assert not node.exists("/etc/systemd/system/lab-sleeper.service")
    assert pid(node) == "0"


def test_stops_by_people_do_not_use_up_the_starts_of_a_unit(node: Node, road: Applying) -> None:
    unit = sleeper(node)
    limited = replace(unit, content=f"[Unit]\nStartLimitIntervalSec=3600\nStartLimitBurst=2\n{unit.content}")
    road.settle(limited)
    for _ in range(4):
        node.exec("systemctl", "stop", unit.name)
        road.settle(limited)
    assert node.text("systemctl", "is-active", unit.name) == "active"


def test_a_crash_between_write_and_restart_is_repaired_by_the_next_run(node: Node, road: Applying) -> None:
    road.settle(sleeper(node))
    other = sleeper(node, inputs="two")
    assert other.content is not None
    node.write("/etc/systemd/system/lab-sleeper.service", str(other.content).encode())

    (step,) = road.plan(other).steps
    assert step.changes == ("reload_needed", "inputs")
    road.settle(other)


def test_a_unit_without_a_process_tells_its_inputs_too(node: Node, road: Applying) -> None:
    def oneshot(inputs: str) -> Unit:
        lines = "\n".join(inputs_lines(inputs, main_process=False))
        text = f"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/touch /run/{inputs}\n{lines}\n"
        return Unit(node=node.name, name="lab-once.service", content=text, running=True, inputs=inputs)

    road.settle(oneshot("one"))
    (step,) = road.plan(oneshot("two")).steps
    assert "inputs" in step.changes
    road.settle(oneshot("two"))
    assert node.exists("/run/two")


def test_a_masked_stopped_or_crashed_unit_is_brought_back(node: Node, road: Applying) -> None:
    road.settle(sleeper(node))
    node.exec("systemctl", "kill", "-s", "KILL", "lab-sleeper.service")
    until(lambda: state(node, "lab-sleeper.service") == "failed")
    plan = road.plan(sleeper(node))
    assert set(plan.steps[0].changes) == {"running", "failed"}
    road.settle(sleeper(node))

    node.exec("systemctl", "disable", "--now", "lab-sleeper.service")
    road.settle(sleeper(node))

    sync = Unit(node=node.name, name="systemd-timesyncd.service", running=False, masked=True)
    road.settle(sync)
    assert node.text("systemctl", "show", "-P", "LoadState", "systemd-timesyncd.service") == "masked"
    road.settle(Unit(node=node.name, name="systemd-timesyncd.service", masked=False))


def test_a_crash_loop_fails_with_the_units_own_words_and_heals(node: Node, road: Applying) -> None:
    def looping(command: str) -> Unit:
        text = (
            "[Unit]\nStartLimitIntervalSec=600\nStartLimitBurst=2\n[Service]\nType=exec\n"
            f"ExecStart={command}\nRestart=always\nRestartSec=100ms\n"
        )
        return Unit(node=node.name, name="lab-loop.service", content=text, running=True)

    bad = looping("/bin/sh -c 'echo no kernel image; exit 3'")
    road.apply(bad)
    until(lambda: state(node, "lab-loop.service") == "failed")
    plan = road.plan(bad)
    assert "failed" in plan.steps[0].changes
    why = bad.explain(plan.steps[0].before)
    assert why is not None and why.args["unit"] == "lab-loop.service"
    road.settle(looping("/bin/sleep 1000"))


def test_a_start_that_fails_says_why(node: Node, road: Applying) -> None:
    text = (
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'echo the engine is out of order; exit 3'\n"
    )
    (result,) = road.apply(Unit(node=node.name, name="lab-bad.service", content=text, running=True))
    assert result.outcome == "failed"
    assert result.reason.id == "unit-verb-failed"
    assert "the engine is out of order" in result.detail


def test_a_foreign_drop_in_is_said_and_left_alone(node: Node, road: Applying) -> None:
    road.settle(sleeper(node))
    node.write("/etc/systemd/system/lab-sleeper.service.d/mine.conf", b"[Service]\nNice=5\n")
    plan = road.plan(sleeper(node))
    assert "unit-drop-in-foreign" in [each.id for each in plan.violations]
    road.settle(sleeper(node))
    assert node.exists("/etc/systemd/system/lab-sleeper.service.d/mine.conf")


def test_a_unit_that_the_node_lacks_may_be_declared_off_but_not_on(node: Node, road: Applying) -> None:
    off = Unit(node=node.name, name="no-such.service", enabled=False, running=False)
    assert road.plan(off).steps == ()
    (result,) = road.apply(Unit(node=node.name, name="no-such.service", running=True))
    assert result.outcome == "failed"


@pytest.mark.slow  # the 20 s that systemctl gets; tests/worker/test_unit.py has the same of any program
def test_a_systemd_that_hangs_makes_the_answer_unknown(node: Node, road: Applying) -> None:
    node.write(HUNG, b"#!/bin/sh\nexec sleep 100\n", mode=0o755)
    plan = road.plan(sleeper(node))
    assert plan.steps == ()
    assert next(iter(plan.unknown.values())).id == "program-timeout"
