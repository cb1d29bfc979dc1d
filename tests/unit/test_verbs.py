"""What the verbs mean, as values: services to resources, answers to a status, entries to runs."""

from __future__ import annotations

import io
from typing import Any

import click
import pytest
from rich.console import Console

from sparkops.cli.app import COMMANDS, cli
from sparkops.core.messages import UNKNOWN
from sparkops.core.wording import Message
from sparkops.operate.exec import Execution, exit_status
from sparkops.operate.history import runs
from sparkops.operate.services import Rank, selected
from sparkops.operate.start_stop import things
from sparkops.operate.status import FACTS, NodeStatus, RankStatus, Status, _node, _rank
from sparkops.reports.printer import Printer
from sparkops.reports.status import as_json, render
from sparkops.resources.probe import Probe
from sparkops.resources.unit import Unit
from tests.errors import fails
from tests.unit.inventory.project import Project


def rank(node: str, probe: bool = True) -> Rank:
    return Rank(
        service="q",
        node=node,
        unit=Unit(node=node, name="q.service", content="[Service]", running=True, port=1),
        probe=Probe(node=node, name="q", port=1, after=("file /x @n",)) if probe else None,
    )


def test_a_start_is_units_that_run_and_then_probes_that_answer() -> None:
    made = things("start", [rank("n"), rank("m")], wait=True)
    units = [each for each in made if isinstance(each, Unit)]
    probes = [each for each in made if isinstance(each, Probe)]
    assert [unit.id for unit in units] == ["unit q.service @n", "unit q.service @m"]
    assert all(unit.running and unit.content is None and not unit.wait for unit in units)
    assert all(unit.port == 1 for unit in units), "nothing is started where something foreign listens"
    assert all(probe.after == tuple(unit.id for unit in units) for probe in probes), "the group is one"
    assert all(each.peer_nodes == ("n", "m") for each in made), "with a silent node it is not touched"


def test_without_a_probe_systemd_is_waited_for_and_without_waiting_nothing() -> None:
    (unit,) = things("start", [rank("n", probe=False)], wait=True)
    assert isinstance(unit, Unit)
    assert unit.wait
    (unit,) = things("restart", [rank("n")], wait=False)
    assert isinstance(unit, Unit)
    assert not unit.wait


def test_a_stop_asks_nothing_and_does_not_wait_for_a_silent_node() -> None:
    made = things("stop", [rank("n"), rank("m")], wait=True)
    assert {each.kind for each in made} == {"unit"}
    assert all(each.peer_nodes == () for each in made)
    assert all(isinstance(each, Unit) and each.running is False and each.port is None for each in made)


SILENT = Message.of("not-answered")


def status(*ranks: RankStatus, reason: Message | None = None) -> Status:
    return Status(cluster="c", time=0.0, nodes=(NodeStatus(name="n", reason=reason),), ranks=ranks)


def one(state: str, answers: bool | None) -> RankStatus:
    return RankStatus(service="q", node="n", unit="q.service", state=state, answers=answers)


def test_the_exit_status_is_2_for_what_does_not_serve_and_3_for_what_is_not_known() -> None:
    assert status(one("active (running)", True)).exit_status == 0
    assert status(one("active (running)", None)).exit_status == 0, "a service without a probe"
    assert status(one("active (running)", False)).exit_status == 2
    assert status(one("activating (start)", False)).exit_status == 2
    assert status(one("absent", None)).exit_status == 2
    assert status(one("", None), reason=SILENT).exit_status == 3
    assert status(one("", None), one("failed (failed)", False), reason=SILENT).exit_status == 2


@pytest.mark.parametrize(
    ("state", "answers", "serving"),
    [("active (running)", True, True), ("active (running)", False, False), ("", None, None)],
)
def test_a_service_of_which_nothing_is_known_is_not_said_to_be_down(
    state: str, answers: bool | None, serving: bool | None
) -> None:
    up = one("active (running)", True)
    for ranks in ((one(state, answers),), (up, one(state, answers))):
        assert as_json(status(*ranks))["services"][0]["serving"] is serving
    assert as_json(status(one("failed (failed)", None), one("", None)))["services"][0]["serving"] is False


def test_what_was_asked_and_could_not_be_told_is_not_known() -> None:
    refused = RankStatus(service="q", node="n", unit="q.service", state="active (running)", reason=SILENT)
    assert status(refused).exit_status == 3


def told(unit: dict[str, Any], probe: Any, ahead: float = 0.0) -> RankStatus:
    """The rank of a node that answered so, whose clock is so many seconds ahead of this machine's."""
    declared = rank("n")
    assert declared.probe is not None
    found = {"exists": True, "restarts": 0, **unit}
    serving = {"found": {"health": probe, "counted": {UNKNOWN: {"id": "metrics-refused", "args": {}}}}}
    return _rank(declared, {declared.unit.id: {"found": found}, declared.probe.id: serving}, 0.0, None, ahead)


def test_a_service_that_was_stopped_is_said_to_be_stopped() -> None:
    stopped = {"state": "inactive (dead)", "property.StatusText": "stopping"}
    found = told(stopped, {"found": {"answers": False, "why": "process 4 (vllm) listens on port 1, and not q"}})
    assert found.reason is not None
    assert (found.reason.id, found.phase, found.answers) == ("unit-stopped", "", False)
    out = io.StringIO()
    render(status(found), Printer(Console(file=out, width=200, highlight=False, markup=False)))
    assert "– q.service is stopped" in out.getvalue()
    assert "✗" not in out.getvalue()


def test_a_service_whose_unit_is_masked_is_not_only_stopped() -> None:
    found = told(
        {"state": "inactive (dead)", "masked": True}, {"found": {"answers": False, "why": "the unit is stopped"}}
    )
    assert found.reason is not None and found.reason.id == "unit-masked"


def test_whether_a_service_answers_that_refuses_the_question_is_not_known() -> None:
    found = told({"state": "active (running)"}, {UNKNOWN: {"id": "completion-refused", "args": {"text": "401"}}})
    assert found.answers is None
    assert found.reason is not None
    assert found.reason.id == "completion-refused"
    assert status(found).exit_status == 3


@pytest.mark.parametrize("ahead", [0.0, 3600.0, -3600.0])
def test_times_of_a_node_whose_clock_is_wrong_are_told_by_this_machines(ahead: float) -> None:
    """`since 0 s`, and a token that was generated an hour ago."""
    kept = {"last_token": 5000.0 + ahead, "last_hang": {"path": "/x", "at": 4000.0 + ahead}}
    started = {"property.ActiveEnterTimestampMonotonic": "7000000"}
    found = told({"state": "active (running)", **kept, **started}, {"found": {"answers": True}}, ahead)
    assert (found.token, found.hung, found.since) == (5000.0, 4000.0, 7.0)
    node = _node("n", {FACTS: {"found": {"uptime": {"pid1_started": 3000.0 + ahead}}}}, (), None, ahead)
    assert node.booted == 3000.0


def test_the_file_that_describes_the_last_hang_is_named() -> None:
    hang = {"path": "/var/lib/sparkops/services/q/last-hang.txt", "at": 5}
    found = told({"state": "active (running)", "restarts": 1, "last_hang": hang}, {"found": {"answers": True}})
    assert (found.hang, found.hung) == (hang["path"], 5)
    assert as_json(status(found))["services"][0]["ranks"][0]["last_hang"] == {"path": hang["path"], "time": 5}


def test_runs_over_several_nodes_are_one_and_in_order() -> None:
    def entry(run: str, time: float, outcome: str) -> dict[str, Any]:
        return {"run": run, "time": time, "steps": [{"id": "x", "outcome": outcome}]}

    told = {"n": [entry("a", 1.0, "done"), entry("b", 3.0, "done")], "m": [entry("a", 2.0, "failed"), {"odd": 1}]}
    found = runs(told, 10)
    assert [run.time for run in found] == [0.0, 1.0, 3.0]
    both = found[1]
    assert list(both.entries) == ["n", "m"]
    assert [step["outcome"] for step in both.steps] == ["done", "failed"]
    assert [run.time for run in runs(told, 1)] == [3.0]


def test_exec_fails_with_4_before_3() -> None:
    assert exit_status({"n": Execution(status=0)}) == 0
    assert exit_status({"n": Execution(status=0), "m": Execution(reachable=False)}) == 3
    assert exit_status({"n": Execution(status=1), "m": Execution(reachable=False)}) == 4
    assert exit_status({"n": Execution(timed_out=True)}) == 4


# Options: what a command can be told by the same word everywhere

WORDS = {"--limit", "--role", "-e", "--jobs"}
SENSE = {
    **dict.fromkeys(("plan", "apply", "drift", "watch"), WORDS),
    **dict.fromkeys(("status", "start", "stop", "restart"), {"--limit", "-e", "--jobs"}),
    **dict.fromkeys(("logs", "bench"), {"--limit", "-e"}),  # all nodes of a service are listened to at once
    **dict.fromkeys(("exec", "facts", "history", "cancel", "gc"), {"--limit", "--jobs"}),  # these read no variables
    "generations": {"--limit", "-e", "--jobs"},
    **dict.fromkeys(("remove", "diagnose", "rollback"), {"-e", "--jobs"}),  # their arguments are the nodes and services
    "discover": {"--jobs"},  # its arguments are the hosts
    "trust": {"--limit"},  # a person is asked, node by node
    "render": {"-e"},
    "endpoints": {"--limit", "-e"},  # no node is asked
}


@pytest.mark.parametrize("name", SENSE)
def test_a_command_takes_the_common_options_that_make_sense_for_it(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    given = {word for each in command.params for word in each.opts}
    assert given & WORDS == SENSE[name]


def test_no_command_that_speaks_with_nodes_is_left_out_of_the_table() -> None:
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        given = {word for each in command.params for word in each.opts}
        assert name in SENSE or "--jobs" not in given


@pytest.fixture
def project(tmp_path: Any) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize(
    ("services", "limit", "meant"),
    [
        (["b"], [], "b"),
        ([], ["n1"], "a"),
        ([], ["n2"], "b c"),
        ([], ["all"], "a b c"),
        ([], ["!n1"], "b c"),
        (["c", "a"], ["n2"], "c"),
        (["nonsense"], ["n2"], "nonsense"),
    ],
)
def test_limit_means_the_services_on_the_selected_nodes(
    project: Project, services: list[str], limit: list[str], meant: str
) -> None:
    nodes = "nodes: {n1: , n2: , n3: , n4: }\n"
    declared = "services: {a: {nodes: [n1]}, b: {nodes: [n2, n3]}, c: {nodes: [n3]}, d: {nodes: [n1], state: retired}}"
    found = project.load(f"version: 1\ncluster: x\n{nodes}{declared}")
    assert " ".join(selected(found, services, limit)) == meant


@pytest.mark.parametrize(("limit", "id"), [([], "services-not-given"), (["n4"], "no-service-on-nodes")])
def test_no_service_is_never_taken_for_all(project: Project, limit: list[str], id: str) -> None:
    found = project.load("version: 1\ncluster: x\nnodes: {n1: , n4: }\nservices: {a: {nodes: [n1]}}")
    with fails(id):
        selected(found, [], limit)
