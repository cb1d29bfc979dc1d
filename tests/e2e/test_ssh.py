"""Getting into a real node and becoming root there: passwords, sudo, login shells, silence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from sparkops.core.errors import AuthenticationFailed, BecomeFailed, ConnectionFailed, HostKeyError, WorkerFailed
from sparkops.core.secrets import Secret
from sparkops.nodes import boot
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import LoginRefused, Passwords, SudoRefused
from sparkops.nodes.target import Target
from sparkops.nodes.transport import Stream
from tests.e2e.conftest import until
from tests.errors import fails
from tests.lab import Lab, Node
from tests.lab.rootfs import WARDEN_PASSWORD

RIGHT = Secret(WARDEN_PASSWORD, "the test")
WRONG = Secret("not this", "the test")
WHO = b"import os\nos.write(1, str(os.getuid()).encode())\nos.read(0, 1)"


@pytest.fixture
def target(lab: Lab, machine: Node, tmp_path: Path) -> Callable[..., Target]:
    """The node as the inventory would have it; the user `spark` may use sudo without a password, `warden` with."""

    def make(user: str = "warden", **changes: object) -> Target:
        found = Target(
            name=machine.name,
            host=machine.address,
            user=user,
            host_keys=(machine.host_key,),
            identity_file=str(lab.key),
            ssh_config=tmp_path / "none",
            become=True,
        )
        return replace(found, **changes)  # type: ignore[arg-type]

    return make


def root_at(target: Target, passwords: Passwords | None = None, program: bytes = WHO) -> Stream:
    """Connect and start a program there."""
    connections = Connections(passwords or Passwords())
    return connections.start_worker(connections.connect(target), target, program)


def failures(node: Node) -> int:
    """Wrong sudo passwords that the node has counted."""
    node.exec("journalctl", "--sync")
    return node.text("journalctl", "--no-pager", "-q", "-t", "sudo").count("authentication failure;")


@pytest.fixture
def sudoers(machine: Node) -> Iterator[Callable[[str], None]]:
    """Adds a rule for sudo, gone after the test."""
    yield lambda rule: machine.write("/etc/sudoers.d/zz-test", f"{rule}\n".encode(), mode=0o440)
    machine.exec("rm", "-f", "/etc/sudoers.d/zz-test")


@pytest.fixture
def sshd(machine: Node) -> Iterator[Callable[[str], None]]:
    """Sets sshd's configuration for a test."""

    def write(text: str) -> None:
        machine.write("/etc/ssh/sshd_config.d/00-test.conf", f"{text}\n".encode())
        _restart(machine)

    yield write
    machine.exec("rm", "-f", "/etc/ssh/sshd_config.d/00-test.conf")
    _restart(machine)


def _restart(machine: Node) -> None:
    machine.exec("systemctl", "restart", "ssh")
    until(machine.greets)


# sudo


@pytest.mark.parametrize("password", [None, RIGHT])
def test_where_sudo_asks_nothing_a_password_is_harmless(target: Callable[..., Target], password: Secret | None) -> None:
    assert root_at(target("spark", become_password=password)).read(10) == b"0"


def test_without_become_nobody_becomes_root(target: Callable[..., Target]) -> None:
    assert root_at(target("spark", become=False)).read(10) != b"0"


def test_a_hostile_password_works_and_is_seen_by_nobody(target: Callable[..., Target], machine: Node) -> None:
    stream = root_at(target(become_password=RIGHT))
    assert stream.read(10) == b"0"
    every = machine.exec("sh", "-c", "cat /proc/*/cmdline /proc/*/environ 2>/dev/null").stdout
    assert b"import os, sys" in every
    assert WARDEN_PASSWORD.encode() not in every
    assert WARDEN_PASSWORD not in machine.text("journalctl", "--no-pager", "-q")


def test_every_byte_passes_sudo(target: Callable[..., Target]) -> None:
    echo = b"import os\nwhile got := os.read(0, 65536): os.write(1, got)"
    stream = root_at(target(become_password=RIGHT), program=echo + b"\n#" + bytes(range(32, 127)) * 3000)
    every = bytes(range(256)) * 100
    stream.write(every)
    stream.close_input()
    said = b""
    while part := stream.read(65536):
        said += part
    assert said == every


def test_a_wrong_password_fails_at_once_by_exactly_one_try(target: Callable[..., Target], machine: Node) -> None:
    before = failures(machine)
    began = time.monotonic()
    with fails("sudo-password-refused", SudoRefused):
        root_at(target(become_password=WRONG), program=b"secrets\nof\nthe\nprogram\n" * 100)
    assert time.monotonic() - began < 40
    assert failures(machine) - before == 1


def test_a_wrong_password_is_tried_by_one_of_twenty_nodes(target: Callable[..., Target], machine: Node) -> None:
    before = failures(machine)
    connections = Connections(Passwords(lambda prompt: "not this"))

    def visit(number: int) -> str:
        here = target(name=f"n{number}", connect_timeout=120)
        try:
            connections.start_worker(connections.connect(here), here, WHO)
        except BecomeFailed as error:
            return error.what
        return "root"

    with ThreadPoolExecutor(20) as pool:
        said = list(pool.map(visit, range(20)))
    assert sum("not tried" in each for each in said) == 19
    assert "root" not in said
    assert failures(machine) - before == 1


def test_a_needed_password_that_nobody_gives_is_an_error_at_once(target: Callable[..., Target]) -> None:
    began = time.monotonic()
    with fails("sudo-password-required", boot.PasswordNeeded) as caught:
        root_at(target())
    assert "become_password" in caught.value.hint
    assert time.monotonic() - began < 40


def test_a_person_is_asked_only_where_sudo_asks(target: Callable[..., Target]) -> None:
    prompts: list[str] = []

    def person(prompt: str) -> str:
        prompts.append(prompt)
        return WARDEN_PASSWORD

    passwords = Passwords(person)
    assert root_at(target("spark"), passwords).read(10) == b"0"
    assert prompts == []
    assert root_at(target("warden"), passwords).read(10) == b"0"
    assert root_at(target("warden"), passwords).read(10) == b"0"
    assert len(prompts) == 1


def test_a_user_that_may_not_use_sudo_is_told_so(target: Callable[..., Target], sudoers: Callable[[str], None]) -> None:
    sudoers("warden ALL=(ALL) !ALL")
    with fails("sudo-not-allowed", BecomeFailed):
        root_at(target(become_password=RIGHT))


@pytest.mark.parametrize(
    "rule", ["Defaults lecture=always", "Defaults passwd_tries=1", "Defaults insults", "Defaults use_pty"]
)
def test_the_ways_of_other_sudoers_change_nothing(
    target: Callable[..., Target], sudoers: Callable[[str], None], rule: str
) -> None:
    sudoers(rule)
    assert root_at(target(become_password=RIGHT)).read(10) == b"0"
    with fails("sudo-password-refused", SudoRefused):
        root_at(target(become_password=WRONG))


def test_requiretty_is_named(target: Callable[..., Target], sudoers: Callable[[str], None]) -> None:
    sudoers("Defaults requiretty")
    with fails("sudo-requires-terminal", BecomeFailed):
        root_at(target("spark"))


def test_root_needs_no_sudo(target: Callable[..., Target], machine: Node) -> None:
    machine.exec("mv", "/usr/bin/sudo", "/usr/bin/sudo.away")
    try:
        assert root_at(target("root")).read(10) == b"0"
        with fails("sudo-not-installed", BecomeFailed):
            root_at(target("spark"))
    finally:
        machine.exec("mv", "/usr/bin/sudo.away", "/usr/bin/sudo")


def test_a_node_without_python_is_told_so(target: Callable[..., Target], machine: Node) -> None:
    machine.exec("mv", "/usr/bin/python3", "/usr/bin/python3.away")
    try:
        for become in (True, False):
            with fails("python-missing", WorkerFailed):
                root_at(target("spark", become=become))
        with fails("python-missing", WorkerFailed):
            root_at(target(become_password=RIGHT))
    finally:
        machine.exec("mv", "/usr/bin/python3.away", "/usr/bin/python3")


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_any_login_shell_will_do_and_may_talk(target: Callable[..., Target], machine: Node, shell: str) -> None:
    before = machine.read("/home/spark/.bashrc")
    machine.exec("usermod", "--shell", shell, "spark")
    machine.write(
        "/home/spark/.bashrc", b'echo welcome; echo "$BASH_EXECUTION_STRING"; cat /proc/cpuinfo | head -c 9000\n'
    )
    try:
        assert root_at(target("spark")).read(10) == b"0"
    finally:
        machine.exec("usermod", "--shell", "/bin/bash", "spark")
        machine.write("/home/spark/.bashrc", before)


# SSH's own passwords


def test_a_password_lets_us_in_where_no_key_does(target: Callable[..., Target]) -> None:
    found = target(identity_file="/none", ssh_password=RIGHT, become_password=RIGHT)
    assert root_at(found).read(10) == b"0"


def test_a_wrong_ssh_password_is_tried_once(target: Callable[..., Target], machine: Node) -> None:
    with fails("ssh-password-refused", LoginRefused):
        root_at(target(identity_file="/none", ssh_password=WRONG))
    machine.exec("journalctl", "--sync")
    said = machine.text("journalctl", "--no-pager", "-q", "-t", "sshd")
    assert said.count("Failed password for warden") == 1


def test_questions_and_answers_work_as_a_password(target: Callable[..., Target], sshd: Callable[[str], None]) -> None:
    sshd("PasswordAuthentication no\nKbdInteractiveAuthentication yes")
    found = target(identity_file="/none", ssh_password=RIGHT, become=False)
    assert root_at(found).read(10) not in (b"", b"0")
    with pytest.raises(LoginRefused):
        root_at(target(identity_file="/none", ssh_password=WRONG))


def test_a_key_and_a_password_are_given_where_both_are_wanted(
    target: Callable[..., Target], sshd: Callable[[str], None]
) -> None:
    sshd("AuthenticationMethods publickey,password")
    assert root_at(target(ssh_password=RIGHT, become_password=RIGHT)).read(10) == b"0"


def test_nobody_to_ask_for_a_password_is_said(target: Callable[..., Target]) -> None:
    with fails("ssh-password-needed", AuthenticationFailed):
        root_at(target(identity_file="/none/id_ed25519"))


# Silence


def test_a_paused_node_is_reported_within_its_limit(target: Callable[..., Target], machine: Node) -> None:
    with machine.paused():
        began = time.monotonic()
        with fails("ssh-no-answer", ConnectionFailed):
            root_at(target("spark", connect_timeout=2))
        assert time.monotonic() - began < 8


def test_a_node_paused_in_mid_session_is_reported(target: Callable[..., Target], machine: Node) -> None:
    stream = root_at(target("spark", keepalive=1))
    assert stream.read(10) == b"0"
    with machine.paused():
        began = time.monotonic()
        with fails("connection-lost", ConnectionFailed) as lost:
            stream.read(10)
        assert isinstance(lost.value, ConnectionFailed) and "no answer" in str(lost.value.args_by_name["error"])
        assert time.monotonic() - began < 30


def test_a_cut_cable_and_a_closed_port_are_told_apart(target: Callable[..., Target], machine: Node) -> None:
    for refuse, id, seconds in ((False, "connect-timeout", 1), (True, "connection-refused", 30)):
        machine.cut(refuse=refuse)
        try:
            with fails(id, ConnectionFailed):
                root_at(target("spark", connect_timeout=seconds))
        finally:
            machine.restore(refuse=refuse)


def test_a_cable_cut_in_mid_session_is_reported(target: Callable[..., Target], machine: Node) -> None:
    stream = root_at(target("spark", keepalive=1))
    assert stream.read(10) == b"0"
    machine.cut()
    try:
        began = time.monotonic()
        with fails("connection-lost", ConnectionFailed) as lost:
            stream.read(10)
        assert isinstance(lost.value, ConnectionFailed) and "no answer" in str(lost.value.args_by_name["error"])
        assert time.monotonic() - began < 30
    finally:
        machine.restore()


def test_the_key_of_another_node_is_refused(target: Callable[..., Target], node: Node) -> None:
    with fails("host-key-changed", HostKeyError):
        root_at(target("spark", host=node.address))


def test_fifty_names_at_once(target: Callable[..., Target]) -> None:
    connections = Connections(Passwords())

    def visit(number: int) -> bytes:
        here = target("spark", name=f"n{number}", connect_timeout=120)
        transport = connections.connect(here)
        said = connections.start_worker(transport, here, WHO).read(10)
        transport.close()
        return said

    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(visit, range(50))) == {b"0"}


def test_a_session_ends_with_the_power_of_its_node(target: Callable[..., Target], machine: Node) -> None:
    stream = root_at(target("spark", keepalive=1))
    assert stream.read(10) == b"0"
    machine.kill()
    try:
        with fails("connection-lost", ConnectionFailed):
            stream.read(10)
    finally:
        machine.start()
