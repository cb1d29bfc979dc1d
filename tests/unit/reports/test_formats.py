"""The formats of a report: each read back by somebody else's reader, with hostile texts in every place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import xmlschema
from hypothesis import given, settings
from markdown_it import MarkdownIt
from prometheus_client.parser import text_string_to_metric_families

from sparkops.core.plan import Plan
from sparkops.core.report import Past, Report, Result, Rollout, Seen
from sparkops.core.wording import Message
from sparkops.reports.findings import sarif
from sparkops.reports.formats import FORMATS, rendered
from sparkops.reports.kept.json import from_json
from sparkops.reports.run.findings import Standing, counts, findings, standings
from sparkops.reports.run.page import page
from tests.unit.reports.made import HOSTILE, applied, declared, report, step, texts

DATA = Path(__file__).parents[2] / "data" / "formats"
SARIF = json.loads((DATA / "sarif-2.1.0.json").read_text())
JUNIT = xmlschema.XMLSchema(DATA / "junit-10.xsd")


def states_of(shown: Report) -> Mapping[str, Standing]:
    return standings(shown, findings(shown))


def test_every_declared_resource_is_in_one_of_four_states() -> None:
    assert counts(states_of(report())) == {"as-declared": 2, "drifted": 1, "violation": 1, "unknown": 2}


def test_what_a_run_repaired_is_as_declared() -> None:
    done = Result(id="file /etc/motd @a", node="a", outcome="done")
    after = report("apply", results=(done,))
    assert states_of(after)["file /etc/motd @a"] == "as-declared"
    assert "file /etc/motd @a" not in {each.resource for each in findings(after)}


def brought_back(state: Any) -> Report:
    """An apply that changed an engine of `q` on a, which failed its gate, with the state in which that ended."""
    (thing,) = declared("a")
    things = [replace(thing, service="q"), *declared("a", name="/other"), *declared("b", service="q")]
    steps = tuple(step(each.id, each.node, service=each.service) for each in things)
    results = tuple(Result(id=each.id, node=each.node, outcome="done") for each in steps)
    plan = Plan(steps=steps, declared=tuple(things), nodes=("a", "b"), total=3)
    ended = (Rollout(service="q", nodes=("a",), state=state), Rollout(service="q", nodes=("b",), state="done"))
    return Report(command="apply", cluster="x", inventory="i", plan=plan, results=results, rollouts=ended, run="r")


@pytest.mark.parametrize(
    ("state", "standing"),
    [("done", "as-declared"), ("returned", "drifted"), ("return failed", "unknown"), ("failed", "as-declared")],
)
def test_what_was_done_and_taken_back_is_not_as_declared(state: Any, standing: str) -> None:
    shown = brought_back(state)
    assert list(states_of(shown).values()) == [standing, "as-declared", "as-declared"]
    assert states_of(from_json(json.loads(rendered(shown, "json")))) == states_of(shown)


def test_what_a_run_has_done_or_will_not_attempt_interrupts_no_service() -> None:
    stopping = step("unit q.service @a", "a", service="q", disruptive=True)
    blocked = step("unit r.service @a", "a", service="r", disruptive=True)
    plan = Plan(steps=(stopping, blocked), blocked={blocked.id: Message.of("not-answered")}, nodes=("a",), total=2)
    shown = Report(command="drift", cluster="x", inventory="i", plan=plan)
    assert 'repair_interrupts_service{cluster="x",command="drift",service="q"} 1.0' in rendered(shown, "prometheus")
    done = replace(shown, command="apply", results=(Result(id=stopping.id, node="a", outcome="done"),))
    for each, names in ((shown, ["q"]), (done, [])):
        assert [one for one in "qr" if f'service="{one}"' in rendered(each, "prometheus")] == names
        assert [one.service for one in page(each).repair] == names
    assert "; interrupts q" in rendered(shown, "text") and "; interrupts q, r" not in rendered(shown, "text")


def test_a_failed_step_is_an_error_with_its_own_reason() -> None:
    first = findings(applied())[0]
    assert (first.id, first.severity, first.standing) == ("error", "error", "violation")
    assert {each.severity for each in findings(applied()) if each.resource == "file /etc/motd @a"} == {"error"}


@pytest.mark.parametrize(
    ("origin", "disruptive", "severity"),
    [(None, False, "warning"), (None, True, "error"), ("corrective", True, "error"), ("both", True, "error"),
     ("corrective", False, "warning"), ("intentional", True, "info"), ("new", False, "warning")],
)  # fmt: skip
def test_the_severity_of_a_difference_follows_from_who_moved_and_what_it_interrupts(
    origin: Any, disruptive: bool, severity: str
) -> None:
    (thing,) = declared("a")
    plan = Plan(steps=(step(thing.id, "a", disruptive=disruptive),), declared=(thing,), nodes=("a",), total=1)
    past = Past(
        origins={thing.id: origin} if origin else {}, since={f"drift-differs {thing.id}": Seen(run="r", time=1.0)}
    )
    (found,) = findings(Report(command="drift", cluster="x", inventory="i", plan=plan, past=past))
    assert (found.severity, found.origin, found.where) == (severity, origin, "inventory.yml:3:5")
    assert found.since == Seen(run="r", time=1.0)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_names_the_drifted_resource(form: str) -> None:
    shown = rendered(report(), form)
    assert "drift-differs" in shown or "/etc/motd" in shown
    assert shown.endswith("\n")


@pytest.mark.parametrize("form", [each for each in FORMATS if each != "prometheus"])
@pytest.mark.parametrize(
    "why",
    ["/v1/completions answers 500:\n dead", {"id": "error", "args": {"text": "/v1/completions answers 500: dead"}}],
)
def test_every_format_tells_why_the_node_says_that_a_resource_is_not_as_declared(form: str, why: object) -> None:
    (thing,) = declared("a", name="probe")
    found = step(thing.id, "a", before={"answers": False, "why": why}, after={"answers": True}, changes=("answers",))
    plan = Plan(steps=(found,), declared=(thing,), nodes=("a",), total=1)
    shown = rendered(Report(command="drift", cluster="x", inventory="i", plan=plan), form)
    assert "/v1/completions answers 500:" in shown.replace("\\n", "")


@settings(deadline=None, max_examples=40)
@given(texts)
def test_junit_is_valid_whatever_it_says(text: str) -> None:
    for each in (report(text=text), applied(text)):
        JUNIT.validate(rendered(each, "junit").encode())


def test_junit_tells_failures_from_errors() -> None:
    suites = {each["@name"]: each for each in JUNIT.to_dict(rendered(report(), "junit"))["testsuite"]}
    told = {name: [int(each[key]) for key in ("@tests", "@failures", "@errors")] for name, each in suites.items()}
    assert told == {"a": [3, 2, 0], "b": [3, 1, 1], "c": [2, 0, 2]}


@settings(deadline=None, max_examples=40)
@given(texts)
def test_sarif_is_valid_whatever_it_says(text: str) -> None:
    for each in (report(text=text), applied(text)):
        jsonschema.validators.validator_for(SARIF)(SARIF).validate(json.loads(rendered(each, "sarif")))


def test_sarif_points_at_the_inventory() -> None:
    results = json.loads(rendered(report(), "sarif"))["runs"][0]["results"]
    places = [each["locations"][0].get("physicalLocation") for each in results]
    assert {"artifactLocation": {"uri": "inventory.yml"}, "region": {"startLine": 3}} in places


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ("a.yml:3:5", ("a.yml", 3)),
        ("a.yml:3", ("a.yml", 3)),
        ("a:b.yml:3:5", ("a:b.yml", 3)),
        ("", ("", 0)),
        ("a", ("", 0)),
    ],
)
def test_a_place_is_a_file_and_a_line(where: str, place: tuple[str, int]) -> None:
    assert sarif.place(where) == place


@settings(deadline=None, max_examples=40)
@given(texts)
def test_annotations_are_one_line_each(text: str) -> None:
    for each in (report(text=text), applied(text)):
        lines = rendered(each, "github").split("\n")
        assert len(lines) == 1 + sum(not found.accepted for found in findings(each))
        assert all(line.startswith(("::error ", "::warning ", "::notice ")) for line in lines[:-1])


@settings(deadline=None, max_examples=40)
@given(texts)
def test_metrics_are_read_whatever_they_say(text: str) -> None:
    families = {each.name: each for each in text_string_to_metric_families(rendered(report(text=text), "prometheus"))}
    states = {
        (each.labels["node"], each.labels["state"]): each.value for each in families["sparkops_resources"].samples
    }
    assert (states["a", "drifted"], states["b", "violation"], states["c", "unknown"]) == (1, 1, 1)
    assert [each.value for each in families["sparkops_node_reachable"].samples] == [1, 1, 0]
    assert families["sparkops_run_exit_status"].samples[0].value == 2


@settings(deadline=None, max_examples=40)
@given(texts)
def test_markdown_holds_no_markup_but_its_own(text: str) -> None:
    """As GitHub renders it: tables and HTML; of HTML only the frames that unfold are there."""
    for each in (report(text=text), applied(text)):
        page = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(rendered(each, "markdown"))
        tags = page.replace("<details><summary>", "").replace("</summary>", "").replace("</details>", "")
        for tag in ("<script", "<style", "<img", "<a ", "<details", "</details"):
            assert tag not in tags.lower()


def test_in_markdown_nobody_is_mentioned() -> None:
    shown = MarkdownIt("gfm-like", {"linkify": False}).render(rendered(report(text=HOSTILE), "markdown"))
    assert all("<code" in line or "&#" in line or "<td" not in line for line in shown.splitlines() if "@" in line)
