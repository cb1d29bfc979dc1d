"""Nodes and hubs as they should not be, through the command line: each ends in words that say what, where and the way
out, with the right exit status, in time, and with nothing half-done."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sparkops.compile.expressions import quote_systemd
from tests.e2e.conftest import Shell
from tests.e2e.test_service import Service
from tests.lab import model as tiny
from tests.lab.hub import Fault, Hub
from tests.lab.lab import Lab
from tests.lab.node import Node

ROLE = """\
    summary: Two files
    scope: node
    resources:
      - file: /etc/sparkops-one
        content: one
      - file: /srv/sparkops-two
        content: two
    """
ONLY = ("inventory.yml", "--role", "two")


def declare(shell: Shell, nodes: str, more: str = "") -> None:
    shell.write("roles/two/role.yml", ROLE)
    way = "connection: {user: spark, become: true, connect_timeout: 10}"
    shell.write("inventory.yml", f"version: 1\ncluster: odd\nroles: [two]\n{way}\nnodes: {{{nodes}}}\n{more}")


def said(shell: Shell, *words: str, status: int) -> str:
    """What a person reads, in one line."""
    done = shell.run(*words, status=status)
    return " ".join((done.stdout + done.stderr).split())


@pytest.fixture(scope="module")
def shared(lab: Lab) -> Iterator[Node]:
    """One node for all tests that leave it as it was."""
    made = lab.add_node()
    made.exec("mkdir", "-p", "/srv")
    yield made
    lab.remove_node(made)


@pytest.fixture
def machine(shared: Node) -> Iterator[Node]:
    """That node, with nothing of ours on it afterwards."""
    yield shared
    shared.exec("rm", "-rf", "/etc/sparkops-one", "/srv/sparkops-two", "/srv/busy", "/var/lib/sparkops")


# Two names for one machine


def test_two_names_for_one_machine_are_told_before_anything_acts(shell: Shell, machine: Node) -> None:
    twice = f"left: {{host: {machine.name}}}, right: {{host: {machine.name}}}"
    declare(shell, twice)
    for command, status in (("plan", 2), ("drift", 2), ("apply", 4)):
        words = said(shell, command, *ONLY, status=status)
        assert "machine-with-two-names" in words
        assert "same /etc/machine-id" in words and "correct `host` of one of them" in words
        assert "does not exist" not in words
    report = shell.json("apply", *ONLY, status=4)
    assert {each["outcome"] for each in report["results"]} == {"not-attempted"}
    assert [each["id"] for each in report["violations"]] == ["machine-with-two-names"] * 2
    assert not machine.exists("/etc/sparkops-one") and not machine.exists("/var/lib/sparkops")

    shell.run("apply", *ONLY, "--limit", "left")
    assert machine.exists("/etc/sparkops-one")
    declare(shell, twice, "accept: [{id: machine-with-two-names, reason: a test}]\n")
    shell.run("drift", *ONLY)


# A hub that has enough


def test_a_hub_that_is_asked_too_often_neither_fails_nor_holds_up_a_drift(
    shell: Shell, machine: Node, hub: Hub, tmp_path: Path
) -> None:
    tiny.write(tmp_path / "model")
    commit = hub.add_repo("org/busy", tmp_path / "model")

    def service(revision: str) -> str:
        place = f'{{repository: org/busy, revision: {revision}, endpoint: "{hub.endpoint}", folder: /srv/busy}}'
        return f"services: {{s: {{nodes: [{machine.name}], port: 1, image: {{pull: x}}, checkpoint: {place}}}}}\n"

    declare(shell, f"{machine.name}: {{}}", service("main"))
    only = (*ONLY, "--role", "checkpoint")
    shell.run("apply", *only, "--yes")
    for stage in ("info", "tree"):
        hub.fail("*", Fault(stage=stage, status=429, retry_after=300))  # type: ignore[arg-type]
    began = time.monotonic()
    words = said(shell, "drift", *only, status=3)
    assert time.monotonic() - began < 200, "the hub named 300 s"
    assert "the hub answered that it is asked too often (429)" in words
    assert "try again later" in words and "set to a full commit" in words

    declare(shell, f"{machine.name}: {{}}", service(commit))
    hub.forget()
    shell.run("drift", *only)
    assert not hub.requests, "a pinned commit needs no hub"


# Disks


def test_a_full_disk_under_the_state_folder_stops_the_run_before_it_acts(shell: Shell, node: Node) -> None:
    declare(shell, f"{node.name}: {{}}")
    node.tmpfs("/var/lib/sparkops", "64k")
    node.exec("sh", "-c", "dd if=/dev/zero of=/var/lib/sparkops/filler bs=4k 2>/dev/null; true")
    shell.run("plan", *ONLY, status=2)
    words = said(shell, "apply", *ONLY, status=4)
    assert "/var/lib/sparkops" in words and "no space left on the disk" in words and "df -h" in words
    assert not node.exists("/etc/sparkops-one")
    node.exec("rm", "/var/lib/sparkops/filler")
    shell.run("apply", *ONLY)
    shell.run("drift", *ONLY)


def test_a_read_only_root_can_be_looked_at_and_is_told_by_an_apply(shell: Shell, node: Node) -> None:
    declare(shell, f"{node.name}: {{}}")
    for folder in ("/etc", "/var/lib", "/srv"):
        node.exec("sh", "-c", f"mkdir -p {folder}; mount --bind {folder} {folder}; mount -o remount,ro,bind {folder}")
    shell.run("plan", *ONLY, status=2)
    words = said(shell, "apply", *ONLY, status=4)
    assert "read-only" in words and "/var/lib/sparkops" in words and "remount,rw" in words
    for folder in ("/etc", "/var/lib", "/srv"):
        node.exec("umount", folder)
    shell.run("apply", *ONLY)


# Docker


@pytest.mark.slow
def test_a_docker_that_hangs_makes_unknown_what_it_would_tell_and_holds_up_nothing_else(
    lab: Lab, shell: Shell, node: Node
) -> None:
    service = Service(lab, shell, node)
    service.declare()
    inventory = json.loads((shell.folder / "inventory.yml").read_text())
    shell.write("roles/two/role.yml", ROLE)
    shell.write("inventory.yml", json.dumps({**inventory, "roles": ["two"]}))
    roles = ("--role", "two", "--role", "image", "--role", "service")
    node.exec("sh", "-c", "kill -STOP $(cat /var/run/docker.pid)")
    try:
        began = time.monotonic()
        report = shell.json("apply", "inventory.yml", *roles, "--yes", status=4)
        for kind in ("image", "unit"):  # which container has the unit's port, Docker would tell
            (why,) = [each for id, each in report["unknown"].items() if id.startswith(f"{kind} ")]
            assert why["id"] == "docker-silent"
        outcomes = {each["id"].split()[1]: each for each in report["results"]}
        assert outcomes["/etc/sparkops-one"]["outcome"] == "done"
        assert "qwen.service" not in outcomes
        shell.run("drift", *ONLY)
        words = said(shell, "status", status=2)
        assert node.name in words and "qwen" in words
        assert time.monotonic() - began < 120
    finally:
        node.exec("sh", "-c", "kill -CONT $(cat /var/run/docker.pid)")


# What a login does


@pytest.mark.parametrize(
    "line",
    [
        "echo Welcome to DGX OS",
        "printf 'no line end'",
        "echo to the wrong place >&2",
        "head -c 40000 /dev/zero | tr '\\0' 'x'",
        "printf '\\000\\377\\000\\000\\000\\010{}'",
    ],
)
def test_what_a_login_shell_prints_does_not_matter(shell: Shell, machine: Node, line: str) -> None:
    declare(shell, f"{machine.name}: {{}}")
    kept = machine.read("/home/spark/.bashrc")
    try:
        machine.write("/home/spark/.bashrc", f"{line}\n".encode() + kept)
        assert machine.ssh("true").stdout or machine.ssh("true").stderr, "it does print"
        shell.run("plan", *ONLY, status=2)
    finally:
        machine.write("/home/spark/.bashrc", kept)


OLD = """#!/bin/sh
exec /usr/bin/python3 -I -S -c 'import sys
sys.version_info, sys.version = (3, 8, 10, "final", 0), "3.8.10 (default)"
code, sys.argv = sys.argv[1], ["-c", *sys.argv[2:]]
exec(code)' "$4" "$5"
"""


@pytest.mark.parametrize(
    ("python", "words", "way"),
    [
        (OLD, "python3 is 3.8.10, and 3.10 is the oldest that works", "DGX OS 7 has 3.12"),
        ("#!/bin/sh\necho 'SyntaxError: invalid syntax' >&2; exit 1\n", "could not be started", "python3 --version"),
        ("#!/bin/sh\nexec python3.none\n", "python3", "install"),
    ],
)
def test_a_python_that_will_not_do_is_told(shell: Shell, machine: Node, python: str, words: str, way: str) -> None:
    declare(shell, f"{machine.name}: {{}}")
    machine.write("/usr/local/bin/python3", python.encode(), mode=0o755)
    try:
        report = shell.json("plan", *ONLY, status=3)
        told = report["unreachable"][machine.name]
        assert words in told["message"] and way in told["message"] + told["fix"]
    finally:
        machine.exec("rm", "/usr/local/bin/python3")


# Words in unit files


DUMP = b"import json, os, sys; json.dump([sys.argv[1:], dict(os.environ)], open('/srv/said.json', 'w'))"
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    | st.sampled_from("%$\\\"' \t;#=@-+!:{}\u00e9\u2028"),
    max_size=12,
)


def fits(text: str) -> bool:
    try:
        quote_systemd(text)
    except ValueError:
        return False
    return True


@settings(
    max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.large_base_example],
)  # fmt: skip
@given(st.lists(TEXTS, min_size=40, max_size=40))
def test_systemd_reads_every_word_as_it_was_meant(shared: Node, texts: list[str]) -> None:
    words = [
        each
        for each in [*texts, "", " ", ";", "%n", "$HOME", "${HOME}", "\\", 'a"', "a\\", "\\;", "'", "#"]
        if fits(each)
    ]
    lines = [
        "[Service]",
        "Type=oneshot",
        *(f"Environment={quote_systemd(f'W{n}={each}')}" for n, each in enumerate(words)),
    ]
    arguments = " ".join(quote_systemd(each, command=True) for each in words)
    unit = "\n".join([*lines, f"ExecStart=/usr/bin/python3 -X utf8 /srv/dump.py {arguments}", ""])
    machine = shared
    machine.write("/srv/dump.py", DUMP)
    machine.write("/etc/systemd/system/words.service", unit.encode())
    machine.exec("sh", "-c", "rm -f /srv/said.json; systemctl daemon-reload && systemctl start words.service")
    argv, environment = json.loads(machine.read("/srv/said.json"))
    assert argv == words
    assert {f"W{n}": environment.get(f"W{n}") for n in range(len(words))} == {f"W{n}": w for n, w in enumerate(words)}


@given(st.text(max_size=6), st.sampled_from("\0\n\r\x1b\x7f\ufdd0\uffff\ud800"), st.text(max_size=6))
def test_what_a_unit_file_cannot_carry_is_refused(before: str, char: str, after: str) -> None:
    with pytest.raises(ValueError, match="a unit file can't carry"):
        quote_systemd(before + char + after)
