"""In which order engines are changed, what is held, and how they end: as values."""

from __future__ import annotations

import dataclasses
import datetime
import textwrap
import threading
import time
import types
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sparkops.compile.compiler import compile_inventory
from sparkops.core.errors import ConvergeFailed
from sparkops.core.events import silent
from sparkops.core.plan import Declared, Plan
from sparkops.core.report import Report, Result, Rollout
from sparkops.core.states import Observed, Unknown
from sparkops.core.wording import Message
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.load import load
from sparkops.operate.rollback import _bringing, earlier, lacks
from sparkops.operate.services import chosen
from sparkops.operate.start_stop import things
from sparkops.reconcile.plan import Observations, compare
from sparkops.reconcile.planning import Planned
from sparkops.reconcile.rollout import Limits, RolloutProgress, content_of, engines, holds, outcomes, returned, ungated
from sparkops.reconcile.rollout_order import order, removals
from sparkops.reconcile.schedule import Schedule
from sparkops.resources.gate import Gate
from sparkops.resources.generation import Generation
from sparkops.resources.reboot import Reboot
from sparkops.resources.require import Require
from sparkops.resources.resource import Resource
from sparkops.resources.unit import Unit
from sparkops.worker.calls import Refused
from sparkops.worker.dispatch import differing
from sparkops.worker.kinds.gate import judge_tool_call
from tests.errors import fails


class Project:
    """A folder with an inventory of the built-in roles."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "inventory.yml"

    def load(self, text: str) -> Inventory:
        self.file.write_text(textwrap.dedent(text))
        return load(self.file)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


FOUR = """
    version: 1
    cluster: c
    nodes: {a: , b: , c: , d: }
    services:
      q:
        replicas: %s
        image: {pull: "x/y:1"}
        model: m
        serve: %s
"""


def declared(project: Project, replicas: str, serve: str = "{}") -> Inventory:
    return project.load(FOUR % (replicas, serve))


def planned(inventory: Inventory, batch: int = 1) -> Plan:
    """The plan where every thing is missing."""
    resources = compile_inventory(inventory, roles=["image", "service", "health", "rollout"]).resources
    return rolled(inventory, resources, {each.id: None for each in resources}, batch)


def rolled(
    inventory: Inventory, resources: Sequence[Resource], found: Mapping[str, Observed], batch: int = 1, **more: Any
) -> Plan:
    """The plan as a run makes it: compared, ordered by the rollouts, compared again."""
    replicas = {name: inventory.replicas(name) for name in inventory.services}
    today = datetime.date(2026, 1, 1)
    first = compare(resources, Observations(found=found), today=today, **more)
    begun = [step for step in first.steps if step.id not in first.blocked]
    made = order(resources, begun, found, replicas, dict.fromkeys(replicas, Limits(batch=batch)))
    seen = Observations(found={**found, **made.found})
    more["replace"] = {*more.get("replace", ()), *made.again}
    return compare(made.resources, seen, today=today, prove=made.prove, edges=made.edges, **more)


def reached(plan: Plan, id: str) -> set[str]:
    """All steps that come before this one."""
    steps = {step.id: step for step in plan.steps}
    todo, found = [id], set()
    while todo:
        for need in steps[todo.pop()].needs:
            if need not in found:
                found.add(need)
                todo.append(need)
    return found


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_batch_comes_after_all_proofs_of_the_one_before_and_after_all_images(project: Project, batch: int) -> None:
    plan = planned(declared(project, "[[a], [b], [c], [d]]"), batch)
    for number, node in enumerate("abcd"):
        before = reached(plan, f"unit q.service @{node}")
        first = number // batch * batch
        proven = {f"generation /var/lib/sparkops/generations/q @{each}" for each in "abcd"[:first]}
        assert {each for each in before if each.startswith("generation")} == proven
        assert {f"image x/y:1 @{each}" for each in "abcd"} <= before, "everything is there before anything stops"


def test_the_head_is_asked_when_all_ranks_of_its_engine_are_changed(project: Project) -> None:
    inventory = declared(project, "[[a, b], [c, d]]", "{tensor-parallel-size: 2}")
    project_fabric = {"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3", "d": "10.0.0.4"}
    text = (FOUR % ("[[a, b], [c, d]]", "{tensor-parallel-size: 2}")).replace(
        "{a: , b: , c: , d: }", str({node: {"fabric": {"address": each}} for node, each in project_fabric.items()})
    )
    inventory = project.load(text)
    plan = planned(inventory)
    ranks = {"unit q.service @a", "unit q.service @b"}
    assert ranks <= reached(plan, "probe q @a")
    assert ranks <= reached(plan, "unit q.service @d"), "the second engine comes after the first"
    specs = {each.node: each for each in compile_inventory(inventory).resources if each.name.endswith("/q.json")}
    assert '"--node-rank","1"' in str(getattr(specs["d"], "content", "")).replace(" ", "")


def rebooting(project: Project, more: str = "") -> Plan:
    """The plan where all is as declared, but for a due reboot of a and b."""
    text = (FOUR % ("[[a], [b]]", "{}")).replace(
        "    nodes: {", "    vars: {reboot: {when: when-needed}}\n    nodes: {"
    )
    inventory, resources, found = settled(project, text + more)
    due = {each.id: {"due": True, "reasons": ["x"], "boot": "1"} for each in resources if each.kind == "reboot"}
    return rolled(inventory, resources, {**found, **due})


def test_machines_reboot_engine_by_engine_each_with_its_proofs(project: Project) -> None:
    plan = rebooting(project)
    before = reached(plan, "reboot when-needed @b")
    assert {"reboot when-needed @a", "probe q @a", "gate q @a"} <= before
    steps = {step.id: step for step in plan.steps}
    assert not any(step.startswith("unit") for step in steps), "a unit comes back by itself"
    assert steps["reboot when-needed @a"].disruptive
    assert "drain q @a" in before and "drain q @b" in reached(plan, "reboot when-needed @b")
    assert "generation /var/lib/sparkops/generations/q @a" not in steps, "what was stable is"
    inventory = project.load(FOUR % ("[[a], [b]]", "{}"))
    assert not any(each.kind == "reboot" for each in compile_inventory(inventory).resources), "never by default"


def test_two_services_with_opposite_orders_reboot_each_machine_once(project: Project) -> None:
    plan = rebooting(project, OTHER % "[[b], [a]]")
    assert [step.id for step in plan.steps if step.kind == "reboot" and step.node in "ab"] == [
        "reboot when-needed @a",
        "reboot when-needed @b",
    ]
    assert {"probe r @a", "probe r @b", "probe q @b"} <= {step.id for step in plan.steps}


OTHER = """
      r:
        replicas: %s
        port: 8001
        image: {pull: "x/y:1"}
        model: m
"""


@pytest.mark.parametrize("replicas", ["[[a], [b]]", "[[b], [a]]", "[[a, b]]"])
def test_a_machine_is_changed_once_all_engines_of_the_one_before_are_right_again(
    project: Project, replicas: str
) -> None:
    """Else both engines of the second service could be down at once; one on both machines has its proof at the end."""
    parallel = "        serve: {tensor-parallel-size: 2}\n" if "a, b" in replicas else ""
    plan = rebooting(project, OTHER % replicas + parallel)
    before = reached(plan, "reboot when-needed @b")
    assert {"probe q @a", "gate q @a"} <= before
    assert ({"probe r @a", "gate r @a"} <= before) != bool(parallel)
    drains = {step.id for step in plan.steps if step.kind == "drain" and step.id.startswith("drain r")}
    first = f"drain r in the turn of q on a @{'a'}"
    second = f"drain r in the turn of q on b @{'a' if parallel else 'b'}"
    assert drains == {first, second}
    assert first in before and second in before
    assert first in reached(plan, "reboot when-needed @a") and second not in reached(plan, "reboot when-needed @a")
    assert "reboot when-needed @a" in reached(plan, second), "it is waited for again before the second machine"


def test_an_engine_that_is_restarted_after_the_turn_of_another_is_waited_for_then(project: Project) -> None:
    inventory, resources, found = settled(project, TURNS + OTHER % "[[a], [b]]")
    old = {each: {**(found[each] or {}), "inputs": "other"} for each in (f"unit r.service @{node}" for node in "ab")}
    tuned = {each: OLD[each] for each in OLD if each[-1] in "ab"}
    plan = rolled(inventory, resources, {**found, **tuned, **old})
    assert {step.id for step in plan.steps if step.id.startswith("unit r.service")} == {*old}
    for node in "ab":
        assert f"drain r in the turn of q on {node} @{node}" in reached(plan, f"sysctl net.core.x @{node}")
        assert f"sysctl net.core.x @{node}" in reached(plan, f"drain r @{node}")
        assert f"drain r @{node}" in reached(plan, f"unit r.service @{node}")


def test_a_machine_that_does_not_come_back_pauses_and_no_generation_is_brought_back(project: Project) -> None:
    plan = rebooting(project)
    inventory = project.load(FOUR % ("[[a], [b]]", "{}"))
    resources = [
        *compile_inventory(inventory).resources,
        *(Reboot(node=node, name="when-needed", role="reboot", turn="q") for node in "ab"),
    ]
    results = [
        result(step.id, "unknown" if step.id == "reboot when-needed @a" else "not-attempted") for step in plan.steps
    ]
    states = [each.state for each in outcomes(resources, plan, results, {"q": inventory.replicas("q")})]
    assert states == ["paused", "not started"]


def test_nodes_without_parallel_arguments_are_engines_of_their_own(project: Project) -> None:
    text = (FOUR % ("[[a]]", "{}")).replace("replicas: [[a]]", "nodes: [a, b]")
    assert project.load(text).replicas("q") == (("a",), ("b",))
    text = (FOUR % ("[[a]]", "{data-parallel-size: 2}")).replace("replicas: [[a]]", "nodes: [a, b]")
    assert project.load(text).replicas("q") == (("a", "b"),)


@pytest.mark.parametrize(
    ("replicas", "id"),
    [("[[a], [a, b]]", "node-in-two-replicas"), ("[[a]]\n        nodes: [b]", "service-nodes-or-replicas")],
)
def test_a_service_says_once_where_it_runs(project: Project, replicas: str, id: str) -> None:
    with fails(id):
        declared(project, replicas)


def test_what_was_taken_back_is_held_and_nothing_else(project: Project) -> None:
    inventory = declared(project, "[[a], [b]]")
    resources = compile_inventory(inventory, roles=["service", "health", "rollout"]).resources
    replicas = {"q": inventory.replicas("q")}
    own = {each.node: each for each in resources if isinstance(each, Generation)}

    def found(rejected: list[str], present: str) -> dict[str, Any]:
        return {own["a"].id: {"rejected": rejected, "inputs": present, "generations": []}}

    declared_spec = str(own["a"].inputs)
    (entry,) = holds(resources, found([declared_spec], "other"), replicas)
    assert entry.endswith("@a")
    assert holds(resources, found([declared_spec], declared_spec), replicas) == {}, "it is there, by a retry"
    both = holds(resources, found([declared_spec], "other"), {"q": (("a", "b"),)})
    assert {id.rpartition("@")[2] for id in both} == {"a", "b"}, "every rank of the engine"
    assert holds(resources, found(["other"], "other"), replicas) == {}


BUILT = (FOUR % ("[[a], [b]]", "{}")).replace('{pull: "x/y:1"}', "{build: {tag: 'x/y:1', template: own.j2}}")


def built(project: Project, dockerfile: str) -> tuple[Inventory, tuple[Resource, ...], dict[str, Observed], str]:
    """An image that is built under one name, and what identifies that of this Dockerfile."""
    template = project.file.parent / "templates/own.j2"
    template.parent.mkdir(exist_ok=True)
    template.write_text(dockerfile)
    inventory, resources, found = settled(project, BUILT)
    (image,) = (each for each in resources if each.id == "image x/y:1 @a")
    return inventory, resources, found, content_of(image)


def test_an_image_that_was_taken_back_under_its_name_is_held_with_that_name(project: Project) -> None:
    """The spec is the same then. A timer would bring it again and again, and a boot of the node would start it."""
    inventory, resources, found, image = built(project, "FROM x\nRUN false\n")
    own = {each.node: each for each in resources if isinstance(each, Generation)}
    rejected = {own["a"].id: {"rejected": [f"{own['a'].inputs}+{image}"], "inputs": own["a"].inputs}}
    replicas = {"q": inventory.replicas("q")}
    assert holds(resources, {**found, **rejected}, replicas, ()) == {}, "nothing differs"
    held = holds(resources, {**found, **rejected}, replicas, ["unit q.service @a"])
    assert {id.rpartition("@")[2] for id in held} == {"a"} and "image x/y:1 @a" in held
    plan = rolled(inventory, resources, {**found, "image x/y:1 @a": None, "image x/y:1 @b": None}, violations=held)
    assert {"image x/y:1 @a", "unit q.service @a", "unit q.service @b"} <= plan.blocked.keys()

    _, mended, found, other = built(project, "FROM x\nRUN true\n")
    assert image and other and image != other
    assert holds(mended, {**found, **rejected}, replicas, ["unit q.service @a"]) == {}, "another is declared"


def test_a_name_alone_identifies_no_image(project: Project) -> None:
    _, resources, _ = settled(project, FOUR % ("[[a], [b]]", "{}"))
    (image,) = (each for each in resources if each.id == "image x/y:1 @a")
    assert content_of(image) == content_of(None) == ""


def result(id: str, outcome: Any, reason: Message | None = None) -> Result:
    return Result(id=id, node=id.partition("@")[2], outcome=outcome, reason=reason)


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        ({}, "done"),
        ({"gate": "failed"}, "failed"),
        ({"probe": "failed", "gate": "not-attempted"}, "failed"),
        ({"gate": "unknown", "generation": "not-attempted"}, "paused"),
        ({"unit": "interrupted", "probe": "interrupted"}, "paused"),
        ({"unit": "not-attempted", "probe": "not-attempted", "gate": "not-attempted"}, "not started"),
    ],
)
def test_only_what_failed_is_failed(project: Project, ends: dict[str, Any], state: str) -> None:
    inventory = declared(project, "[[a]]")
    plan = planned(inventory)
    resources = compile_inventory(inventory, roles=["image", "service", "health", "rollout"]).resources
    results = [result(step.id, ends.get(step.kind, "done")) for step in plan.steps]
    (found,) = outcomes(resources, plan, results, {"q": inventory.replicas("q")})
    assert found == Rollout(service="q", nodes=("a",), state=state)  # type: ignore[arg-type]


def progress(project: Project, **limits: Any) -> tuple[RolloutProgress, list[float]]:
    """The rollout of engines on a, b and c, and a clock that a test sets."""
    inventory = declared(project, "[[a], [b], [c]]")
    resources = compile_inventory(inventory, roles=["image", "service", "health", "rollout"]).resources
    now = [0.0]
    replicas = {"q": inventory.replicas("q")}
    made = RolloutProgress(planned(inventory), resources, replicas, {"q": Limits(**limits)}, lambda: now[0])
    return made, now


GENERATION = "generation /var/lib/sparkops/generations/q @"


def ends(*each: tuple[str, Any]) -> dict[str, Result]:
    return {id: result(id, outcome) for id, outcome in each}


def test_so_many_engines_may_fail_and_no_more(project: Project) -> None:
    made, _ = progress(project, max_failures=1)
    first = ends(("unit q.service @a", "done"), ("gate q @a", "failed"), (GENERATION + "a", "not-attempted"))
    assert made.goes_on("unit q.service @b", GENERATION + "a", first)
    assert not made.goes_on(GENERATION + "a", "gate q @a", first), "within the engine nothing goes on"
    other = ends(("unit q.service @b", "done"), ("probe q @b", "failed"), (GENERATION + "b", "not-attempted"))
    second = {**first, **other}
    assert not made.goes_on("unit q.service @c", GENERATION + "b", second)
    assert not progress(project)[0].goes_on("unit q.service @b", GENERATION + "a", first), "none by default"


@pytest.mark.parametrize("outcome", ["unknown", "interrupted", "not-attempted"])
def test_what_could_not_be_asked_pauses_in_any_case(project: Project, outcome: str) -> None:
    made, _ = progress(project, max_failures=3)
    ended = ends(("unit q.service @a", "done"), ("gate q @a", outcome), (GENERATION + "a", "not-attempted"))
    assert not made.goes_on("unit q.service @b", GENERATION + "a", ended)


def test_a_rollout_that_stands_still_is_late_and_each_stable_engine_gives_it_new_time(project: Project) -> None:
    made, now = progress(project, progress_seconds=10.0, max_failures=1)
    assert made.late("probe q @a") is None, "nothing was changed yet"
    made.begun("unit q.service @a")
    now[0] = 9.0
    made.begun("probe q @a")
    assert made.late("probe q @a") is None
    made.ended(result(GENERATION + "a", "done"))
    now[0] = 18.0
    assert made.late("probe q @b") is None
    now[0] = 19.5
    assert made.late("probe q @b") == 10.0
    assert made.late("image x/y:1 @b") is None, "what brings content has its own time"
    first = ends(("unit q.service @b", "done"), ("probe q @b", "failed"), (GENERATION + "b", "not-attempted"))
    assert not made.goes_on("unit q.service @c", GENERATION + "b", first)


def carried_out(project: Project, ends: dict[str, str], **limits: Any) -> list[str]:
    """How the engines on a, b and c end where every step works but those in `ends`: stuck, or failing by that id."""
    inventory = declared(project, "[[a], [b], [c]]")
    resources = compile_inventory(inventory, roles=["image", "service", "health", "rollout"]).resources
    replicas, plan = {"q": inventory.replicas("q")}, planned(inventory)

    def converge(resource: Resource) -> Generator[dict[str, Any], None, Observed]:
        while ends.get(resource.id) == "stuck":
            yield {}
            time.sleep(0.01)
        if resource.id in ends:
            raise ConvergeFailed.of(ends[resource.id], service="q", wanted=1)
        return resource.desired()

    for each in resources:
        object.__setattr__(each, "converge", lambda session, step, each=each: converge(each))
    fleet: Any = types.SimpleNamespace(session=lambda node: None, listener=silent)
    progress = RolloutProgress(plan, resources, replicas, {"q": Limits(**limits)})
    made = Planned(plan=plan, resources=tuple(resources), facts={})
    results = Schedule(made, fleet, stop=threading.Event(), rollouts=progress).run()
    return [each.state for each in outcomes(resources, plan, results, replicas)]


@pytest.mark.parametrize(
    ("ends", "limits", "states"),
    [
        ({}, {}, ["done", "done", "done"]),
        ({"gate q @a": "generation-missing"}, {}, ["failed", "not started", "not started"]),
        ({"gate q @a": "generation-missing"}, {"max_failures": 1}, ["failed", "done", "done"]),
        (
            {"gate q @a": "generation-missing", "probe q @b": "generation-missing"},
            {"max_failures": 1},
            ["failed", "failed", "not started"],
        ),
        ({"probe q @b": "stuck"}, {"progress_seconds": 0.3}, ["done", "failed", "not started"]),
        (
            {"probe q @a": "stuck"},
            {"progress_seconds": 0.3, "max_failures": 2},
            ["failed", "not started", "not started"],
        ),
    ],
)
def test_a_run_keeps_to_the_limits_of_a_rollout(
    project: Project, ends: dict[str, str], limits: dict[str, Any], states: list[str]
) -> None:
    assert carried_out(project, ends, **limits) == states


def test_an_engine_that_no_step_interrupts_has_no_rollout(project: Project) -> None:
    inventory = declared(project, "[[a]]")
    resources = compile_inventory(inventory).resources
    assert outcomes(resources, Plan(), [], {"q": inventory.replicas("q")}) == ()
    (engine,) = engines(resources, {"q": inventory.replicas("q")})
    assert any(isinstance(each, Unit) for each in engine.cutover)


def test_the_ends_of_a_return_are_different_words() -> None:
    failed = Rollout(service="q", nodes=("a", "b"), state="failed")
    missing = Message.of("generation-missing", service="q", wanted="newest")
    gone = Message.of("generation-image-gone", number=1, image="x")

    def after(*results: Result, **plan: Any) -> Rollout:
        return returned(
            failed, Report(command="rollback", cluster="c", inventory="i", plan=Plan(**plan), results=results)
        )

    assert after(result("generation x@a", "done"), result("gate q@a", "done")).state == "returned"
    assert after(result("generation x@a", "failed", missing)).state == "nothing to return to"
    bad = after(result("generation x@a", "done"), result("generation x@b", "failed", gone))
    assert (bad.state, bad.reason) == ("return failed", gone)
    assert after(result("generation x@a", "done"), result("gate q@a", "not-attempted")).state == "return failed"
    silent = after(unreachable={"b": gone})
    assert (silent.state, silent.reason) == ("return failed", gone), "no proof is no return"
    assert after() == failed, "the stable state is there, and fails"


def test_a_return_is_told_apart_from_that_of_another_service_on_its_nodes() -> None:
    """Both fail in one apply and are brought back in one run: of one there is nothing to return to, one is unknown."""
    ids = {f"{kind} {service}@a": service for service in ("q", "r", "s") for kind in ("generation", "unit", "gate")}
    things = tuple(
        Declared(id=id, kind=id.partition(" ")[0], name=id, node="a", service=each) for id, each in ids.items()
    )
    missing = Message.of("generation-missing", service="r", wanted="newest")
    ended = {"generation r@a": ("failed", missing), "unit r@a": ("not-attempted", None)}
    results = tuple(result(id, *ended.get(id, ("done", None))) for id, each in ids.items() if each != "s")
    plan = Plan(declared=things, unknown={"generation s@a": Unknown.of("not-answered")})
    report = Report(command="rollback", cluster="c", inventory="i", plan=plan, results=results)

    def of(service: str) -> str:
        return returned(Rollout(service=service, nodes=("a",), state="failed"), report).state

    assert (of("q"), of("r")) == ("returned", "nothing to return to")
    assert of("s") == "failed", "nothing of it was tried"


def test_an_engine_whose_gate_is_left_out_is_not_called_proven(project: Project) -> None:
    inventory = declared(project, "[[a]]")
    resources = compile_inventory(inventory, roles=["service"]).resources
    plan = compare(
        resources, Observations(found={each.id: None for each in resources}), today=datetime.date(2026, 1, 1)
    )

    def ended(outcome: str) -> list[str]:
        results = [result(step.id, outcome) for step in plan.steps]
        return [each.state for each in outcomes(resources, plan, results, {"q": inventory.replicas("q")})]

    assert (ended("done"), ended("failed")) == ([], ["failed"])


@pytest.mark.parametrize(
    ("roles", "told"),
    [(["service"], ["q"]), (["service", "health"], ["q"]), (["service", "rollout"], []), (["image"], [])],
)
def test_a_role_that_is_left_out_with_its_gate_is_told(project: Project, roles: list[str], told: list[str]) -> None:
    inventory, resources, found = settled(project, FOUR % ("[[a], [b]]", "{}"))
    unit = found["unit q.service @b"]
    assert isinstance(unit, Mapping)
    found = {**found, "unit q.service @b": {**unit, "inputs": "other"}, "image x/y:1 @b": None}
    some = tuple(each for each in resources if each.role in roles)
    plan = compare(some, Observations(found=found), today=datetime.date(2026, 1, 1))
    notices = ungated(some, plan, {"q": inventory.replicas("q")})
    assert [each.args["services"] for each in notices] == ([told] if told else [])


@pytest.mark.parametrize(
    ("kept", "number", "engines", "lacking"),
    [
        ({"a": [1, 2], "b": [1]}, 2, [{"a", "b"}], ["b"]),
        ({"a": [1, 2], "b": [1]}, 2, [{"a"}, {"b"}], ["b"]),
        ({"a": [1, 2], "b": [1]}, 1, [{"a", "b"}], []),
        ({"a": [1, 2], "b": []}, None, [{"a", "b"}], ["b"]),
        ({"a": [1, 2], "b": []}, None, [{"a"}, {"b"}], []),
        ({"a": [1, 2], "b": None}, 2, [{"a", "b"}], []),
    ],
    ids=["no such number", "of another engine", "there", "none of a rank", "none of an engine", "silent"],
)
def test_what_a_node_does_not_keep_is_known_before_another_is_brought_back(
    kept: dict[str, Any], number: int | None, engines: list[set[str]], lacking: list[str]
) -> None:
    there: dict[str, Any] = {
        f"generation q @{node}": Unknown.of("not-answered")
        if numbers is None
        else {"generations": [{"number": each, "inputs": "x"} for each in numbers]}
        for node, numbers in kept.items()
    }
    assert lacks(there, number, engines) == lacking


def test_an_engine_that_is_no_longer_declared_serves_until_those_that_stay_are_right_again(project: Project) -> None:
    inventory, resources, found = settled(project, FOUR % ("[[a], [b]]", "{}") + OTHER % "[[d]]")
    replicas = {name: inventory.replicas(name) for name in inventory.services}
    gone = [Unit.absent(node=node, name="q.service", role="service", service="q", after=()) for node in "cd"]

    def after(**changed: Any) -> dict[str, tuple[str, ...]]:
        seen = Observations(found={**found, **changed})
        steps = compare(resources, seen, today=datetime.date(2026, 1, 1)).steps
        return removals(gone, resources, steps, replicas)

    assert after() == {}, "nothing is interrupted"
    unit = found["unit q.service @b"]
    assert isinstance(unit, Mapping)
    found_after = after(**{"unit q.service @b": {**unit, "inputs": "other"}})
    assert [*found_after] == ["unit q.service @c"], "d is another service's now"
    assert {*found_after["unit q.service @c"]} == {GENERATION + "b", "gate q @b", "probe q @b"}


def states_kept(inputs: str, *numbers: str) -> dict[str, Any]:
    """What a node keeps: generations 1, 2, … of these inputs, and what is there now."""
    kept = [{"number": number, "inputs": each} for number, each in enumerate(numbers, 1)]
    return {"inputs": inputs, "at": numbers.index(inputs) + 1 if inputs in numbers else None, "generations": kept}


@pytest.mark.parametrize(
    ("nodes", "numbers"),
    [
        ([states_kept("new", "old", "new")] * 2, [1, 1]),
        ([states_kept("new", "older", "old", "new"), states_kept("old", "older", "old")], [2, 2]),
        ([states_kept("new", "older", "old"), states_kept("old", "older", "old")], [2, 2]),
        ([states_kept("old", "older", "old")] * 2, [1, 1]),
        ([states_kept("new", "old"), states_kept("new", "old")], [1, 1]),
        ([states_kept("new", "new"), states_kept("old", "old")], ["newest", 1]),
        ([states_kept("new", "old", "new"), Message.of("node-silent", seconds=1)], [1]),
    ],
    ids=["all new", "one passed", "one not proven", "not applied", "none proven", "first state", "one silent"],
)
def test_a_rollback_in_the_middle_of_a_rollout_leaves_those_that_it_had_not_reached(
    nodes: list[Any], numbers: list[int | str]
) -> None:
    """Else they would get the state before the one that all of them had."""
    there = {f"generation q @{number}": each for number, each in enumerate(nodes)}
    assert list(earlier(there, dict.fromkeys(there, "new")).values()) == numbers


def settled(project: Project, text: str) -> tuple[Inventory, tuple[Resource, ...], dict[str, Observed]]:
    """An inventory, its resources, and observations by which all is as declared and runs; no facts are required."""
    inventory = project.load(text)
    resources = tuple(
        dataclasses.replace(each, expect={}) if isinstance(each, Require) else each
        for each in compile_inventory(inventory).resources
    )
    return inventory, resources, {each.id: each.desired() for each in resources}


TURNS = (FOUR % ("[[a], [b]]", "{}")).replace(
    "    nodes: {", "    vars: {host: {sysctl: {net.core.x: 1}}}\n    nodes: {"
)
OLD: dict[str, Observed] = {f"sysctl net.core.x @{node}": {"value": "0", "persisted": "0"} for node in "abcd"}


def test_what_the_engines_of_a_node_may_feel_is_changed_in_their_turn(project: Project) -> None:
    inventory, resources, found = settled(project, TURNS)
    images: dict[str, Observed] = {f"image x/y:1 @{node}": None for node in "ab"}
    plan = rolled(inventory, resources, {**found, **OLD, **images})
    before = reached(plan, "sysctl net.core.x @b")
    assert {"drain q @a", "sysctl net.core.x @a", "probe q @a", "gate q @a", "drain q @b"} <= before
    assert {f"image x/y:1 @{node}" for node in "ab"} <= reached(plan, "drain q @a"), "it is all there before"
    assert reached(plan, "sysctl net.core.x @c") == set(), "nothing serves there"


def test_a_role_that_no_other_names_is_changed_before_the_reboot_and_proven(project: Project) -> None:
    role = project.file.parent / "roles/tuned/role.yml"
    role.parent.mkdir(parents=True)
    role.write_text("summary: x\nscope: node\nresources: [{package: tool, version: '2'}]\n")
    text = (FOUR % ("[[a], [b]]", "{}")).replace(
        "    nodes: {", "    roles: [tuned]\n    vars: {reboot: {when: when-needed}}\n    nodes: {"
    )
    inventory, resources, found = settled(project, text)
    packages: dict[str, Observed] = {f"package tool @{node}": {"status": "installed", "version": "1"} for node in "ab"}
    plan = rolled(inventory, resources, {**found, **packages})
    assert "package tool @a" in reached(plan, "reboot when-needed @a") & reached(plan, "gate q @a")
    assert {"gate q @a", "drain q @b"} <= reached(plan, "package tool @b")


def test_a_node_on_which_nothing_serves_yet_is_prepared_at_once(project: Project) -> None:
    inventory, resources, found = settled(project, TURNS)
    down: dict[str, Observed] = {f"unit q.service @{node}": None for node in "ab"}
    plan = rolled(inventory, resources, {**found, **OLD, **down})
    assert reached(plan, "sysctl net.core.x @b") == set()
    assert "sysctl net.core.x @b" in reached(plan, "unit q.service @b")
    assert not any(step.kind == "drain" for step in plan.steps)


def pair(project: Project) -> tuple[Inventory, tuple[Resource, ...], dict[str, Observed]]:
    fabric = str({node: {"fabric": {"address": f"10.0.0.{number}"}} for number, node in enumerate("abcd", 1)})
    text = FOUR % ("[[a, b], [c, d]]", "{tensor-parallel-size: 2}")
    return settled(project, text.replace("{a: , b: , c: , d: }", fabric))


def test_a_changed_rank_restarts_its_head_after_the_requests_and_asks_the_gate(project: Project) -> None:
    inventory, resources, found = pair(project)
    other = found["unit q.service @b"]
    assert isinstance(other, Mapping)
    plan = rolled(inventory, resources, {**found, "unit q.service @b": {**other, "inputs": "other"}})
    steps = {step.id: step.action for step in plan.steps}
    assert (steps["unit q.service @a"], steps["unit q.service @b"]) == ("replace", "update")
    assert "drain q @a" in reached(plan, "unit q.service @a") & reached(plan, "unit q.service @b")
    assert {"unit q.service @a", "unit q.service @b"} <= reached(plan, "gate q @a")
    assert not any(id.endswith(("@c", "@d")) for id in steps)


def test_what_is_held_is_not_waited_for(project: Project) -> None:
    inventory, resources, found = pair(project)
    other = found["unit q.service @b"]
    (own,) = (each for each in resources if isinstance(each, Generation) and each.node == "a")
    found[own.id] = {"stable": True, "rejected": [own.inputs], "inputs": "other", "generations": []}
    assert isinstance(other, Mapping)
    held = holds(resources, found, {"q": inventory.replicas("q")})
    changed = {**found, "unit q.service @b": {**other, "inputs": "other"}}
    assert not any(step.kind == "drain" for step in rolled(inventory, resources, changed, violations=held).steps)


def test_a_rank_that_is_not_stable_has_the_gate_asked_again(project: Project) -> None:
    inventory, resources, found = pair(project)
    plan = rolled(inventory, resources, {**found, GENERATION + "b": {"stable": False, "generations": []}})
    assert {step.id: step.action for step in plan.steps} == {"gate q @a": "verify", GENERATION + "b": "update"}


def test_a_restart_goes_engine_by_engine_and_each_passes_its_gate(project: Project) -> None:
    inventory, *_ = pair(project)
    made = things("restart", chosen(inventory, ["q"]), True)
    found: dict[str, Observed] = {each.id: each.desired() for each in made}
    units = [each.id for each in made if isinstance(each, Unit)]
    plan = rolled(inventory, made, found, replace=units)
    assert {"drain q @a", "unit q.service @a", "unit q.service @b", "probe q @a", "gate q @a"} <= reached(
        plan, "drain q @c"
    )
    assert {step.id for step in plan.steps if step.action == "replace"} == set(units)


def test_what_comes_back_is_restarted_behind_all_its_files(project: Project) -> None:
    inventory, *_ = pair(project)
    made = _bringing(chosen(inventory, ["q"]), lambda generation: "newest", {})
    found: dict[str, Observed] = {each.id: each.desired() for each in made}
    assert rolled(inventory, made, found).steps == (), "it is there"
    cut = rolled(inventory, made, {**found, GENERATION + "b": {"restored": True, "outdated": True}})
    assert {"unit q.service @a", "unit q.service @b"} <= {step.id for step in cut.steps}, "a run ended before"
    found[GENERATION + "b"] = {"restored": False, "target": 1}
    plan = rolled(inventory, made, found)
    assert GENERATION + "b" in reached(plan, "unit q.service @a") & reached(plan, "unit q.service @b")
    assert {"drain q @a", "probe q @a"} <= reached(plan, "gate q @a")
    assert not any(step.node in "cd" for step in plan.steps)


@pytest.mark.parametrize(
    ("made", "content", "id"),
    [
        ([("get_forecast", '{"city": "Paris", "days": "3"}')], "", "gate-tool-call-wrong"),
        ([("get_forecast", '{"city": "Paris", "days": true}')], "", "gate-tool-call-wrong"),
        ([("get_forecast", "{city: Paris}")], "", "gate-tool-call-wrong"),
        ([("other", '{"city": "Paris", "days": 3}')], "", "gate-tool-call-wrong"),
        ([], '<tool_call>{"name": "get_forecast"}</tool_call>', "gate-tool-call-in-text"),
        ([], "It will be sunny.", "gate-tool-not-called"),
    ],
)
def test_a_tool_call_is_judged_by_its_types(made: list[tuple[str, str]], content: str, id: str) -> None:
    with pytest.raises(Refused) as caught:
        judge_tool_call(made, content)
    assert caught.value.id == id
    assert (caught.value.type == "unknown") == (id == "gate-tool-not-called"), "only what failed is brought back"


@pytest.mark.parametrize("before", [{}, {"passed": True}, {"passed": False}])
def test_a_planned_gate_is_asked_though_the_same_state_passed_before(before: dict[str, Any]) -> None:
    assert differing(before, {"passed": True, "speed": 1.0}, Gate.volatile) == []


def test_a_right_tool_call_passes() -> None:
    judge_tool_call([("get_forecast", '{"city": "Paris", "days": 3}')], "")
