"""The verbs of every day on real nodes: a service with the small engine, asked and switched by the command line."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Shell, until
from tests.e2e.test_service import PORT, UNIT, Service
from tests.lab import model as tiny
from tests.lab.hub import Fault, Hub
from tests.lab.lab import Lab
from tests.lab.node import Node


@pytest.fixture
def serving(lab: Lab, shell: Shell, machine: Node) -> Service:
    """The service `qwen`, applied and answering, whatever an earlier test has done to it."""
    service = Service(lab, shell, machine)
    service.declare()
    service.ask("/lab/mode", "")
    service.apply()
    return service


def test_status_tells_what_runs_since_when_and_whether_it_answers(serving: Service, shell: Shell) -> None:
    name = serving.node.name
    found = shell.json("status")
    (node,) = found["nodes"]
    assert node["reachable"]
    assert 0 < node["memory_available_bytes"] <= node["memory_total_bytes"]
    assert node["jobs"] == []
    assert node["lock"] is None
    (service,) = found["services"]
    (rank,) = service["ranks"]
    assert service["serving"]
    assert [url.endswith(f":{PORT}/v1") for url in service["endpoints"]] == [True]
    assert (rank["node"], rank["unit"], rank["answers"], rank["model"]) == (name, UNIT, True, "/srv/tiny")
    assert rank["state"] == "active (running)"
    assert 0 <= found["time"] - rank["since"] < 600

    screen = shell.run("status").stdout
    assert "answers in" in screen
    assert "active (running)" in screen

    serving.ask("/lab/mode", "hang")
    hung = shell.run("status", status=2).stdout
    assert "no completion within" in hung


def test_status_tells_of_a_silent_node_beside_the_others(shell: Shell, nodes: Callable[[int], list[Node]]) -> None:
    alive, hung = nodes(2)
    plain(shell, alive, hung)
    alive.exec("mkdir", "-p", "/var/lib/sparkops")
    alive.write("/var/lib/sparkops/lock", b'{"who": "ada", "from": "attic", "command": "apply x.yml", "since": 1}')
    locking = ("systemd-run", "--unit=lab-lock", "flock", "/var/lib/sparkops/lock", "sleep", "600")
    alive.exec(*locking)
    until(alive.locked)
    with hung.paused():
        found = shell.json("status", status=3)
    by_name = {node["name"]: node for node in found["nodes"]}
    assert by_name[alive.name]["reachable"]
    assert by_name[alive.name]["lock"]["who"] == "ada"
    assert not by_name[hung.name]["reachable"]
    assert by_name[hung.name]["reason"]["id"]


def plain(shell: Shell, *nodes: Node) -> None:
    """An inventory of these nodes and nothing more."""
    names = ", ".join(f"{node.name}: {{}}" for node in nodes)
    way = "connection: {user: spark, become: true, connect_timeout: 10}"
    shell.write("inventory.yml", f"version: 1\ncluster: test\n{way}\nnodes: {{{names}}}\n")


def follows(node: Node) -> bool:
    """Whether a program of ours waits for new entries of the node's journal."""
    script = "for each in $(pgrep -x journalctl); do ls -l /proc/$each/fd; done | grep -q inotify"
    return node.exec("sh", "-c", script, check=False).returncode == 0


def test_logs_print_and_follow_what_a_service_says(serving: Service, shell: Shell) -> None:
    serving.node.exec("sh", "-c", r"printf 'evil \033[31m red\n' | systemd-cat -t x")
    whole = shell.run("logs", "qwen", "-n", "1000").stdout
    assert "sparkops:" in whole
    assert "Starting" in whole, "what systemd says of the unit is in it"
    assert len(shell.run("logs", "qwen", "-n", "3").stdout.splitlines()) == 3

    following = shell.start("logs", "qwen", "-f", "-n", "0", "--format", "json")
    try:
        until(lambda: follows(serving.node))
        serving.node.exec("systemctl", "stop", UNIT)
        assert following.stdout is not None
        entry = json.loads(following.stdout.readline())
        assert entry["node"] == serving.node.name
        assert abs(entry["time"] - time.time()) < 60
    finally:
        following.send_signal(signal.SIGINT)
        _, err = following.communicate(timeout=180)
    assert following.returncode == 130
    assert "Traceback" not in err
    until(lambda: not follows(serving.node))

    assert "did you mean qwen" in shell.run("logs", "qwne", status=1).stderr


def test_a_program_runs_on_nodes_side_by_side_without_a_shell(shell: Shell, nodes: Callable[[int], list[Node]]) -> None:
    one, two = nodes(2)
    plain(shell, one, two)
    done = shell.run("exec", "all", "--", "echo", "$HOME; a  b")
    lines = sorted(done.stdout.splitlines())
    assert lines == sorted(f"{node.name} | $HOME; a  b" for node in (one, two))

    one.write("/etc/only-here", b"x")
    failed = shell.run("exec", "all", "--", "cat", "/etc/only-here", status=4)
    assert f"{one.name} | x" in failed.stdout
    assert f"{two.name} ✗ exit status 1" in failed.stderr

    alone = shell.run("exec", one.name, "--", "printf", r"\033[31mred\001\n")
    assert "\033" not in alone.stdout
    assert two.name not in alone.stdout

    started = time.monotonic()
    late = shell.run(
        "exec", one.name, "--timeout", "3", "--format", "json", "--", "sh", "-c", "echo hi; sleep 500", status=4
    )
    assert time.monotonic() - started < 100
    answer = json.loads(late.stdout)["nodes"][one.name]
    assert (answer["stdout"], answer["timed_out"], answer["status"]) == ("hi\n", True, None)
    assert "sleep 500" not in one.text("ps", "ax")

    assert "not installed" in shell.run("exec", one.name, "--", "no-such-program", status=4).stderr
    assert "write --" in shell.run("exec", one.name, status=1).stderr
    with two.paused():
        assert "no-such" not in shell.run("exec", "all", "--", "true", status=3).stderr


def test_services_are_stopped_started_and_restarted_and_the_node_remembers(serving: Service, shell: Shell) -> None:
    def pid() -> str:
        return serving.show("MainPID")

    stopped = shell.run("stop", "qwen", "-m", "memory for a build")
    assert "the next apply will start it again" in stopped.stdout
    assert serving.show("ActiveState") == "inactive"
    assert "is stopped already" in shell.run("stop", "qwen").stdout
    assert shell.json("status", status=2)["services"][0]["serving"] is False
    assert {step["kind"] for step in serving.run("drift", status=2)["steps"]} == {"unit", "probe"}

    started = shell.json("start", "qwen")
    assert [(each["outcome"], each["id"].split()[0]) for each in started["results"]] == [
        ("done", "unit"),
        ("done", "probe"),
    ]
    assert serving.answers(), "it was waited for"
    assert "runs and answers already" in shell.run("start", "qwen").stdout

    before = pid()
    done = shell.run("restart", "qwen")
    assert f":{PORT}/v1" in done.stdout
    assert serving.answers()
    assert pid() not in ("0", before)
    assert serving.run("drift")["steps"] == [], "nothing of it is a difference"

    before = pid()
    shell.run("restart", "qwen", "--no-wait")
    assert pid() not in ("0", before)

    told = shell.json("history")["nodes"][serving.node.name]
    assert told[0]["command"] == "apply inventory.yml"
    stop, *others = told[-4:]
    assert [entry["command"] for entry in others] == ["start qwen", "restart qwen", "restart qwen"]
    assert (stop["command"], stop["reason"]) == ("stop qwen", "memory for a build")
    assert stop["steps"] == [{"id": f"unit {UNIT} @{serving.node.name}", "action": "update", "outcome": "done"}]
    assert serving.node.text("stat", "-c", "%a", "/var/lib/sparkops/history.jsonl") == "600"
    screen = shell.run("history", "-v").stdout
    assert "“memory for a build”" in screen
    assert f"unit {UNIT}" in screen
    claims = serving.node.read("/var/lib/sparkops/claims/tests.json")
    assert list((serving.node.exec("ls", "/var/lib/sparkops/claims")).stdout.split()) == [b"tests.json"]
    assert b"qwen.service" in claims


@pytest.mark.slow
def test_a_service_with_a_silent_node_is_stopped_on_the_others_and_not_started(
    shell: Shell, nodes: Callable[[int], list[Node]]
) -> None:
    here, silent = nodes(2)
    shell.write(
        "inventory.yml",
        f"version: 1\ncluster: test\nconnection: {{user: spark, become: true, connect_timeout: 10}}\n"
        f"nodes: {{{here.name}: {{}}, {silent.name}: {{}}}}\nservices:\n"
        f"  pair: {{nodes: [{here.name}, {silent.name}], port: 8000, model: m, image: {{pull: none}}}}\n",
    )
    for node in (here, silent):
        node.write("/etc/systemd/system/pair.service", b"[Service]\nExecStart=/usr/bin/sleep infinity\n")
        node.exec("systemctl", "start", "pair.service")

    def pids() -> list[str]:
        return [node.text("systemctl", "show", "-P", "MainPID", "pair.service") for node in (here, silent)]

    before = pids()
    shell.run("restart", "pair", "--no-wait")
    assert all(new not in ("0", old) for new, old in zip(pids(), before, strict=True)), "the group as one"

    before = pids()
    with silent.paused():
        refused = shell.run("restart", "pair", status=4)
        assert f"node {silent.name} of service pair does not answer" in refused.stdout + refused.stderr
    assert pids() == before
    with silent.paused():
        assert silent.name in shell.run("stop", "pair", status=3).stderr
    assert pids() == ["0", before[1]]
    shell.run("start", "pair", "--no-wait")
    assert "0" not in pids()


def test_a_start_that_fails_says_why_and_a_held_lock_is_told(serving: Service, shell: Shell) -> None:
    shell.run("stop", "qwen")
    serving.node.exec("mv", "/srv/tiny/config.json", "/srv/tiny/gone.json")
    failed = shell.run("start", "qwen", status=4)
    assert "qwen" in failed.stdout + failed.stderr
    assert "config.json" in failed.stdout, "the engine's last words"
    serving.node.exec("mv", "/srv/tiny/gone.json", "/srv/tiny/config.json")

    serving.node.exec("systemd-run", "--unit=lab-lock", "flock", "/var/lib/sparkops/lock", "sleep", "600")
    until(serving.node.locked)
    shell.run("start", "qwen", status=75)
    serving.node.exec("systemctl", "stop", "lab-lock")
    until(lambda: not serving.node.locked())
    shell.run("start", "qwen")


def test_a_service_that_was_never_applied_is_not_started(lab: Lab, shell: Shell, node: Node) -> None:
    Service(lab, shell, node).declare()
    refused = shell.run("start", "qwen", status=4)
    assert "there is no unit qwen.service" in refused.stderr
    assert "stopped already" in shell.run("stop", "qwen").stdout


def test_apply_replaces_what_is_as_declared_when_asked(serving: Service, shell: Shell) -> None:
    name = serving.node.name
    before = serving.show("MainPID")
    report = serving.run("apply", "--replace", f"unit {UNIT}", "--yes", "-m", "it hung")
    kinds = [("verify", "drain"), ("replace", "unit"), ("verify", "probe")]
    assert [(step["action"], step["kind"]) for step in report["steps"]] == kinds
    assert serving.show("MainPID") not in ("0", before)

    path = "/etc/sparkops/services/qwen.json"
    inode = serving.node.text("stat", "-c", "%i", path)
    report = serving.run("apply", "--replace", f"file {path} @{name}", "--yes")
    assert ("replace", "file") in {(step["action"], step["kind"]) for step in report["steps"]}
    assert serving.node.text("stat", "-c", "%i", path) != inode

    image = serving.lab.engine_image.reference
    report = serving.run("apply", "--replace", f"image {image}", "--yes")
    assert report["exit_status"] == 0
    assert serving.run("apply")["steps"] == []

    wrong = shell.run("apply", "inventory.yml", "--replace", "unit qwn.service", status=1)
    assert f"did you mean unit {UNIT} @{name}" in wrong.stderr
    assert "it hung" in [entry.get("reason") for entry in shell.json("history")["nodes"][name]]


def test_a_running_job_is_shown_and_cancelled_and_the_next_apply_resumes_it(
    shell: Shell, node: Node, hub: Hub, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    tiny.write(model)
    (model / "model-large.safetensors").write_bytes(random.Random(1).randbytes(9 << 20))
    hub.add_repo("org/tiny", model)
    hub.fail("model-large*", Fault(rate=9e4))
    shell.write(
        "inventory.yml",
        f"version: 1\ncluster: test\nconnection: {{user: spark, become: true}}\nnodes: {{{node.name}: {{}}}}\n"
        f"services:\n  tiny:\n    nodes: [{node.name}]\n    port: 8000\n    image: {{pull: none}}\n"
        f'    checkpoint: {{repository: org/tiny, endpoint: "{hub.endpoint}"}}\n',
    )
    only = ("--role", "checkpoint", "--yes")
    applying = shell.start("apply", "inventory.yml", *only)
    jobs = until(lambda: shell.json("status", status=None)["nodes"][0]["jobs"], applying)
    assert jobs[0]["key"].startswith("checkpoint /")
    assert shell.json("status", status=None)["nodes"][0]["lock"]["command"] == "apply inventory.yml"

    assert "checkpoint /" in shell.run("cancel", "--list").stdout
    assert "--yes" in shell.run("cancel", status=1).stderr
    done = shell.run("cancel", "--yes", "-m", "the wrong model")
    assert "ended" in done.stdout
    out, err = applying.communicate(timeout=120)
    assert applying.returncode == 4, out + err
    assert "cancelled" in out + err
    assert "no job runs" in shell.run("cancel").stdout

    hub.heal()
    shell.run("apply", "inventory.yml", *only)
    told = shell.json("history")["nodes"][node.name]
    assert sorted(entry["command"] for entry in told) == ["apply inventory.yml", "apply inventory.yml", "cancel"]
    assert [entry["reason"] for entry in told if entry["command"] == "cancel"] == ["the wrong model"]
