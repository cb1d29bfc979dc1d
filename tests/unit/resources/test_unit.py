"""What a declared unit means, over plain values."""

from __future__ import annotations

from typing import Any

import pytest

from sparkops.core.plan import Step
from sparkops.core.secrets import Content, Secret
from sparkops.core.states import Pending, Unknown
from sparkops.reconcile.diff import diff
from sparkops.resources.unit import Unit, inputs_lines
from tests.errors import fails

TEXT = "[Service]\nExecStart=/bin/true\n"


def unit(**given: Any) -> Unit:
    return Unit(**{"node": "spark-01", "name": "qwen.service", **given})


def as_declared(declared: Unit) -> dict[str, Any]:
    return dict(declared.desired() or {})


def changes(declared: Unit, **found: Any) -> tuple[str, ...]:
    difference = diff(declared, as_declared(declared) | found, {})
    assert not isinstance(difference, Unknown)
    return difference.changes if isinstance(difference, Step) else ()


def service() -> Unit:
    return unit(
        content=TEXT, enabled=True, running=True, inputs="abc", container="qwen", image="repo:tag", secret="A=1\n"
    )


def step(kind: str, name: str, **after: Any) -> Step:
    return Step(
        id=f"{kind} {name} @spark-01", kind=kind, node="spark-01", action="create", before=None, after=after, changes=()
    )


def test_what_is_not_declared_is_not_compared() -> None:
    assert unit(content=TEXT).desired() == {"content": unit(content=TEXT).ask()["content"], "reload_needed": False}


def test_to_run_means_neither_masked_nor_failed() -> None:
    assert unit(running=True).desired() == {"masked": False, "reload_needed": False, "running": True, "failed": False}


def test_a_process_from_other_inputs_is_a_difference_that_interrupts() -> None:
    assert changes(service(), inputs="other") == ("inputs",)
    assert "inputs" in Unit.interrupts


def test_a_process_that_does_not_say_its_inputs_is_a_difference() -> None:
    assert changes(service(), inputs="") == ("inputs",)


def test_where_nothing_runs_only_that_is_said() -> None:
    stopped = {
        "running": False,
        "inputs": None,
        "container_inputs": None,
        "container_image": None,
        "container_environment": None,
        "container_settings": None,
        "restart_policy": None,
        "paused": None,
        "secret_inputs": None,
    }
    assert changes(service(), **stopped) == ("running",)


def test_another_text_alone_interrupts_nothing() -> None:
    assert changes(service(), content="sha256:00") == ("content",)
    assert "content" not in Unit.interrupts
    assert "reload_needed" not in Unit.interrupts


def test_a_container_of_an_image_that_was_replaced_is_a_difference() -> None:
    assert changes(service(), container_image="other") == ("container_image",)


def test_properties_are_compared_as_systemd_prints_them() -> None:
    declared = unit(properties={"OOMScoreAdjust": "-900"})
    assert changes(declared, **{"property.OOMScoreAdjust": "0"}) == ("property.OOMScoreAdjust",)


def test_the_diff_of_the_text_is_unified() -> None:
    shown = unit(content=TEXT).text_diff({"text": "[Service]\nExecStart=/bin/false\n", "content": "sha256:0"})
    assert "-ExecStart=/bin/false" in shown
    assert "+ExecStart=/bin/true" in shown


def test_a_secret_in_a_unit_is_refused_and_not_shown() -> None:
    with fails("unit-holds-secret") as refused:
        unit(content=Content(Secret("hf_token")))
    assert "hf_token" not in str(refused.value)


@pytest.mark.parametrize("name", ["qwen", "../qwen.service", "a b.service", "", "-.x"])
def test_what_is_no_name_of_a_unit_is_refused(name: str) -> None:
    with fails("unit-name-invalid"):
        unit(name=name)


def test_masked_and_running_contradict_each_other() -> None:
    with fails("unit-masked-and-active"):
        unit(masked=True, running=True)


def test_foreign_drop_ins_are_said_and_declared_ones_are_not() -> None:
    found = {"drop_ins": ["/etc/systemd/system/qwen.service.d/a.conf", "/etc/systemd/system/qwen.service.d/b.conf"]}
    declared = unit(content=TEXT, drop_ins=("/etc/systemd/system/qwen.service.d/b.conf",))
    (said,) = declared.violations(found, lambda _: None)
    assert (said.id, said.severity) == ("unit-drop-in-foreign", "warning")
    assert said.message.args["path"].endswith("a.conf")


def test_a_crash_loop_is_told_with_systemds_result() -> None:
    found = {"failed": True, "running": False, "state": "failed (failed)", "result": "start-limit-hit", "restarts": 3}
    why = service().explain(found)
    assert why is not None and why.args["result"] == "start-limit-hit"


@pytest.mark.parametrize(("restarts", "told"), [(0, []), (2, ["unit-restarted"])])
def test_an_engine_that_answers_and_was_restarted_is_told(restarts: int, told: list[str]) -> None:
    said = service().notices({"running": True, "restarts": restarts})
    assert [each.id for each in said] == told
    assert all("restarted qwen.service 2 times" in each.text for each in said)


def test_the_lines_for_a_unit_without_a_process_leave_a_stamp() -> None:
    environment, post = inputs_lines("abc", main_process=False)
    assert environment == "Environment=SPARKOPS_INPUTS=abc"
    assert "/run/sparkops/units/%n" in post


def test_what_runs_is_pending_while_the_plan_brings_its_image_or_checkpoint() -> None:
    declared = unit(running=True, container="c", image="a/b:1", model="/models/x")
    model, image = step("checkpoint", "/models/x", manifest="sha256:1"), step("image", "a/b:1")
    assert declared.pending({model.id: model}, {"loaded": "sha256:2"}) == {"container_checkpoint": Pending(model.id)}
    assert declared.pending({model.id: model}, None) == {"container_checkpoint": Pending(model.id)}
    assert declared.pending({image.id: image}, {"loaded": ""}) == {"container_image": Pending(image.id)}
    assert declared.pending({"checkpoint /models/other @x": step("checkpoint", "/models/other")}, None) == {}


def test_a_checkpoint_that_comes_to_another_folder_interrupts_nothing_where_the_same_runs() -> None:
    declared = unit(running=True, container="c", image="a/b:1", model="/models/x", inputs="abc")
    found = {**as_declared(declared), "container_checkpoint": "other", "loaded": "sha256:1"}
    same, other = (step("checkpoint", "/models/x", manifest=f"sha256:{number}") for number in (1, 2))
    assert diff(declared, found, {}, declared.pending({same.id: same}, found)) is None
    assert diff(declared, found, {}, declared.pending({other.id: other}, found)) is not None
    assert diff(declared, found, {}) is not None, "without that step it is not known what lies there"


FOREIGN = {"process": "vllm", "pid": 41, "container": "", "unit": "", "service": ""}


@pytest.mark.parametrize(
    ("owner", "id", "who"),
    [
        ({"container": "old"}, "port-taken", "process 41 (vllm) of container old"),
        ({"container": "old", "pid": 0, "process": ""}, "port-taken", "container old"),
        ({"unit": "old.service"}, "port-taken", "process 41 (vllm) of old.service"),
        ({"unit": "session-3.scope"}, "port-taken-by-process", "process 41 (vllm) of session-3.scope"),
        ({"container": "podmans", "unit": "libpod-1.scope"}, "port-taken-by-process", "of container podmans"),
        ({"unit": "a.service (user@9.service)"}, "port-taken-by-process", "of a.service (user@9.service)"),
        ({"pid": 1, "process": "systemd", "unit": "web.socket"}, "port-taken-by-process", "(systemd) of web.socket"),
        ({}, "port-taken-by-process", "process 41 (vllm)"),
    ],
)
def test_what_is_foreign_on_the_port_is_a_violation_that_names_it(owner: dict[str, Any], id: str, who: str) -> None:
    declared = unit(content=TEXT, running=True, port=8000, service="qwen")
    (violation,) = declared.violations({"port_taken": {**FOREIGN, **owner}}, lambda _: None)
    assert (violation.id, violation.blocks) == (id, True)
    assert str(violation.message.args["who"]).endswith(who)
    assert "8000" in violation.message.text
    assert Unit.guarded


def test_another_service_on_the_port_is_settled_by_its_own_steps() -> None:
    declared = unit(content=TEXT, running=True, port=8000)
    assert declared.violations({"port_taken": {**FOREIGN, "container": "x", "service": "other"}}, lambda _: None) == ()
    assert declared.violations({"port_taken": None}, lambda _: None) == ()


def test_a_port_is_looked_at_only_where_the_unit_is_to_run() -> None:
    assert unit(running=True, port=8000).ask()["port"] == 8000
    assert unit(running=False, port=8000).ask()["port"] is None


def test_a_main_process_that_is_not_the_declared_program_is_a_difference_that_interrupts() -> None:
    declared = unit(running=True, main_process=("/usr/bin/python3", "launcher.py"))
    assert changes(declared, main_process=["/bin/sleep", "9999"]) == ("main_process",)
    assert changes(declared, main_process=None) == (), "it has none yet"
    assert "main_process" in Unit.interrupts


def test_an_interruption_costs_what_the_last_start_took() -> None:
    assert unit(running=True).outage_seconds({"last_start": {"token_seconds": 21.4}}) == 21.4
    assert unit(running=True).outage_seconds({}) is None
    assert unit(running=True).outage_seconds(Unknown.of("not-answered")) is None
