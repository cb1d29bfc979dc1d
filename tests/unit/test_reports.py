"""The one Report, rendered: what a person sees, what the JSON contract holds, and which exit status follows."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from docs.generate import DOCS
from sparkops.core.events import StepFinished, StepProgress
from sparkops.core.plan import FOR_GC, Orphan, Plan, Step, Violation
from sparkops.core.report import Report, Result
from sparkops.core.states import Unknown
from sparkops.core.wording import Message, duration, size
from sparkops.reports.alike import grouped
from sparkops.reports.json import as_json
from sparkops.reports.plain_progress import Lines, amount
from sparkops.reports.text import render

STEP = Step(
    id="unit q.service @a",
    kind="unit",
    node="a",
    action="update",
    before={"running": True, "inputs": "old"},
    after={"running": True, "inputs": "new"},
    changes=("inputs",),
    disruptive=True,
    service="q",
    diff="--- a\n+++ b\n-x\n+y\n",
)


def said(text: str, fix: str = "") -> Message:
    """Words of a test."""
    return Message.of("error", text=text, fix=fix)


SILENT = said("no answer")
BAD = Violation(
    message=Message.of("fact-present", fact="driver", value="bad", reason="", remedy=""),
    key="driver.version-denied",
    resource="require gpu @a",
    node="a",
    severity="error",
)


def report(command: Any = "plan", **more: Any) -> Report:
    plan = more.pop("plan", Plan(nodes=("a",), total=3, **{key: more.pop(key) for key in PLAN & more.keys()}))
    return Report(command=command, cluster="attic", inventory="inventory.yml", plan=plan, **more)


PLAN = {"steps", "violations", "unknown", "unreachable", "blocked", "notices"}


def text(shown: Report, verbose: int = 0) -> str:
    out = io.StringIO()
    render(shown, Console(file=out, no_color=True, width=200, highlight=False, markup=False), verbose=verbose)
    return out.getvalue()


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        (report(), 0),
        (report(steps=(STEP,)), 2),
        (report(violations=(BAD,)), 2),
        (report(unknown={"x @a": Unknown.of("not-answered")}), 3),
        (report(unreachable={"a": SILENT}), 3),
        (report(steps=(STEP,), unreachable={"b": SILENT}), 2),
        (report("apply", steps=(STEP,), results=(Result(id=STEP.id, node="a", outcome="done"),)), 0),
        (report("apply", steps=(STEP,), results=(Result(id=STEP.id, node="a", outcome="failed"),)), 4),
        (report("apply", steps=(STEP,), declined=True), 2),
        (report("apply", steps=(STEP,), interrupted=True), 130),
        (report("apply", unreachable={"a": SILENT}), 3),
    ],
)
def test_the_exit_status_is_that_of_the_table(shown: Report, status: int) -> None:
    assert shown.exit_status == status


def test_what_interrupts_a_service_is_marked() -> None:
    assert "interrupts q" in text(report(steps=(STEP,)))


def test_a_diff_stands_below_its_step() -> None:
    shown = text(report(steps=(STEP,)))
    assert shown.index("q.service") < shown.index("-x") < shown.index("+y")


def test_a_violation_is_told_with_its_remedy() -> None:
    from dataclasses import replace

    assert "→ do this" in text(report(violations=(replace(BAD, message=said("bad", "do this")),)))


def test_a_failure_is_told_with_the_way_out_and_its_material() -> None:
    failed = Result(
        id=STEP.id,
        node="a",
        outcome="failed",
        reason=said("it broke", "mend it"),
        detail="last line",
    )
    shown = text(report("apply", steps=(STEP,), results=(failed,)))
    assert "it broke" in shown
    assert "→ mend it" in shown
    assert "| last line" in shown


def test_what_a_node_says_can_not_drive_the_terminal() -> None:
    shown = text(report(unknown={"x @a": Unknown.of("error", text="\x1b[2J\x07gone", fix="")}))
    assert "\x1b" not in shown
    assert "gone" in shown


def test_an_apply_tells_what_was_left_because_it_was_unknown() -> None:
    shown = text(report(command="apply", unknown={"file /x @a": Unknown.of("error", text="it is no folder", fix="")}))
    assert "file /x @a  unknown: it is no folder" in shown


def test_the_json_has_the_documented_keys_and_is_plain() -> None:
    shown = json.loads(json.dumps(as_json(report(steps=(STEP,), violations=(BAD,)))))
    assert shown["schema"] == "sparkops.report/2"
    page = (DOCS / "formats.md").read_text()
    documented = set(re.findall(r"`([a-z_]+)(?:\[\])?`", page))
    assert set(shown) - {"schema"} <= documented
    assert set(shown["steps"][0]) <= documented
    assert set(shown["violations"][0]) <= documented


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (StepProgress(node="a", id="x", done=1.5e9, total=71e9, text="shard 3"), "1.5 GB of 71.0 GB, shard 3"),
        (StepProgress(node="a", id="x", done=3, total=14, unit="files"), "3 of 14 files"),
        (StepProgress(node="a", id="x", text="waiting"), "waiting"),
    ],
)
def test_progress_in_words(event: StepProgress, words: str) -> None:
    assert amount(event) == words


def test_rate_and_time_left_are_told() -> None:
    event = StepProgress(node="a", id="x", done=1e9, total=2e9)
    assert amount(event, 1e8) == "1.0 GB of 2.0 GB, 100.0 MB/s, 10 s left"
    assert (size(999), size(1e12), duration(3700)) == ("999 B", "1.0 TB", "1 h 1 min")


def test_what_is_wrong_alike_on_several_nodes_is_told_once() -> None:
    from dataclasses import replace

    plan = Plan(nodes=("a", "b", "c"), total=3, violations=tuple(replace(BAD, node=node) for node in "ab"))
    shown = text(report(plan=plan))
    assert shown.count("✗ driver.version-denied") == 1
    assert shown.startswith("a, b\n")


def test_what_is_not_attempted_stands_below_its_reason_without_details() -> None:
    other = Step(id="file /x @a", kind="file", node="a", action="create", before=None, after={}, changes=())
    plan = Plan(
        nodes=("a",),
        total=2,
        steps=(STEP, other),
        blocked=dict.fromkeys((STEP.id, other.id), said("bad driver")),
    )
    shown = text(report(plan=plan))
    assert shown.count("not attempted: bad driver") == 1
    assert "+y" not in shown
    assert "+y" in text(report(plan=plan), verbose=1)


def test_of_what_is_created_its_name_and_what_it_is_not_are_left_out() -> None:
    after = {"name": "/x", "masked": False, "mode": "0644", "digest": "0123456789ab" * 5 + "0123"}
    made = Step(
        id="file /x @a", kind="file", node="a", action="create", before=None, after=after, changes=tuple(after),
        diff="--- /dev/null\n+++ /x\n@@ -0,0 +1 @@\n+text\n",
    )  # fmt: skip
    shown = text(report(steps=(made,))).splitlines()
    assert shown[1:3] == ["  + file /x  mode: 0644, digest: 0123456789ab…", "      +text"]


def test_keys_that_change_alike_stand_together() -> None:
    step = Step(
        id="unit q @a", kind="unit", node="a", action="update", before={"enabled": False, "running": False},
        after={"enabled": True, "running": True}, changes=("enabled", "running"),
    )  # fmt: skip
    assert "enabled, running: no → yes" in text(report(steps=(step,)))


def test_what_was_not_attempted_is_told_once_for_each_reason() -> None:
    skipped = [
        Result(
            id=f"file /{each} @a",
            node="a",
            outcome="not-attempted",
            reason=said("the image failed"),
        )
        for each in "xy"
    ]
    shown = text(report("apply", steps=(STEP,), results=tuple(skipped), unreachable={"b": SILENT}))
    assert shown.count("not attempted: the image failed") == 1
    assert "    file /x @a\n    file /y @a\n" in shown
    assert "2 not attempted, 1 node unreachable" in shown


def test_while_a_run_goes_on_only_the_beginning_of_a_reason_is_told() -> None:
    told: list[str] = []
    why = "the file: " + "of no end, " * 30
    Lines(told.append)(StepFinished(node="n", id="file /x @n", outcome="failed", seconds=1.0, reason=said(why)))
    Lines(told.append)(
        StepFinished(
            node="n",
            id="file /x @n",
            outcome="failed",
            seconds=1.0,
            reason=said("a short one"),
        )
    )
    assert told[0].startswith("✗ file /x @n (1.0 s): the file: of no end,") and told[0].endswith("…")
    assert len(told[0]) < 140
    assert told[1].endswith(": a short one")


def step(node: str, **more: Any) -> Step:
    from dataclasses import replace

    return replace(STEP, id=f"unit q.service @{node}", node=node, **more)


def test_nodes_on_which_the_same_would_change_are_told_together_and_others_apart() -> None:
    nodes = ("a", "a-2", "b", "c", "d")
    steps = (*(step(node) for node in ("a", "a-2", "b")), step("c", changes=("running",)))
    shown = text(report(plan=Plan(nodes=nodes, total=5, steps=steps, blocked={steps[0].id: said("x @a")})))
    assert shown.startswith("a\n")
    assert "\na-2, b\n" in shown and "\nc\n" in shown and "\nd\n" not in shown
    assert shown.count("unit q.service") == 3
    blocked = {each.id: said(f"the image failed: image i @{each.node}") for each in steps[:3]}
    alike = text(report(plan=Plan(nodes=nodes[:3], total=3, steps=steps[:3], blocked=blocked)))
    assert alike.startswith("a, a-2, b\n") and alike.count("the image failed: image i\n") == 1


@given(st.lists(st.sampled_from(["a", "b", "ab", "a.b", "a-b"]), unique=True, min_size=1), st.integers(0, 1))
def test_grouping_nodes_loses_none(nodes: list[str], verbose: int) -> None:
    plan = Plan(nodes=tuple(nodes), total=len(nodes), steps=tuple(step(node) for node in nodes))
    head = text(report(plan=plan), verbose=verbose).splitlines()[0]
    assert head.split(", ") == nodes


def orphan(kind: str, name: str, **more: Any) -> Orphan:
    return Orphan(id=f"{kind} {name} @a", node="a", kind=kind, name=name, service="tiny", **more)


def test_what_gc_is_for_is_one_line_a_node_and_what_nobody_can_act_on_is_none() -> None:
    left = [orphan("image", f"x:{number}", kept=Message.of(FOR_GC, kind="image")) for number in "123"]
    left += [orphan("checkpoint", "/m", kept=Message.of(FOR_GC, kind="checkpoint"))]
    left += [orphan("image", "mine", kept=Message.of("orphan-there-before", hint=None))]
    shown = text(report(plan=Plan(nodes=("a",), orphans=tuple(left))))
    assert "1 checkpoint, 3 images  no longer declared; `sparkops gc` shows which of them can go" in shown
    assert shown.count("no longer declared") == 1 and "mine" not in shown
    assert "image mine" in text(report(plan=Plan(nodes=("a",), orphans=tuple(left))), verbose=1)
    quiet = Plan(nodes=("a",), orphans=tuple(left[-1:]))
    assert len(text(report(plan=quiet)).splitlines()) == 1
    assert "no longer" not in text(report("apply", plan=Plan(nodes=("a",), orphans=tuple(left)))), "the plan told it"


def test_the_lines_that_accept_a_judgement_can_be_pasted() -> None:
    from dataclasses import replace

    odd = replace(BAD, key="link:a b", node="b")
    shown = text(report(violations=(BAD, odd, replace(BAD, key="known", accepted="yes"))))
    block = shown.partition("`accept:`")[2].partition("\n")[2].partition("attic")[0]
    assert [each["id"] for each in yaml.safe_load(block)] == ["driver.version-denied", "link:a b"]


NODES = ("a", "b", "a.b", "spark-1", "spark-11")


@given(
    st.lists(st.sampled_from(NODES), min_size=1), st.sampled_from(["{}: a drop-in", "unit x @{} is a.b's", "of {}."])
)
def test_a_notice_of_several_nodes_is_one_line_that_names_each(where: list[str], words: str) -> None:
    (line,) = grouped([words.format(node) for node in where], NODES)
    assert line.startswith(words.format(where[0]))
    told = line.removeprefix(words.format(where[0]))
    assert all(node == where[0] or node in told for node in where)


def test_notices_that_differ_otherwise_stay_apart() -> None:
    told = ["a: x", "b: y", "a: x", "nothing of nodes"]
    assert list(grouped(told, NODES)) == ["a: x", "b: y", "nothing of nodes"]
    assert list(grouped(told[:1], ())) == ["a: x"]


def test_what_an_interruption_costs_stands_where_it_is_announced() -> None:
    slow = dataclasses.replace(STEP, outage_seconds=21.2)
    other = dataclasses.replace(STEP, id="unit q.service @b", node="b", outage_seconds=9.0)
    shown = text(report(plan=Plan(nodes=("a", "b"), total=3, steps=(slow, other))))
    assert "interrupts q (its last start took 21 s)" in shown.splitlines()[-1]
    assert "interrupts q (its last start took 9 s)" in shown
    assert as_json(report(steps=(slow,)))["steps"][0]["outage_seconds"] == 21.2
    assert "last start" not in text(report(steps=(STEP,)))


# The gate's figures


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"speed": None, "canaries": 0, "tool_call": False, "acceptance_length": None}, ""),
        (
            {"speed": 38.26, "sm_clock_mhz": 2281.0, "power_watts": 60.5, "before": None, "canaries": 1},
            "38.3 tokens/s at 2281 MHz, 60.5 W, the first that was measured; 1 canary right",
        ),
        (
            {
                "speed": 38.0,
                "hardware_why": "nvidia-smi gives no power_watts",
                "before": {"speed": 40.0, "sm_clock_mhz": 2281.0, "power_watts": None},
                "acceptance_length": 2.314,
                "canaries": 2,
                "tool_call": True,
            },
            "38.0 tokens/s, 95% of 40.0 at 2281 MHz before; nvidia-smi gives no power_watts; 2.31 tokens per step; "
            "2 canaries right; tool call right",
        ),
    ],
)
def test_what_a_gate_measured_is_told_in_a_line(found: dict[str, Any], told: str) -> None:
    one = Result(id="gate q @a", node="a", outcome="done", found={"passed": True, **found})
    lines = text(report("apply", results=(one,)), verbose=0).splitlines()
    assert [each for each in lines if "gate: " in each] == ([f"q @a  gate: {told}"] if told else [])
