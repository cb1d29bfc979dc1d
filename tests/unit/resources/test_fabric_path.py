"""A cable is measured again where either end is another one; from a silent node nothing follows."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from sparkops.core.plan import Plan
from sparkops.core.states import Observed, Unknown
from sparkops.core.wording import Message
from sparkops.reconcile.plan import Observations, compare
from sparkops.resources.fabric_path import FabricPath

HERE, THERE = [["10.0.0.2", "10.0.0.1", "b0", 9000, 200000, "0b"]], [["10.0.0.1", "10.0.0.2", "a0", 9000, 200000, "0a"]]
MEASURES = FabricPath(node="b", name="a", lines=[{"twin": 0, "address": "10.0.0.2", "peer": "10.0.0.1"}], folder="/f")
TELLS = FabricPath(
    node="a", name="b", lines=[{"twin": 0, "address": "10.0.0.1", "peer": "10.0.0.2"}], folder="/f", measures=False
)


def planned(*, far: object, told: Observed, lost: Mapping[str, Message] | None = None) -> Plan:
    """The plan where the cable was measured with these far ends, and the other node tells that of them."""
    kept = {"asked": True, "links": HERE, "why": None, "gbits": 190.0, "method": "rdma", "far": far}
    seen = Observations(found={MEASURES.id: kept, TELLS.id: told}, unreachable=lost or {})
    return compare([TELLS, MEASURES], seen, today=datetime.date(2026, 1, 1))


def test_ends_that_are_those_that_were_measured_need_nothing() -> None:
    assert planned(far=THERE, told={"asked": False, "links": THERE}).steps == ()
    assert planned(far=[tuple(THERE[0])], told={"asked": False, "links": THERE}).steps == ()


def test_another_mtu_at_the_other_end_asks_for_a_measurement() -> None:
    other = [[*THERE[0][:3], 1500, *THERE[0][4:]]]
    (step,) = planned(far=THERE, told={"asked": False, "links": other}).steps
    assert (step.id, step.action, step.disruptive) == (MEASURES.id, "replace", False)


def test_what_was_not_measured_since_the_other_node_was_silent_is_measured_once_it_tells_its_ends() -> None:
    assert [step.id for step in planned(far=None, told={"asked": False, "links": THERE}).steps] == [MEASURES.id]


def test_nothing_follows_from_a_node_that_tells_nothing() -> None:
    assert planned(far=THERE, told=Unknown.of("network-state-late", seconds=10)).steps == ()
    silent = {"a": Message.of("node-silent", seconds=45)}
    assert planned(far=None, told=None, lost=silent).steps == ()
