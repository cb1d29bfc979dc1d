"""Which changes are told, when, and only once: a pure function of reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sparkops.core.plan import Plan
from sparkops.core.report import Report
from sparkops.core.states import Unknown
from sparkops.watching.edges import Edges, advanced
from tests.unit.reports.made import declared, report, said, step

MOVED = step("file /etc/motd @a", "a")


def look(time: float, sight: str = "gone") -> Report:
    """A look at node a in which a difference is there, gone, unseen (its node silent), or unknown."""
    plan: dict[str, Any] = {
        "there": {"steps": (MOVED,)},
        "gone": {},
        "silent": {"unreachable": {"a": said("silent")}},
        "other": {"unreachable": {"a": Unknown.of("session-closed")}},
        "unknown": {"unknown": {MOVED.id: Unknown.of("session-closed")}},
    }[sight]
    things = tuple(declared("a"))
    return Report(
        command="drift",
        cluster="words",
        inventory="i",
        plan=Plan(declared=things, nodes=("a",), total=1, **plan),
        time=time,
    )


def told(sights: Sequence[str], hold: float = 0.0) -> list[tuple[float, str, str]]:
    """The changes of looks a minute apart; the state goes through a file between two."""
    edges, found = Edges(), []
    for number, sight in enumerate(sights):
        edges, changes = advanced(edges, look(60.0 * number, sight), hold)
        edges = Edges.from_json(json.loads(json.dumps(edges.as_json())))
        found += [(60.0 * number, each["change"], each["finding"]["state"]) for each in changes]
    return found


def test_a_difference_is_told_once_and_its_end_once() -> None:
    assert told(["gone", "there", "there", "gone", "gone"]) == [(60, "appeared", "drifted"), (180, "went", "drifted")]


def test_what_flickers_within_the_hold_time_is_not_told() -> None:
    assert told(["there", "gone", "there", "gone"], hold=60) == []
    assert told(["there", "there", "gone", "there", "gone", "gone"], hold=60) == [
        (60, "appeared", "drifted"),
        (300, "went", "drifted"),
    ]


def test_a_clock_that_was_ahead_delays_a_finding_by_the_hold_time_at_most() -> None:
    edges, _ = advanced(Edges(), look(10_000_000, "there"), 60)
    edges, early = advanced(edges, look(1000, "there"), 60)
    _, changes = advanced(edges, look(1060, "there"), 60)
    assert early == []
    assert [(each["change"], each["since"]) for each in changes] == [("appeared", 1000)]


def test_a_look_that_could_not_see_it_decides_neither() -> None:
    assert told(["there", "silent", "there"]) == [
        (0, "appeared", "drifted"),
        (60, "appeared", "unknown"),
        (120, "went", "unknown"),
    ]
    assert (240.0, "went", "drifted") in told(["there", "unknown", "unknown", "there", "gone"])
    assert told(["there", "unknown", "there"], hold=90) == [(120, "appeared", "drifted")]


def test_a_silent_node_is_one_finding_whatever_the_reason() -> None:
    assert told(["silent", "other", "silent", "gone"]) == [(0, "appeared", "unknown"), (180, "went", "unknown")]


def test_what_is_no_longer_declared_goes() -> None:
    edges, _ = advanced(Edges(), look(0, "there"), 0)
    other = Report(command="drift", cluster="words", inventory="i", plan=Plan(nodes=("b",)), time=60)
    edges, changes = advanced(edges, other, 0)
    assert [each["change"] for each in changes] == ["went"]
    assert edges == Edges()


@given(
    st.lists(st.sampled_from(["there", "gone", "silent", "other", "unknown"]), max_size=12), st.sampled_from([0, 90])
)
def test_changes_of_a_finding_alternate_and_begin_with_its_coming(sights: list[str], hold: float) -> None:
    for state in ("drifted", "unknown"):
        changes = [change for _, change, about in told(sights, hold) if about == state]
        if state == "drifted":
            assert changes == ["appeared", "went"] * (len(changes) // 2) + ["appeared"] * (len(changes) % 2)
    if hold == 0 and sights:
        last = [change for _, change, about in told(sights) if about == "drifted"][-1:]
        assert (last == ["appeared"]) or "there" not in sights[-1:]


def test_a_damaged_state_tells_nothing_as_told() -> None:
    for damaged in ({}, {"told": 1, "coming": {}, "since": {}}, {"told": {"x": {}}, "coming": {}, "since": {}}):
        assert Edges.from_json(damaged) == Edges()


def test_only_what_a_person_should_hear_of_is_told() -> None:
    _, changes = advanced(Edges(), report(), 0)
    assert changes
    assert all(each["finding"]["severity"] != "info" for each in changes)
