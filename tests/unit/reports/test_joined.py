"""Reports of shards, joined: nothing lost, nothing twice, and what was not given is not called well."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.cli import app
from sparkops.core.joined import joined
from sparkops.core.plan import Between, Orphan, Plan, Violation
from sparkops.core.report import Past, Report, Result, Rollout, Seen, Shards
from sparkops.core.states import Unknown
from sparkops.core.wording import Message
from sparkops.reports.formats import FORMATS, rendered
from sparkops.reports.json import as_json
from sparkops.reports.kept.json import of_file
from tests.errors import fails
from tests.unit.reports.made import declared, said, step

LOOKS = ("as-declared", "drifted", "violated", "unknown", "silent", "orphan")


def of_node(node: str, look: str) -> dict[str, Any]:
    """What a plan says of one node."""
    things = tuple(declared(node))
    id = things[0].id
    found: dict[str, Any] = {"declared": things, "nodes": (node,), "total": 1}
    if look == "drifted":
        found["steps"] = (replace(step(id, node), diff=""),)
    elif look == "violated":
        found["violations"] = (Violation(message=said("bad"), resource=id, node=node, severity="error"),)
    elif look == "unknown":
        found["unknown"] = {id: Unknown.of("not-answered")}
    elif look == "silent":
        found["unreachable"] = {node: Message.of("not-answered")}
    elif look == "orphan":
        found["orphans"] = (Orphan(id=f"file /old @{node}", node=node, kind="file", name="/old"),)
    return found


def plan_of(looks: dict[str, str]) -> Plan:
    parts = [of_node(node, look) for node, look in looks.items()]
    tuples = ("declared", "nodes", "steps", "violations", "orphans")
    mappings = ("unknown", "unreachable")
    return Plan(
        **{key: tuple(each for part in parts for each in part.get(key, ())) for key in tuples},
        **{key: {id: why for part in parts for id, why in part.get(key, {}).items()} for key in mappings},
        total=len(parts),
    )


def run_over(looks: dict[str, str], command: Any, shard: tuple[int, int] | None = None, **more: Any) -> Report:
    """The report of a run over these nodes."""
    plan = plan_of(looks)
    notices = (Message.of("shard-part", shard="1/2", nodes=1, all_nodes=2, groups=2),) if shard else ()
    results: tuple[Result, ...] = ()
    if command == "apply":
        results = tuple(Result(id=each.id, node=each.node, outcome="done", seconds=1.0) for each in plan.steps)
    return Report(
        command=command,
        cluster="c",
        inventory="i.yml",
        plan=replace(plan, notices=(Message.of("not-answered"), *notices)),
        results=results,
        endpoints={node: f"http://{node}" for node in looks},
        seconds=2.0,
        time=9.0,
        whole=True,
        shards=Shards((shard[0],), shard[1]) if shard else None,
        **more,
    )


fleets = st.dictionaries(st.sampled_from([f"n{number}" for number in range(12)]), st.sampled_from(LOOKS))
commands = st.sampled_from(["plan", "drift", "apply"])


def shards_of(looks: dict[str, str], command: Any, parts: int) -> list[Report]:
    names = list(looks)
    return [
        run_over({name: looks[name] for name in names[number::parts]}, command, (number + 1, parts))
        for number in range(parts)
    ]


def unordered(report: Report) -> Any:
    """The report's JSON, whatever the order of its lists."""

    def sorted_lists(told: Any) -> Any:
        if isinstance(told, dict):
            return {key: sorted_lists(each) for key, each in told.items()}
        return (
            sorted(json.dumps(sorted_lists(each), sort_keys=True) for each in told) if isinstance(told, list) else told
        )

    return sorted_lists(as_json(report))


@given(fleets, commands, st.integers(1, 5))
def test_the_shards_joined_are_the_run_over_all(looks: dict[str, str], command: Any, parts: int) -> None:
    assert unordered(joined(shards_of(looks, command, parts))) == unordered(run_over(looks, command))


@given(fleets, commands, st.integers(2, 6), st.data())
def test_it_does_not_matter_in_which_steps_or_order_they_are_joined(
    looks: dict[str, str], command: Any, parts: int, data: st.DataObject
) -> None:
    given_ = data.draw(st.lists(st.sampled_from(shards_of(looks, command, parts)), min_size=2, unique_by=id))
    cut = data.draw(st.integers(1, len(given_) - 1))
    at_once = joined(given_)
    assert unordered(joined([joined(given_[:cut]), joined(given_[cut:])])) == unordered(at_once)
    assert unordered(joined(list(reversed(given_)))) == unordered(at_once)


@given(fleets, commands, st.integers(2, 5))
def test_a_shard_that_was_not_given_is_never_called_well(looks: dict[str, str], command: Any, parts: int) -> None:
    some = joined(shards_of(looks, command, parts)[1:])
    assert some.exit_status != 0
    assert some.shards is not None and some.shards.missing == (1,)
    assert some.plan.unreachable[f"shard 1/{parts}"].id == "shard-not-merged"
    for form in FORMATS:
        assert f"shard 1/{parts}" in rendered(some, form), form


@given(fleets, commands)
def test_a_report_comes_back_out_of_its_file(
    tmp_path_factory: pytest.TempPathFactory, looks: Any, command: Any
) -> None:
    report = run_over(looks, command, (2, 3), rollouts=(Rollout(service="q", nodes=("n1",), state="returned"),))
    signs = {each["id"]: Seen(run="r", time=1.0) for each in as_json(report)["findings"]}
    told = {f"{id} {each.id}": seen for id, seen in signs.items() for each in report.plan.declared}
    report = replace(report, past=Past(since=told, origins={each.id: "corrective" for each in report.plan.steps}))
    path = tmp_path_factory.mktemp("r") / "r.json"
    path.write_text(rendered(report, "json"))
    assert as_json(of_file(path)) == as_json(report)


def test_what_is_not_of_one_run_is_refused() -> None:
    one, two = shards_of({"a": "drifted", "b": "as-declared"}, "drift", 2)
    for other in (replace(two, cluster="d"), replace(two, command="plan"), replace(two, shards=Shards((2,), 3))):
        with fails("reports-not-alike"):
            joined([one, other])
    larger = Message.of("shard-part", shard="2/2", nodes=1, all_nodes=3, groups=3)
    with fails("reports-not-alike"):  # of an inventory of yesterday, whose other nodes nobody looked at
        joined([one, replace(two, plan=replace(two.plan, notices=(larger,)))])
    for other in (one, replace(one, shards=Shards((2,), 2))):
        with fails("reports-overlap"):
            joined([one, other])


def test_reports_of_other_nodes_without_shards_are_joined_too() -> None:
    both = joined([run_over({"a": "drifted"}, "drift"), run_over({"b": "silent"}, "drift")])
    assert (both.plan.nodes, both.exit_status, both.shards) == (("a", "b"), 2, None)
    between = replace(plan_of({"c": "as-declared"}), between=(Between(service="q", fact="f", values={"c": 1}),))
    assert joined([both, replace(both, plan=between)]).plan.between


def test_the_command_joins_files_in_every_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, each in enumerate(shards_of({"a": "drifted", "b": "as-declared"}, "drift", 2), 1):
        (tmp_path / f"{number}.json").write_text(rendered(each, "json"))
    written = [word for form in FORMATS for word in ("--report", f"{form}=all.{form}")]
    assert app.run(["report", "merge", "1.json", "2.json", *written]) == 2
    assert "2 nodes" in capsys.readouterr().out
    assert all((tmp_path / f"all.{form}").stat().st_size for form in FORMATS)
    assert app.run(["report", "merge", "1.json"]) == 2
    assert app.run(["report", "merge", "2.json"]) == 3
    for content in ("", "[]", "{}", '{"schema": "sparkops.report/1"}', '{"schema": "sparkops.report/2"}', "9" * 9999):
        (tmp_path / "other.json").write_text(content)
        assert app.run(["report", "merge", "1.json", "other.json"]) == 1, content
        assert "report-file-invalid" in capsys.readouterr().err
    assert app.run(["report", "merge", "1.json", "none.json"]) == 1
