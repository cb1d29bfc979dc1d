"""Faults in a rollout over three nodes: what was changed stays, the rest is made up for, no engine is changed twice."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Shell, until
from tests.e2e.test_rollout import ROLES, Cluster, states
from tests.e2e.test_rollout_faults import OLD, ended, locked, machines, reasons, serving, stable, started
from tests.e2e.test_rollout_turns import order
from tests.lab.lab import Lab
from tests.lab.node import Node


@pytest.fixture(scope="module")
def three(lab: Lab) -> Iterator[list[Node]]:
    yield from machines(lab, 3)


@pytest.fixture
def cluster(lab: Lab, shell: Shell, three: list[Node]) -> Cluster:
    return stable(lab, shell, three)


def modes(cluster: Cluster) -> list[str]:
    return [cluster.mode(node) for node in cluster.nodes]


def test_a_controller_that_is_killed_at_the_second_engine_is_followed_by_another(cluster: Cluster) -> None:
    cluster.declare("slow=0.3", min_healthy_seconds=4)
    process = started(cluster)
    until(serving(cluster, cluster.nodes[1], "slow=0.3"), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first, _, third = cluster.shown("ExecMainPID")
    assert modes(cluster) == ["slow=0.3", "slow=0.3", OLD]
    until(lambda: not locked(cluster))
    report = cluster.apply()
    assert states(report)[-1] == "done"
    assert {step["node"] for step in report["steps"] if step["kind"] == "unit"} == {cluster.nodes[2].name}
    assert f"gate qwen @{cluster.nodes[1].name}" in {step["id"] for step in report["steps"]}, "it was not asked"
    now = cluster.shown("ExecMainPID")
    assert now[0] == first and now[2] not in ("0", third)
    assert modes(cluster) == ["slow=0.3"] * 3


@pytest.mark.slow
def test_a_rollback_after_a_rollout_that_was_cut_short_leaves_the_engine_that_it_had_not_reached(
    cluster: Cluster,
) -> None:
    """What the others get is the state before the rollout, which the third has still, and not the one before that."""
    cluster.declare("slow=0.7")
    cluster.apply()
    cluster.declare("slow=0.5", min_healthy_seconds=4)
    process = started(cluster)
    until(serving(cluster, cluster.nodes[1], "slow=0.5"), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    third = cluster.shown("ExecMainPID")[2]
    until(lambda: not locked(cluster))
    report = cluster.shell.json("rollback", "qwen", "--yes")
    assert {each["outcome"] for each in report["results"]} == {"done"}
    assert modes(cluster) == ["slow=0.7"] * 3
    assert cluster.shown("ExecMainPID")[2] == third


def test_of_two_controllers_that_start_at_once_one_does_all(cluster: Cluster) -> None:
    cluster.declare("slow=0.4")
    both = [started(cluster), started(cluster)]
    said = [process.communicate(timeout=200) for process in both]
    assert sorted(process.returncode for process in both) == [0, 75], said
    assert modes(cluster) == ["slow=0.4"] * 3
    assert cluster.apply()["steps"] == []


def test_an_engine_that_fails_in_the_middle_comes_back_between_one_that_stays_and_one_untouched(
    cluster: Cluster,
) -> None:
    middle = cluster.nodes[1]
    third = cluster.shown("ExecMainPID")[2]
    cluster.service = {"per_node": {middle.name: {"environment": {"LAB_ENGINE": "gibberish"}}}}
    cluster.declare("slow=0.2")
    report = cluster.apply(status=4)
    assert states(report) == ["done", "returned", "not started"]
    assert reasons(report) == {"gate-answer-garbage"}
    assert modes(cluster) == ["slow=0.2", OLD, OLD]
    assert cluster.shown("ExecMainPID")[2] == third


def test_another_image_is_on_all_nodes_before_the_first_engine_stops(cluster: Cluster) -> None:
    first = cluster.nodes[0]
    other = f"{cluster.lab.registry.host}/lab/engine:other"
    made = f"$(docker create {cluster.lab.engine_image.reference})"
    first.exec("sh", "-c", f"docker commit -c 'LABEL other=1' {made} {other} && docker push -q {other}")
    cluster.service = {"image": {"pull": other}}
    cluster.declare("slow=0.1")
    report = cluster.apply()
    assert states(report) == ["done", "done", "done"]
    images = [f"image {other} @{node.name}" for node in cluster.nodes]
    for id in {step["id"] for step in report["steps"]} & {*images}:
        order(report, id, f"drain qwen @{first.name}")
    seen = [node.text("docker", "inspect", "-f", "{{.Config.Image}}", "sparkops-qwen") for node in cluster.nodes]
    assert seen == [other] * 3


@pytest.mark.slow
def test_a_node_that_is_lost_and_comes_back_in_the_middle_is_no_failed_engine(cluster: Cluster) -> None:
    middle = cluster.nodes[1]
    cluster.declare("slow=1.1", min_healthy_seconds=10)
    process = started(cluster)
    until(serving(cluster, middle, "slow=1.1"), process, seconds=120)
    middle.kill()
    middle.start()
    assert states(ended(process, 0)) == ["done", "done", "done"]
    assert modes(cluster) == ["slow=1.1"] * 3


@pytest.mark.slow
def test_after_a_power_cut_of_all_nodes_the_engines_serve_and_nothing_is_to_be_done(cluster: Cluster) -> None:
    for node in cluster.nodes:
        node.kill()
    for node in cluster.nodes:
        node.start()
        until(serving(cluster, node, OLD))
    assert cluster.shell.json("apply", "inventory.yml", *ROLES, "--yes")["steps"] == []
