"""What interrupts engines beside a change of them (a restart, a change of their machines) goes the same road: after the
requests, engine by engine, each through its gate."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from tests.e2e.conftest import until
from tests.e2e.test_rollout import ROLES, Cluster, states
from tests.e2e.test_rollout_faults import OLD, answered, asking, cluster, locked, reasons, two

__all__ = ["cluster", "two"]
TUNED = """\
summary: a kernel parameter and a package
scope: node
variables:
  type: object
  properties: {seconds: {type: integer, default: 7200}, packages: {type: array, default: []}}
resources:
  - sysctl: net.ipv4.tcp_keepalive_time
    value: "{{ tuned.seconds }}"
  - package: "{{ item }}"
    for_each: tuned.packages
"""
KEEPALIVE = "/proc/sys/net/ipv4/tcp_keepalive_time"
WITH_TUNED = (*ROLES, "--role", "tuned")


def tune(cluster: Cluster, **tuned: Any) -> None:
    """Declares the role `tuned` for both nodes, beside what is declared of the engines."""
    cluster.shell.write("roles/tuned/role.yml", TUNED)
    path = cluster.shell.folder / "inventory.yml"
    path.write_text(json.dumps({**json.loads(path.read_text()), "roles": ["tuned"], "vars": {"tuned": tuned}}))


def tuned(cluster: Cluster) -> list[str]:
    return [node.text("cat", KEEPALIVE) for node in cluster.nodes]


def order(report: dict[str, Any], *ids: str) -> None:
    """Each of these steps was planned behind the one before it, whatever lies between."""
    needs = {step["id"]: step["needs"] for step in report["steps"]}

    def before(id: str) -> set[str]:
        return {id}.union(*(before(each) for each in needs[id]))

    for one, other in pairwise(ids):
        assert one in before(other), f"{other} is not behind {one}: {needs}"


def test_a_restart_waits_for_requests_and_goes_engine_by_engine_through_the_gate(cluster: Cluster) -> None:
    first, second = cluster.nodes
    before = cluster.shown("ExecMainPID")
    cluster.declare(OLD, drain_seconds=12)
    asking(first, "token-time=0.1")
    asking(second, "token-time=1", tokens=1000)
    report = cluster.shell.json("restart", "qwen")
    assert states(report) == ["done", "done"]
    order(report, f"drain qwen @{first.name}", f"gate qwen @{first.name}", f"drain qwen @{second.name}")
    assert answered(first) == 60
    told = {each["id"]: [one["id"] for one in each["notices"]] for each in report["results"] if each["notices"]}
    assert told == {f"drain qwen @{second.name}": ["drain-ended"]}
    after = cluster.shown("ExecMainPID")
    assert all(new not in ("0", old) for new, old in zip(after, before, strict=True))

    cluster.declare(OLD, canaries=[{"prompt": "The capital of France is", "expect": "Berlin"}])
    report = cluster.shell.json("restart", "qwen", status=4)
    assert states(report) == ["failed", "not started"], "there is nothing else to bring back"
    assert reasons(report) == {"gate-canary-wrong"}
    assert cluster.shown("ExecMainPID")[1] == after[1]


def test_a_change_of_the_machines_goes_node_by_node_with_the_gate(cluster: Cluster) -> None:
    first, second = cluster.nodes
    tune(cluster)
    cluster.apply(*WITH_TUNED)
    pids = cluster.shown("ExecMainPID")
    asking(first, "token-time=0.1")
    tune(cluster, seconds=1234, packages=["tree"])
    report = cluster.apply(*WITH_TUNED)
    assert states(report) == ["done", "done"]
    assert answered(first) == 60
    for node in (first, second):
        order(report, f"drain qwen @{node.name}", f"package tree @{node.name}", f"gate qwen @{node.name}")
    order(report, f"gate qwen @{first.name}", f"drain qwen @{second.name}")
    assert tuned(cluster) == ["1234", "1234"] and all(node.exists("/usr/bin/tree") for node in cluster.nodes)
    assert cluster.shown("ExecMainPID") == pids, "nothing was restarted for it"
    assert cluster.apply(*WITH_TUNED)["steps"] == []


def test_a_machine_whose_engine_fails_after_its_change_ends_the_rollout(cluster: Cluster) -> None:
    first, _ = cluster.nodes
    tune(cluster)
    cluster.apply(*WITH_TUNED)
    first.exec("curl", "-sS", "-d", "gibberish", "http://127.0.0.1:8000/lab/mode")
    tune(cluster, seconds=4321)
    report = cluster.apply(*WITH_TUNED, status=4)
    assert states(report) == ["failed", "not started"]
    assert reasons(report) == {"gate-answer-garbage"}
    assert tuned(cluster) == ["4321", "7200"]
    first.exec("curl", "-sS", "-d", OLD, "http://127.0.0.1:8000/lab/mode")
    assert states(cluster.apply(*WITH_TUNED))[-1] == "done"
    assert tuned(cluster) == ["4321", "4321"]


def test_a_second_service_that_fails_after_the_change_of_a_machine_keeps_the_next_one(cluster: Cluster) -> None:
    """Else both engines of it would be down. Its own order is the other way round: it goes by that of the first."""
    first, second = cluster.nodes
    tune(cluster)
    path = cluster.shell.folder / "inventory.yml"

    def declare(seconds: int) -> None:
        tune(cluster, seconds=seconds)
        declared = json.loads(path.read_text())
        other = {**declared["services"]["qwen"], "port": 8001, "replicas": [[second.name], [first.name]]}
        declared["services"]["other"] = other
        path.write_text(json.dumps(declared))

    declare(7200)
    cluster.apply(*WITH_TUNED)
    first.exec("curl", "-sS", "-d", "gibberish", "http://127.0.0.1:8001/lab/mode")
    declare(3456)
    report = cluster.apply(*WITH_TUNED, status=4)
    assert reasons(report) == {"gate-answer-garbage"}
    assert tuned(cluster) == ["3456", "7200"]
    order(report, f"gate other @{first.name}", f"drain qwen @{second.name}")
    first.exec("curl", "-sS", "-d", OLD, "http://127.0.0.1:8001/lab/mode")
    cluster.apply(*WITH_TUNED)
    assert tuned(cluster) == ["3456", "3456"]
    assert cluster.apply(*WITH_TUNED)["steps"] == []
    cluster.shell.run("stop", "other")


def test_of_two_services_that_fail_together_each_has_the_end_of_its_own_return(cluster: Cluster) -> None:
    """Both are brought back in one run, on one node; one of them was never stable."""
    first, second = cluster.nodes
    cluster.declare("gibberish")
    path = cluster.shell.folder / "inventory.yml"
    declared = json.loads(path.read_text())
    declared["services"]["fresh"] = {**declared["services"]["qwen"], "port": 8002, "replicas": [[first.name]]}
    path.write_text(json.dumps(declared))
    report = cluster.apply(status=4)
    ends = {(each["service"], each["nodes"][0]): each["state"] for each in report["rollouts"]}
    assert ends["qwen", first.name] == "returned"
    assert ends["fresh", first.name] == "nothing to return to"
    assert cluster.mode(first) == cluster.mode(second) == OLD
    cluster.shell.run("remove", "fresh", "--yes")


@pytest.mark.slow
def test_a_machine_that_is_lost_at_its_change_ends_the_rollout_and_is_named(cluster: Cluster) -> None:
    first, second = cluster.nodes
    tune(cluster)
    cluster.apply(*WITH_TUNED)
    asking(first, "token-time=1")
    tune(cluster, seconds=2345)
    process = cluster.shell.start("apply", "inventory.yml", *WITH_TUNED, "--format", "json")
    until(lambda: locked(cluster), process)
    with first.paused():
        out, err = process.communicate(timeout=240)
    assert process.returncode == 4, out + err
    report = json.loads(out)
    assert {*states(report)} <= {"paused", "not started"}
    lost = {each["node"] for each in report["results"] if each["outcome"] == "unknown"}
    assert lost | {*report["unreachable"]} == {first.name}, "as it was lost before its turn, or in it"
    assert second.text("cat", KEEPALIVE) == "7200"
    until(lambda: states(cluster.apply(*WITH_TUNED, status=None))[-1:] == ["done"])
    assert tuned(cluster) == ["2345", "2345"]
