"""From states to a plan, with plain values: what differs, in which order, and what unknowns and violations block."""

import datetime
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hypothesis import given
from hypothesis import strategies as st

from sparkops.core.plan import Plan, Step, Violation
from sparkops.core.states import FromFact, Observed, Pending, State, Unknown
from sparkops.core.wording import Message
from sparkops.inventory.inventory import Accept
from sparkops.reconcile import ports
from sparkops.reconcile.diff import diff
from sparkops.reconcile.plan import Observations, compare
from sparkops.reconcile.run import _refuse_interruptions
from sparkops.resources.require import Require
from sparkops.resources.resource import Peers, Resource
from sparkops.resources.unit import Unit
from tests.errors import fails

TODAY = datetime.date(2026, 11, 24)
STATES = st.none() | st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), max_size=3)


@dataclass(frozen=True, kw_only=True)
class Thing(Resource):
    """A kind with nothing behind it: the diff knows no other."""

    kind: ClassVar[str] = "thing"
    interrupts: ClassVar[frozenset[str]] = frozenset({"running"})
    node: str = "n1"
    want: State = field(default_factory=dict)

    def desired(self) -> State:
        return self.want


@dataclass(frozen=True, kw_only=True)
class Judged(Thing):
    kind: ClassVar[str] = "judged"

    def violations(self, found: Observed, peers: Peers) -> tuple[Violation, ...]:
        return (Violation(message=Message.of("image-differs"), resource=self.id, node=self.node, severity="error"),)


@dataclass(frozen=True, kw_only=True)
class Proof(Thing):
    kind: ClassVar[str] = "proof"
    reproved: ClassVar[bool] = True


def plan(*resources: Resource, found: dict[str, Any], **more: Any) -> Plan:
    seen = Observations(found=found, facts=more.pop("facts", {}), unreachable=more.pop("unreachable", {}))
    return compare(resources, seen, today=TODAY, **more)


@given(STATES)
def test_a_thing_that_is_as_declared_has_no_difference(state: State) -> None:
    assert diff(Thing(name="x", want=state), state, {}) is None


@given(STATES, STATES)
def test_what_a_difference_leads_to_has_none_left(wanted: State, found: State) -> None:
    thing = Thing(name="x", want=wanted)
    difference = diff(thing, found, {})
    if isinstance(difference, Step):
        after = None if difference.after is None else {**(found or {}), **difference.after}
        assert diff(thing, after, {}) is None


@given(STATES)
def test_the_unknown_is_never_a_difference(wanted: State) -> None:
    assert diff(Thing(name="x", want=wanted), Unknown("time-out"), {}) == Unknown("time-out")


def test_a_found_key_that_nobody_declared_is_not_compared() -> None:
    assert diff(Thing(name="x", want={"a": 1}), {"a": 1, "b": 2}, {}) is None


def test_an_unknown_value_makes_the_whole_thing_unknown() -> None:
    assert diff(Thing(name="x", want={"a": 1, "b": 1}), {"a": Unknown("hung"), "b": 2}, {}) == Unknown("hung")


def test_a_value_from_a_fact_is_filled_in() -> None:
    thing = Thing(name="x", want={"a": FromFact("fabric.rail0.ifname")})
    facts = {"fabric": {"rail0": {"ifname": "enp1s0f0np0"}}}
    assert diff(thing, {"a": "enp1s0f0np0"}, facts) is None
    assert isinstance(diff(thing, {"a": "x"}, {}), Unknown)


def test_a_pending_value_differs() -> None:
    difference = diff(Thing(name="x", want={"a": Pending("image y @n1")}), {"a": 1}, {})
    assert isinstance(difference, Step)
    assert difference.changes == ("a",)


def test_a_step_needs_the_nearest_steps_that_it_stands_on() -> None:
    one = Thing(name="1", want={"a": 1})
    two = Thing(name="2", want={"a": 1}, after=(one.id,))
    three = Thing(name="3", want={"a": 1}, after=(two.id,))
    made = plan(three, two, one, found={one.id: None, two.id: {"a": 1}, three.id: None})
    assert [step.id for step in made.steps] == [one.id, three.id]
    assert made.steps[1].needs == (one.id,)


def test_a_cycle_is_told_with_its_members() -> None:
    one = Thing(name="1", after=("thing 2 @n1",))
    two = Thing(name="2", after=("thing 1 @n1",))
    with fails("plan-order-cycle") as caught:
        plan(one, two, found={})
    assert one.id in caught.value.what
    assert two.id in caught.value.what


def test_an_unknown_thing_blocks_only_what_stands_on_it() -> None:
    one = Thing(name="1", want={"a": 1})
    two = Thing(name="2", want={"a": 1}, after=(one.id,))
    free = Thing(name="3", want={"a": 1})
    made = plan(one, two, free, found={one.id: Unknown("hung"), two.id: None, free.id: None})
    assert set(made.blocked) == {two.id}
    assert made.exit_status == 2


def test_what_could_only_warn_holds_nothing_up_while_it_is_unknown() -> None:
    require = Require(node="n1", name="reboot", expect={"reasons": {"empty": True}}, severity="warning")
    thing = Thing(name="1", want={"a": 1}, after=(require.id,))
    assert not plan(require, thing, found={require.id: Unknown("hung"), thing.id: None}).blocked


def test_only_unknown_things_are_exit_status_3() -> None:
    one = Thing(name="1", want={"a": 1})
    assert plan(one, found={one.id: Unknown("hung")}).exit_status == 3


def test_a_violation_blocks_until_it_is_accepted() -> None:
    judged = Judged(name="driver")
    thing = Thing(name="1", want={"a": 1}, after=(judged.id,))
    found = {judged.id: {}, thing.id: None}
    assert set(plan(judged, thing, found=found).blocked) == {thing.id}
    accepted = plan(
        judged, thing, found=found, accept=(Accept(id="image-differs", reason="known", until="2026-12-01"),)
    )
    assert not accepted.blocked
    assert accepted.violations[0].accepted == "known (until 2026-12-01)"


def test_an_acceptance_runs_out_visibly() -> None:
    judged = Judged(name="driver")
    made = plan(judged, found={judged.id: {}}, accept=(Accept(id="image-differs", reason="known", until="2026-11-23"),))
    assert made.violations[0].blocks
    assert made.notices[0].id == "acceptance-expired"


def test_a_silent_node_stops_the_service_on_the_others() -> None:
    here = Thing(name="1", want={"a": 1}, service="qwen", peer_nodes=("n1", "n2"))
    there = Thing(name="1", node="n2", want={"a": 1}, service="qwen", peer_nodes=("n1", "n2"))
    made = plan(here, there, found={here.id: None}, unreachable={"n2": Message.of("not-answered")})
    assert made.blocked[here.id].id == "service-node-silent"


def test_what_stands_on_a_change_is_proven_again() -> None:
    one = Thing(name="1", want={"running": True}, service="qwen")
    probe = Proof(name="p", want={"answers": True}, after=(one.id,), service="qwen")
    made = plan(one, probe, found={one.id: {"running": False}, probe.id: {"answers": True}})
    assert [step.action for step in made.steps] == ["update", "verify"]
    assert made.steps[0].disruptive


def test_two_names_for_one_machine_hold_everything_on_both_and_nothing_else() -> None:
    things = [Thing(node=node, name="x", want={"a": 1}) for node in ("left", "right", "alone", "dark", "dim")]
    found = {each.id: {"a": 0} for each in things}
    machines = {"left": "m1", "right": "m1", "alone": "m2", "dark": "", "dim": ""}
    seen = Observations(found=found, machines=machines)
    made = compare(things, seen, today=TODAY)
    assert made.held == {"left", "right"}
    assert [(each.id, each.node) for each in made.violations] == [
        ("machine-with-two-names", n) for n in ("left", "right")
    ]
    assert set(made.blocked) == {"thing x @left", "thing x @right"}
    assert made.violations[0].message.args == {"nodes": ["left", "right"]}

    accept = [Accept(id="machine-with-two-names", reason="a test bench")]
    made = compare(things, seen, today=TODAY, accept=accept)
    assert made.held == frozenset() and not made.blocked


def test_what_will_be_proven_again_may_be_unknown_before() -> None:
    """An engine that refuses the new model's name, since it still serves the old one."""
    unit = Thing(name="unit", want={"running": 2}, service="q")
    proof = Proof(name="proof", want={"answers": 1}, service="q", after=(unit.id,))
    unknown = Unknown.of("not-answered")
    made = plan(unit, proof, found={unit.id: {"running": 1}, proof.id: unknown})
    assert [(step.action, step.before) for step in made.steps] == [("update", {"running": 1}), ("verify", {})]
    assert made.unknown == {}
    assert plan(unit, proof, found={unit.id: {"running": 2}, proof.id: unknown}).unknown == {proof.id: unknown}
    silent = plan(unit, proof, found={unit.id: {"running": 1}, proof.id: unknown}, unreachable={"n1": Message.of("x")})
    assert silent.steps == ()


@dataclass(frozen=True, kw_only=True)
class Guarded(Judged):
    kind: ClassVar[str] = "guarded"
    guarded: ClassVar[bool] = True


def test_a_guarded_kind_is_not_acted_on_while_it_has_a_violation() -> None:
    judged, guarded = Judged(name="x", want={"a": 1}), Guarded(name="x", want={"a": 1})
    made = plan(judged, guarded, found={judged.id: {}, guarded.id: {}})
    assert list(made.blocked) == [guarded.id]
    accepted = plan(
        guarded, found={guarded.id: {}}, accept=(Accept(id="image-differs", reason="known", until="2026-12-01"),)
    )
    assert accepted.blocked == {}


def test_an_interruption_that_was_shown_as_not_attempted_was_not_agreed_to() -> None:
    """What blocked it may be known by the time the locks are taken."""
    unit = Step(
        id="unit q @a", kind="unit", node="a", action="update", before={}, after={}, changes=(), disruptive=True
    )
    shown = Plan(steps=(unit,), blocked={unit.id: Message.of("not-answered")})
    _refuse_interruptions(Plan(steps=(unit,)), shown, frozenset())
    _refuse_interruptions(shown, Plan(steps=(unit,)), frozenset({unit.id}))
    with fails("plan-would-interrupt"):
        _refuse_interruptions(shown, Plan(steps=(unit,)), frozenset())


def engine(service: str, **more: Any) -> Unit:
    return Unit(name=f"{service}.service", node="n1", service=service, content="x", running=True, port=8000, **more)


def test_a_port_that_another_service_keeps_is_told_before_anything_is_stopped() -> None:
    one, other = engine("one"), engine("other")
    held = {"exists": True, "running": True, "port_taken": {"service": "other"}}

    def told(*resources: Unit, found: dict[str, Any], **more: Any) -> list[str]:
        made = plan(*resources, found=found, **more)
        return [
            f"{id} {each.id} {each.message.args['holder']}"
            for id, violations in ports.taken(resources, found, made).items()
            for each in violations
        ]

    because = [f"{one.id} port-taken-by-service other"]
    assert told(one, found={one.id: held}) == because, "it is of another inventory"
    running = {**held, "port_taken": None, "content": other.desired()["content"], "enabled": True}
    assert told(one, other, found={one.id: held, other.id: {**running, "content": "sha256:0"}}) == [], "it moves"
    silent = {"unreachable": {"n1": Message.of("node-silent", seconds=45)}}
    assert told(one, other, found={one.id: held, other.id: {**running, "content": "sha256:0"}}, **silent) == because
    assert told(engine("one", state="absent"), found={one.id: held}) == []
    assert told(one, found={one.id: {**held, "port_taken": {"service": "one"}}}) == [], "it is its own"
    assert told(one, found={one.id: {**held, "port_taken": {"service": "", "pid": 7}}}) == [], "the kind tells that"
