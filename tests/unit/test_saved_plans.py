"""A saved plan with plain values: what is kept, that it reads back, and that any change of the world is told."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core.errors import InventoryError, Stale
from sparkops.core.plan import Plan, Step
from sparkops.core.states import Unknown
from sparkops.core.wording import Message
from sparkops.inventory.load import load
from sparkops.reconcile.inputs import inputs
from sparkops.reconcile.plan_file import FORMAT, SCHEMA, SavedPlan, differences, read, steps_of
from tests.errors import fails
from tests.unit.inventory.project import Project

DIGEST = "sha256:" + 64 * "0"
KEYS = st.sampled_from(["content", "mode", "text", "size", "owner"])
VALUES = st.none() | st.booleans() | st.integers(0, 2) | st.text(max_size=3) | st.lists(st.text(max_size=2), max_size=2)
STATES = st.none() | st.dictionaries(KEYS, VALUES, max_size=4)


@st.composite
def steps(draw: st.DrawFn, name: str) -> Step:
    return Step(
        id=f"file {name} @n1",
        kind=draw(st.sampled_from(["file", "unit", "a kind of someone else's"])),
        node="n1",
        action=draw(st.sampled_from(["create", "update", "delete", "verify"])),
        before=draw(STATES),
        after=draw(STATES),
        changes=tuple(draw(st.lists(KEYS, max_size=2))),
        disruptive=draw(st.booleans()),
        service=draw(st.none() | st.just("qwen")),
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    names = draw(st.lists(st.sampled_from(["/a", "/b", "/c"]), unique=True))
    made = tuple(draw(steps(name)) for name in names)
    blocked = {step.id: Message.of("not-answered") for step in made if draw(st.booleans())}
    return Plan(steps=made, blocked=blocked, nodes=("n1",))


def keep(plan: Plan, *, limit: tuple[str, ...] = (), shard: list[int] | None = None) -> SavedPlan:
    about = {"schema": FORMAT, "cluster": "attic", "sparkops": "1.0", "made": "2026-11-24T12:00:00Z"}
    selection = {"limit": list(limit), "roles": [], "shard": shard}
    return SavedPlan({**about, "selection": selection, "inputs": {"inventory": DIGEST}, "steps": steps_of(plan)})


def told(planned: SavedPlan, now: Plan) -> list[tuple[str, dict[str, Any]]]:
    """The ids of what differs, with their arguments beside the step."""
    return [
        (each.id, {key: value for key, value in each.args.items() if key != "step"})
        for each in differences(planned, now)
    ]


def step(**more: Any) -> Step:
    plain = {"id": "file /a @n1", "kind": "file", "node": "n1", "action": "update", "changes": ("content",)}
    return Step(**{**plain, "before": {"content": "old"}, "after": {"content": "new"}, **more})


@given(plans())
def test_a_saved_plan_reads_back_as_it_was_and_its_schema_accepts_it(plan: Plan) -> None:
    kept = keep(plan, limit=("n*",))
    text = kept.text
    jsonschema.validate(json.loads(text), SCHEMA)
    back = read(text.encode())
    assert back == kept
    assert back.text == text
    assert back.selection == {"limit": ("n*",), "roles": (), "shard": None}


@given(plans())
def test_the_plan_of_an_unchanged_world_holds(plan: Plan) -> None:
    assert differences(read(keep(plan).text.encode()), plan) == ()


@given(plans(), plans())
def test_two_plans_are_the_same_exactly_when_nothing_is_told(one: Plan, other: Plan) -> None:
    def canonical(plan: Plan) -> list[str]:
        return sorted(json.dumps(each, sort_keys=True) for each in keep(plan).told["steps"])

    assert (differences(keep(one), other) == ()) == (canonical(one) == canonical(other))


@given(st.dictionaries(st.sampled_from("abc"), VALUES, min_size=1), st.sampled_from("abc"), VALUES)
def test_any_found_value_that_changes_is_named_with_its_key(found: dict[str, Any], key: str, value: Any) -> None:
    before = step(before=found)
    after = step(before={**found, key: value})
    moved = differences(keep(Plan(steps=(before,))), Plan(steps=(after,)))
    if key in found and json.dumps(found[key]) == json.dumps(value):
        assert moved == ()
    else:
        assert [(each.id, each.args["key"]) for each in moved] == [("plan-found-moved", key)]


def test_what_came_went_or_became_unknown_is_told() -> None:
    planned = keep(Plan(steps=(step(),)))
    new = step(id="file /b @n1")
    assert told(planned, Plan(steps=(step(), new))) == [("plan-step-new", {"action": "update"})]
    assert told(planned, Plan()) == [("plan-step-needless", {"action": "update"})]
    why = Unknown.of("not-answered")
    unknown = [("plan-step-unknown", {"action": "update", "reason": why})]
    assert told(planned, Plan(unknown={"file /a @n1": why})) == unknown
    created = Plan(steps=(step(action="create", before=None),))
    assert told(planned, created) == [("plan-action-moved", {"planned": "update", "present": "create"})]


def test_a_silent_node_is_told_once_and_not_by_each_of_its_steps() -> None:
    planned = keep(Plan(steps=(step(), step(id="file /b @n1"))))
    why = Message.of("not-answered")
    assert told(planned, Plan(unreachable={"n1": why})) == [("plan-node-silent", {"node": "n1", "reason": why})]


def test_a_new_interruption_and_a_new_hindrance_are_told() -> None:
    planned = keep(Plan(steps=(step(service="qwen"),)))
    disruptive = Plan(steps=(step(disruptive=True, service="qwen"),))
    assert told(planned, disruptive) == [("plan-step-interrupts", {"service": "qwen"})]
    why = Message.of("blocked-by-step", step="driver 610")
    blocked = Plan(steps=(step(service="qwen"),), blocked={"file /a @n1": why})
    assert told(planned, blocked) == [("plan-step-blocked", {"reason": why})]
    assert [id for id, _ in told(keep(blocked), Plan(steps=blocked.steps))] == ["plan-step-not-blocked"]


def test_what_only_differs_from_look_to_look_is_not_compared() -> None:
    found = {"content": "old", "size": 3, "text": "old text"}
    planned = keep(Plan(steps=(step(before=found),)))
    assert differences(planned, Plan(steps=(step(before={**found, "size": 4, "text": "x"}),))) == ()
    assert "old text" not in planned.text


def test_a_proof_is_not_held_to_what_was_seen_before_it() -> None:
    proof = step(action="verify", before={"models": ["a"]}, after={"answers": True})
    again = dataclasses.replace(proof, before={"models": ["b"]})
    assert differences(keep(Plan(steps=(proof,))), Plan(steps=(again,))) == ()


def test_a_long_list_of_changes_ends_with_its_number() -> None:
    many = tuple(step(id=f"file /{number} @n1") for number in range(50))
    with fails("plan-outdated") as caught:
        keep(Plan()).refuse_other_steps(Plan(steps=many))
    assert caught.value.exit_status == 4
    assert str(caught.value).splitlines()[-2] == "  and 38 more"


@pytest.mark.parametrize(
    ("change", "id"),
    [
        ({"inventory": "sha256:" + 64 * "1"}, "plan-input-changed"),
        ({"role motd": DIGEST}, "plan-input-new"),
        ({"-e": DIGEST}, "plan-made-without-values"),
    ],
)
def test_other_inputs_are_refused_by_name(change: dict[str, str], id: str) -> None:
    plan = keep(Plan())
    plan.refuse_other_inputs("attic", "1.0", plan.told["inputs"])
    with fails("plan-outdated", Stale) as caught:
        plan.refuse_other_inputs("attic", "1.0", {**plan.told["inputs"], **change})
    assert isinstance(caught.value, Stale)
    assert [each.id for each in caught.value.args_by_name["differences"]] == [id]


def test_the_words_of_a_refusal_name_each_thing_and_both_values() -> None:
    found, now = step(), step(before={"content": "newer"})
    with fails("plan-outdated") as caught:
        keep(Plan(steps=(found,))).refuse_other_steps(Plan(steps=(now,)))
    assert 'file /a @n1: content was "old", is now "newer"' in str(caught.value)


def test_another_version_is_stale_and_another_cluster_wrong_input() -> None:
    plan = keep(Plan())
    with fails("plan-outdated"):
        plan.refuse_other_inputs("attic", "1.1", plan.told["inputs"])
    with fails("plan-of-other-cluster"):
        plan.refuse_other_inputs("garage", "1.0", plan.told["inputs"])


@pytest.mark.parametrize(
    ("content", "id"),
    [
        (b"", "plan-not-json"),
        (b"\xff\xfe", "plan-not-json"),
        (b"[" * 100_000, "plan-not-json"),
        (b"[]", "plan-format-unknown"),
        (b'{"schema": "sparkops.report/2"}', "plan-format-unknown"),
        (b'{"schema": "sparkops.plan/2"}', "plan-format-unknown"),
        (b'{"schema": "sparkops.plan/1"}', "plan-field-invalid"),
    ],
)
def test_what_is_no_plan_is_refused_with_the_way_out(content: bytes, id: str) -> None:
    with fails(id, InventoryError) as caught:
        read(content, "plan.json")
    assert caught.value.exit_status == 1
    assert "plan.json" in str(caught.value) and "sparkops plan -o" in str(caught.value)


def test_an_edited_plan_is_refused_and_a_wrong_value_is_named_with_its_place() -> None:
    text = json.loads(keep(Plan(steps=(step(),))).text)
    text["steps"][0]["before"] = {"content": "other"}
    with fails("plan-changed-after-saving"):
        read(json.dumps(text).encode())
    text["steps"][0]["action"] = "destroy"
    with fails("plan-field-invalid"):
        read(json.dumps(text).encode())


def test_a_shard_that_there_is_not_is_refused() -> None:
    with fails("plan-shard-missing"):
        read(keep(Plan(), shard=[3, 2]).text.encode())


@given(st.data())
def test_no_single_changed_character_is_taken_for_the_plan(data: st.DataObject) -> None:
    text = keep(Plan(steps=(step(),))).text
    place = data.draw(st.integers(0, len(text) - 1))
    other = text[:place] + data.draw(st.characters(min_codepoint=32, max_codepoint=126)) + text[place + 1 :]
    try:
        found = read(other.encode())
    except InventoryError:
        return
    assert found == read(text.encode()), "only white space may differ"


INVENTORY = "version: 1\ncluster: attic\nnodes: {n1: {}}\nroles: [motd]\n"
ROLE = "{summary: a greeting, scope: node, resources: [{file: /etc/motd, content: TEXT}]}"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.role("motd", ROLE)
    made.write("templates/one.j2", "one")
    made.write("inventory.yml", INVENTORY)
    return made


def digests(project: Project, *extra: tuple[str, str]) -> dict[str, str]:
    return inputs(load(project.folder / "inventory.yml", extra=extra), (), extra)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("inventory.yml", "inventory"),
        ("roles/motd/role.yml", "role motd"),
        ("roles/motd/templates/x.j2", "role motd"),
        ("templates/two.j2", "templates"),
    ],
)
def test_a_changed_file_changes_the_digest_of_what_it_belongs_to(project: Project, path: str, name: str) -> None:
    before = digests(project)
    text = {"inventory.yml": INVENTORY + "# more\n", "roles/motd/role.yml": ROLE.replace("TEXT", "OTHER")}
    project.write(path, text.get(path, "new"))
    after = digests(project)
    assert {key for key in before if before[key] != after[key]} == {name}


def test_what_editors_leave_behind_and_unused_roles_change_nothing(project: Project) -> None:
    before = digests(project)
    project.write("roles/motd/.role.yml.swp", "x")
    project.write("roles/motd/role.yml~", "x")
    project.role("unused", ROLE)
    assert digests(project) == before


def test_values_of_the_command_line_count_and_none_is_hashed_alone(project: Project) -> None:
    pair = ("driver.pin", "hunter2")
    found = digests(project, pair)
    assert found["-e"] != digests(project, ("driver.pin", "hunter3"))["-e"]
    alone = {hashlib.sha256(each.encode()).hexdigest() for each in (pair[1], json.dumps([list(pair)]))}
    assert found["-e"].removeprefix("sha256:") not in alone
