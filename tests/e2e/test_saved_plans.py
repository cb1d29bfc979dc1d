"""`plan -o` and `apply --plan` on real nodes: carried out as saved, or refused with what changed."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import Shell, until
from tests.lab.node import Node

ROLE = """\
    summary: Three files in a row, the first of which may take its time, and a unit
    scope: node
    variables:
      type: object
      properties:
        text: {type: string, default: hello}
        seconds: {type: integer, default: 0}
        token: {type: [string, "null"], secret: true, default: null}
        unit: {type: boolean, default: false}
    resources:
      - file: /srv/first
        content: "{{ row.text }} first"
        validate: [sleep, "{{ row.seconds }}"]
      - file: /srv/second
        content: "{{ row.text }} second"
      - file: /srv/third
        content: "{{ row.text }} third"
      - file: /srv/secret
        when: row.token
        content: "token={{ row.token }}"
      - unit: row.service
        when: row.unit
        content: |
          [Service]
          Environment=SPARKOPS_INPUTS={{ row.text | digest }}
          ExecStart=/usr/bin/sleep infinity
        inputs: "{{ row.text | digest }}"
        running: true
    """
ONLY = ("--role", "row")


CLEAR = """
systemctl stop row.service
rm -rf /srv/* /etc/systemd/system/row.service /var/lib/sparkops /run/sparkops
systemctl daemon-reload
"""


@pytest.fixture
def node(machine: Node) -> Iterator[Node]:
    """The module's node; what the role has put there is gone after the test."""
    yield machine
    machine.exec("sh", "-c", CLEAR, check=False)


def declare(shell: Shell, *nodes: Node, row: str = "{}", role: str = ROLE) -> None:
    shell.write("roles/row/role.yml", role)
    lines = "\n".join(f"  {node.name}: {{host: {node.name}}}" for node in nodes)
    shell.write(
        "inventory.yml",
        f"version: 1\ncluster: test\nconnection: {{user: spark, become: true}}\nroles: [row]\n"
        f"vars: {{row: {row}}}\nnodes:\n{lines}\n",
    )


def plan(shell: Shell, *more: str) -> None:
    shell.run("plan", "inventory.yml", *ONLY, "-o", "plan.json", *more, status=2)


def refused(shell: Shell, *more: str, status: int = 4) -> str:
    return shell.run("apply", "inventory.yml", "--plan", "plan.json", *more, status=status).stderr


def wait_for(node: Node, path: str, process: subprocess.Popen[str]) -> None:
    """Until a file's successor is being written beside it, so that its step is under way."""
    script = f"test -n \"$(find $(dirname {path}) -name '.*sparkops*')\""
    until(lambda: node.exec("sh", "-c", script, check=False).returncode == 0, process)


def test_a_plan_is_printed_kept_and_carried_out_without_a_question(shell: Shell, node: Node) -> None:
    declare(shell, node, row="{unit: true}")
    shell.run("apply", "inventory.yml", *ONLY)
    declare(shell, node, row="{unit: true, text: bye}")
    shown = shell.run("plan", "inventory.yml", *ONLY, "-o", "plan.json", status=2)
    assert "row.service" in shown.stdout
    assert "plan.json" in shown.stderr
    kept = json.loads((shell.folder / "plan.json").read_text())
    assert kept["schema"] == "sparkops.plan/1"
    assert [step["id"] for step in kept["steps"] if step["disruptive"]] == [f"unit row.service @{node.name}"]

    done = shell.json("apply", "inventory.yml", "--plan", "plan.json")
    assert {result["outcome"] for result in done["results"]} == {"done"}
    assert [step["id"] for step in done["steps"]] == [step["id"] for step in kept["steps"]]
    assert node.read("/srv/third") == b"bye third"
    shell.run("drift", "inventory.yml", *ONLY)
    assert "now nothing to do" in refused(shell), "it has been carried out"


def test_what_changed_on_a_node_is_named_and_nothing_is_touched(
    shell: Shell, nodes: Callable[[int], list[Node]]
) -> None:
    one, two = nodes(2)
    declare(shell, one, two)
    shell.run("apply", "inventory.yml", *ONLY)
    one.write("/srv/second", b"vandalised")
    plan(shell)
    one.write("/srv/second", b"vandalised again")
    two.write("/srv/third", b"vandalised")
    words = refused(shell)
    assert "the plan no longer holds" in words
    assert f"file /srv/second @{one.name}: content was" in words
    assert f"file /srv/third @{two.name}: now to update, not planned" in words
    assert one.read("/srv/second") == b"vandalised again"
    one.write("/srv/second", b"hello second")
    two.write("/srv/third", b"hello third")
    assert f"file /srv/second @{one.name}: planned to update, now nothing to do" in refused(shell)


def test_a_node_that_fell_silent_is_named(shell: Shell, nodes: Callable[[int], list[Node]]) -> None:
    alive, hung = nodes(2)
    declare(shell, alive, hung)
    plan(shell)
    with hung.paused():
        words = refused(shell)
    assert f"{hung.name} does not answer" in words
    assert not alive.exists("/srv/first")


def test_what_it_was_made_from_must_be_the_same(shell: Shell, node: Node) -> None:
    declare(shell, node)
    plan(shell, "-e", "row.text=hi")
    assert "made with -e; give the same again" in refused(shell)
    assert "given by -e are others" in refused(shell, "-e", "row.text=bye")
    declare(shell, node, role=ROLE.replace(" third", " fourth"))
    assert "role row has changed" in refused(shell, "-e", "row.text=hi")
    declare(shell, node, row="{text: ho}")
    assert "inventory has changed" in refused(shell, "-e", "row.text=hi")
    assert not node.exists("/srv/first")
    declare(shell, node)
    shell.run("apply", "inventory.yml", "--plan", "plan.json", "-e", "row.text=hi")
    assert node.read("/srv/first") == b"hi first"


def test_a_plan_that_is_none_or_of_elsewhere_is_wrong_input(shell: Shell, node: Node) -> None:
    declare(shell, node)
    plan(shell)
    text = (shell.folder / "plan.json").read_text()
    assert "--limit, --role and --shard cannot be used with --plan" in refused(shell, "--limit", node.name, status=1)
    shell.write("plan.json", text.replace('"update"', '"delete"').replace('"create"', '"delete"'))
    assert "changed after it was saved" in refused(shell, status=1)
    shell.write("plan.json", text)
    inventory = (shell.folder / "inventory.yml").read_text()
    shell.write("inventory.yml", inventory.replace("cluster: test", "cluster: other"))
    assert "of the cluster 'test', this inventory of 'other'" in refused(shell, status=1)
    assert "nowhere.json" in shell.run("apply", "inventory.yml", "--plan", "nowhere.json", status=1).stderr
    assert "a saved plan is a file" in shell.run("plan", "inventory.yml", "-o", "-", status=1).stderr
    assert not node.exists("/srv/first")


def test_a_change_between_the_last_look_and_the_act_is_refused(shell: Shell, node: Node) -> None:
    declare(shell, node)
    shell.run("apply", "inventory.yml", *ONLY)
    declare(shell, node, row="{text: bye, seconds: 10}")
    plan(shell)
    running = shell.start("apply", "inventory.yml", "--plan", "plan.json", "--format", "json")
    wait_for(node, "/srv/first", running)
    node.write("/srv/second", b"meanwhile by hand")
    out, err = running.communicate(timeout=120)
    assert running.returncode == 4, err
    results = {result["id"].split()[1]: result for result in json.loads(out)["results"]}
    assert results["/srv/first"]["outcome"] == "done"
    assert results["/srv/second"]["outcome"] == "failed"
    assert results["/srv/second"]["reason"]["id"] == "state-changed"
    assert results["/srv/third"]["outcome"] == "not-attempted"
    assert node.read("/srv/second") == b"meanwhile by hand"
    assert node.read("/srv/third") == b"hello third"


def test_what_a_planned_command_moves_is_no_surprise(shell: Shell, node: Node) -> None:
    role = ROLE.replace(
        "      - file: /srv/second\n",
        "      - command: a tool that leaves its own file\n"
        "        creates: /srv/tool\n"
        "        run: [sh, -c, 'echo tool > /srv/second; touch /srv/tool']\n"
        "      - file: /srv/second\n",
    )
    declare(shell, node, role=role)
    plan(shell)
    done = shell.run("apply", "inventory.yml", "--plan", "plan.json")
    assert node.read("/srv/second") == b"hello second"
    assert "changed by an earlier step" in done.stderr, "and is said"


@pytest.mark.parametrize("source", ["env", "file", "command"])
def test_no_secret_and_no_hash_of_one_is_in_the_file(shell: Shell, node: Node, source: str) -> None:
    old, new = "planted-old-3f9a", "planted-new-77c1"
    shell.write("token", old)
    reference = {"env": "!env ROW_TOKEN", "file": "!file token", "command": "!command [cat, token]"}[source]
    declare(shell, node, row=f"{{token: {reference}}}")
    shell.run("apply", "inventory.yml", *ONLY, environment={"ROW_TOKEN": old})
    shell.write("token", new)
    node.write("/srv/first", b"vandalised-content")
    environment = {"ROW_TOKEN": new}
    shell.run("plan", "inventory.yml", *ONLY, "-o", "plan.json", status=2, environment=environment)
    text = (shell.folder / "plan.json").read_text()
    steps = {step["id"].split()[1]: step for step in json.loads(text)["steps"]}
    assert steps["/srv/secret"]["before"]["content"] == "other", "a changed secret is seen as changed"
    for word in (old, new, f"token={old}", f"token={new}", f"token={old}\n", f"token={new}\n"):
        raw = word.encode()
        hashes = [hashlib.new(name, raw) for name in ("md5", "sha1", "sha256", "sha512", "blake2b")]
        for trace in (word, base64.b64encode(raw).decode(), *(found.hexdigest() for found in hashes)):
            assert trace not in text
    assert "vandalised-content" not in text and "hello first" not in text, "no content either"
    shell.run("apply", "inventory.yml", "--plan", "plan.json", environment=environment)
    assert node.read("/srv/secret") == f"token={new}".encode()
