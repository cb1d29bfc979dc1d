"""What goes wrong in the middle of a rollout. After each fault the declared state or the last stable one serves, and
report and exit status tell which."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Shell, at_work, until
from tests.e2e.test_rollout import ROLES, Cluster, states
from tests.lab.lab import Lab
from tests.lab.node import Node

OLD = "token-time=0.003"
"""The mode of the engines that are stable before each fault. Each test declares another: what came back is held."""


def machines(lab: Lab, number: int) -> Iterator[list[Node]]:
    """Nodes for all tests of a module: each leaves a stable engine there, or the next one's first apply brings it."""
    made = [lab.add_node() for _ in range(number)]
    yield made
    for node in made:
        lab.remove_node(node)


def stable(lab: Lab, shell: Shell, nodes: list[Node]) -> Cluster:
    """An engine on each node that is stable in the mode OLD."""
    made = Cluster(lab, shell, nodes)
    made.declare(OLD)
    made.apply()
    return made


@pytest.fixture(scope="module")
def two(lab: Lab) -> Iterator[list[Node]]:
    yield from machines(lab, 2)


@pytest.fixture
def cluster(lab: Lab, shell: Shell, two: list[Node]) -> Cluster:
    return stable(lab, shell, two)


def old(cluster: Cluster) -> bool:
    """Whether both engines serve in the mode that was stable before."""
    return [cluster.mode(node) for node in cluster.nodes] == [OLD, OLD]


def reasons(report: dict[str, Any]) -> set[str]:
    return {each["reason"]["id"] for each in report["results"] if each["outcome"] == "failed"}


def started(cluster: Cluster) -> subprocess.Popen[str]:
    return cluster.shell.start("apply", "inventory.yml", *ROLES, "--format", "json")


def ended(process: subprocess.Popen[str], status: int) -> dict[str, Any]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, f"exit status {process.returncode}:\n{out}\n{err}"
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def serving(cluster: Cluster, node: Node, mode: str) -> Callable[[], bool]:
    """Whether the engine of that mode answers on the node."""

    def asked() -> bool:
        done = node.exec("curl", "-sS", "-m", "2", "http://127.0.0.1:8000/lab/argv", check=False)
        return done.returncode == 0 and json.loads(done.stdout)["environment"].get("LAB_ENGINE") == mode

    return asked


def locked(cluster: Cluster) -> bool:
    """Whether a worker whose controller was killed has not left yet."""
    return any(node.locked() for node in cluster.nodes)


def working(node: Node, port: int = 8000) -> Callable[[], bool]:
    """Whether the engine works on a request."""

    def asked() -> bool:
        said = node.text("curl", "-sS", f"http://127.0.0.1:{port}/metrics").splitlines()
        return any(line.startswith("vllm:num_requests_running{") and line.endswith(" 1.0") for line in said)

    return asked


def asking(node: Node, mode: str, port: int = 8000, *, tokens: int = 60) -> None:
    """A request for so many tokens is under way in that mode; its answer goes to /tmp/answer."""
    body = json.dumps({"prompt": "x", "max_tokens": tokens})
    asking = f"curl -sS -d '{body}' http://127.0.0.1:{port}/v1/completions > /tmp/answer"
    node.exec("curl", "-sS", "-d", mode, f"http://127.0.0.1:{port}/lab/mode")
    node.exec("sh", "-c", f"rm -f /tmp/answer; ({asking}) > /dev/null 2>&1 &")
    until(working(node, port))


def answered(node: Node) -> int:
    """The tokens of the answer that `asking` waited for."""
    return int(json.loads(node.read("/tmp/answer"))["usage"]["completion_tokens"])


def test_an_image_that_nobody_has_touches_no_engine(cluster: Cluster) -> None:
    before = cluster.shown("ExecMainPID")
    cluster.service = {"image": {"pull": f"{cluster.lab.registry.host}/lab/engin:7"}}
    cluster.declare("slow=1")
    report = cluster.apply(status=4)
    assert set(states(report)) <= {"not started"}
    assert cluster.shown("ExecMainPID") == before and old(cluster)


DIED = (
    "gate-not-served gate-connection-failed gate-engine-restarted unit-not-serving endpoint-not-serving"
    " engine-error-known"
)
"""What is true of an engine that dies again and again: it depends on when it is looked at."""


@pytest.mark.parametrize(
    ("mode", "rollout", "reason"),
    [
        (
            "crash-after=2",
            {"min_healthy_seconds": 6},
            "gate-not-served gate-connection-failed gate-engine-restarted unit-not-serving",
        ),
        ("tool-text", {"tool_call": True}, "gate-tool-call-wrong"),
        ("gibberish", {}, "gate-answer-garbage"),
    ],
)
def test_an_engine_that_fails_its_gate_is_brought_back_and_no_other_is_touched(
    cluster: Cluster, mode: str, rollout: dict[str, Any], reason: str
) -> None:
    second = cluster.shown("ExecMainPID")[1]
    cluster.declare(mode, **rollout)
    report = cluster.apply(status=4)
    assert states(report) == ["returned", "not started"]
    assert reasons(report) and reasons(report) <= {*reason.split()}
    assert old(cluster) and cluster.shown("ExecMainPID")[1] == second


def test_an_image_that_fails_under_the_name_of_the_old_one_is_held(cluster: Cluster) -> None:
    """The spec is the same then: each apply of a timer would bring it once more."""
    first = cluster.nodes[0]
    name = f"{cluster.lab.registry.host}/lab/engine:moved"

    def pushed(change: str) -> str:
        """The digest of the lab's engine with a change, under that name."""
        made = f"$(docker create {cluster.lab.engine_image.reference})"
        first.exec("sh", "-c", f"docker commit -c '{change}' {made} {name} && docker push -q {name}")
        return first.text("docker", "inspect", "-f", "{{index .RepoDigests 0}}", name).strip().rpartition("@")[2]

    good, bad = pushed("LABEL made=1"), pushed('ENTRYPOINT ["/bin/false"]')
    cluster.service = {"image": {"pull": name, "digest": good}}
    cluster.declare(OLD)
    cluster.apply()
    cluster.service = {"image": {"pull": name, "digest": bad}}
    cluster.declare(OLD)
    assert states(cluster.apply(status=4)) == ["returned", "not started"]
    before = cluster.shown("ExecMainPID"), first.text("docker", "inspect", "-f", "{{.Id}}", name)
    report = cluster.apply(status=5)
    assert {each["id"] for each in report["violations"]} == {"generation-held"}
    assert (cluster.shown("ExecMainPID"), first.text("docker", "inspect", "-f", "{{.Id}}", name)) == before
    assert "with an image that was taken back" in cluster.shell.run("generations").stdout
    cluster.service = {"image": {"pull": name, "digest": good}}
    cluster.declare(OLD)
    cluster.apply()
    assert cluster.shown("ExecMainPID") == before[0], "nothing was interrupted"


def test_one_engine_may_fail_where_that_is_declared_and_the_others_are_changed(cluster: Cluster) -> None:
    first, second = cluster.nodes
    cluster.service = {"per_node": {first.name: {"environment": {"LAB_ENGINE": "crash"}}}}
    cluster.declare("slow=1", max_failures=1)
    report = cluster.apply(status=4)
    assert states(report) == ["returned", "done"]
    assert [cluster.mode(node) for node in (first, second)] == [OLD, "slow=1"]


def test_what_proves_nothing_is_left_and_made_up_for(cluster: Cluster) -> None:
    first, second = cluster.nodes
    cluster.declare("no-tool", tool_call=True)
    assert states(cluster.apply(status=4)) == ["paused", "not started"]
    assert [cluster.mode(node) for node in (first, second)] == ["no-tool", OLD], "it is left as it is"
    cluster.declare("no-tool", tool_call=False)
    assert states(cluster.apply())[-1] == "done"
    assert [cluster.mode(node) for node in (first, second)] == ["no-tool", "no-tool"]


def test_a_return_that_fails_is_told_and_the_next_apply_heals(cluster: Cluster) -> None:
    first = cluster.nodes[0]
    config = first.read("/srv/tiny/config.json")
    first.exec("rm", "/srv/tiny/config.json")
    cluster.declare("slow=0.9")
    report = cluster.apply(status=4)
    assert states(report) == ["return failed", "not started"]
    assert report["rollouts"][0]["reason"]["id"] == "unit-not-serving"
    first.write("/srv/tiny/config.json", config)
    cluster.declare("slow=0.5")
    assert states(cluster.apply()) == ["done", "done"]


def test_requests_come_to_their_end_and_what_does_not_is_told(cluster: Cluster) -> None:
    first, second = cluster.nodes
    asking(first, "token-time=0.1")
    asking(second, "token-time=1", tokens=1000)
    cluster.declare("slow=0.8", drain_seconds=12)
    report = cluster.apply()
    assert states(report) == ["done", "done"]
    assert answered(cluster.nodes[0]) == 60
    told = {each["id"]: each["notices"] for each in report["results"] if each["notices"]}
    ((id, (notice,)),) = told.items()
    assert id == f"drain qwen @{cluster.nodes[1].name}"
    assert (notice["id"], notice["args"]["running"]) == ("drain-ended", 1)


@pytest.mark.slow
def test_a_rollout_that_stands_still_ends_in_time(cluster: Cluster) -> None:
    cluster.declare("slow=170", progress_deadline=20)
    report = cluster.apply(status=4)
    assert states(report) == ["returned", "not started"]
    assert reasons(report) == {"rollout-stands-still"}
    assert old(cluster)


@pytest.mark.slow
def test_an_engine_has_so_long_for_its_first_completion(cluster: Cluster) -> None:
    cluster.declare("slow=171", healthy_deadline=20)
    report = cluster.apply(status=4)
    assert states(report) == ["returned", "not started"]
    assert reasons(report) == {"unit-not-serving"}
    assert old(cluster)


def test_another_controller_goes_on_where_one_was_killed(cluster: Cluster) -> None:
    first = cluster.nodes[0]
    cluster.declare("slow=0.7", min_healthy_seconds=4)
    process = started(cluster)
    until(serving(cluster, first, "slow=0.7"), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert cluster.mode(cluster.nodes[1]) == OLD
    until(lambda: not locked(cluster))
    report = cluster.apply()
    assert states(report)[-1] == "done"
    assert [cluster.mode(node) for node in cluster.nodes] == ["slow=0.7", "slow=0.7"]
    kept = cluster.shell.json("generations")["generations"]
    at = [each["at"] == max(one["number"] for one in each["generations"]) for each in kept.values()]
    assert at == [True, True], "the gate that was not asked was made up for"


def test_of_two_controllers_one_is_told_who_is_at_work(cluster: Cluster) -> None:
    cluster.declare("slow=0.6", min_healthy_seconds=3)
    process = started(cluster)
    until(serving(cluster, cluster.nodes[0], "slow=0.6"), process)
    before = cluster.shown("ExecMainPID")
    with at_work(process):
        refused = cluster.shell.run("apply", "inventory.yml", *ROLES, "--yes", status=75)
    assert "apply inventory.yml" in " ".join((refused.stdout + refused.stderr).split())
    assert before[0] == cluster.shown("ExecMainPID")[0]
    assert states(ended(process, 0)) == ["done", "done"]


@pytest.mark.slow
def test_a_node_that_loses_power_in_the_middle_is_made_up_for(cluster: Cluster) -> None:
    first = cluster.nodes[0]
    cluster.declare("slow=1.2", min_healthy_seconds=30)
    process = started(cluster)
    until(serving(cluster, first, "slow=1.2"), process)
    first.kill()
    report = ended(process, 4)
    assert states(report) == ["paused", "not started"], "a silent node is no failed engine"
    assert cluster.mode(cluster.nodes[1]) == OLD
    first.start()
    cluster.declare("slow=1.2")
    until(serving(cluster, first, "slow=1.2"))
    assert states(cluster.apply())[-1] == "done"
    assert [cluster.mode(node) for node in cluster.nodes] == ["slow=1.2", "slow=1.2"]


@pytest.mark.slow
def test_two_ranks_come_back_together(cluster: Cluster) -> None:
    head, other = cluster.nodes
    pair = {
        "nodes": [head.name, other.name],
        "port": 8001,
        "serve": {"tensor-parallel-size": 2},
        "per_node": {other.name: {"environment": {"LAB_ENGINE": "never-ready"}}},
    }
    write = cluster.shell.write
    for node in (head, other):
        node.plug(cluster.lab.fabric())

    def declare(mode: str) -> None:
        """The service `pair` beside the engines of the other one."""
        cluster.declare(mode)
        text = json.loads((cluster.shell.folder / "inventory.yml").read_text())
        text["services"]["pair"] = {**text["services"].pop("qwen"), **pair}
        del text["services"]["pair"]["replicas"]
        for node in (head, other):
            text["nodes"][node.name] = {"fabric": {"address": node.fabric_address}}
        write("inventory.yml", json.dumps(text))

    def specs() -> list[str]:
        return [node.read("/etc/sparkops/services/pair.json").decode() for node in (head, other)]

    declare("crash")
    assert states(cluster.apply(status=4)) == ["nothing to return to"]
    declare("slow=1")
    assert states(cluster.apply()) == ["done"]
    first = specs()
    pair["serve"] = {"tensor-parallel-size": 2, "max-model-len": 4096}
    declare("crash")
    report = cluster.apply(status=4)
    assert states(report) == ["returned"]
    assert specs() == first, "both ranks have the arguments that were stable"
    assert cluster.apply(status=5)["violations"]
    argv = json.loads(head.text("curl", "-sS", "http://127.0.0.1:8001/lab/argv"))["argv"]
    assert "--max-model-len" not in argv
    pair["serve"] = {"tensor-parallel-size": 2, "max-num-seqs": 4}
    declare("slow=1")
    assert states(cluster.apply()) == ["done"]
    asking(head, "token-time=0.1", 8001)
    assert states(cluster.shell.json("rollback", "pair", "--yes")) == ["done"]
    assert specs() == first and answered(head) == 60, "it was waited for"
    asking(head, "token-time=0.1", 8001)
    report = cluster.shell.json("restart", "pair")
    assert states(report) == ["done"] and answered(head) == 60
    assert {step["action"] for step in report["steps"] if step["kind"] == "unit"} == {"replace"}

    asking(head, "token-time=0.1", 8001)
    pair["per_node"] = {other.name: {"environment": {"LAB_ENGINE": "never-ready", "ANOTHER": "1"}}}
    declare("slow=1")
    report = cluster.apply()
    assert states(report) == ["done"] and answered(head) == 60
    steps = {step["id"]: step["action"] for step in report["steps"]}
    assert steps[f"unit pair.service @{head.name}"] == "replace", "no rank works without the others"
    assert steps[f"gate pair @{head.name}"]
    for node in (head, other):
        node.exec("systemctl", "disable", "--now", "pair.service")
        node.unplug(cluster.lab.fabric())


def rebooted(cluster: Cluster, *due: Node) -> list[int]:
    """Declares that machines may reboot, makes one due on some; when each was booted."""
    for node in due:
        node.write("/run/reboot-required", b"")
    return [node.boot_time for node in cluster.nodes]


@pytest.fixture
def rebooting(cluster: Cluster) -> Iterator[Cluster]:
    """The engines, on machines that may be rebooted and come back by themselves."""
    for node in cluster.nodes:
        node.engine("update", "--restart", "always", node.container)
    yield cluster
    for node in cluster.nodes:
        node.engine("update", "--restart", "no", node.container)


def allow_reboots(cluster: Cluster, **reboot: Any) -> None:
    path = cluster.shell.folder / "inventory.yml"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vars": {"reboot": {"when": "when-needed", **reboot}}}))


WITH_REBOOT = ("--role", "reboot")


@pytest.mark.slow
def test_machines_are_rebooted_one_after_the_other_and_serve_again(rebooting: Cluster) -> None:
    before = rebooted(rebooting, *rebooting.nodes)
    assert rebooting.apply()["steps"] == [], "it is only told where it is not declared"
    allow_reboots(rebooting)
    report = rebooting.apply(*WITH_REBOOT)
    assert states(report) == ["done", "done"]
    now = [node.boot_time for node in rebooting.nodes]
    assert all(new > old for new, old in zip(now, before, strict=True))
    assert now[1] > now[0], "one after the other"
    assert old(rebooting)
    assert rebooting.apply(*WITH_REBOOT)["steps"] == []


@pytest.mark.slow
def test_a_machine_that_does_not_come_back_ends_the_rollout_and_is_named(rebooting: Cluster) -> None:
    first, second = rebooting.nodes
    before = rebooted(rebooting, *rebooting.nodes)
    first.engine("update", "--restart", "no", first.container)
    allow_reboots(rebooting, seconds=10)
    report = rebooting.apply(*WITH_REBOOT, status=4)
    assert states(report) == ["paused", "not started"]
    (lost,) = [each for each in report["results"] if each["outcome"] == "unknown"]
    assert lost["id"] == f"reboot when-needed @{first.name}"
    assert second.boot_time == before[1]
    first.start()
    assert states(rebooting.apply(*WITH_REBOOT))[-1] == "done"
    assert second.boot_time > before[1]
