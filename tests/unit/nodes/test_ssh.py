"""Connections to real servers: host keys, logins, jumps, and what happens when a node falls silent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sparkops.core.errors import AuthenticationFailed, ConnectionFailed, HostKeyError, SparkopsError
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import Passwords
from sparkops.nodes.ssh import host_keys
from sparkops.nodes.target import Target
from sparkops.nodes.transport import Transport
from tests.errors import fails

from .conftest import Servers
from .sshd import Sshd, keygen

WORDS = ["printf", "%s", "a;b $c 'd' \"e\" `f` \\ \n g"]


def _said(transport: Transport, *argv: str) -> bytes:
    stream = transport.execute(argv or WORDS)
    said = b""
    while part := stream.read(65536):
        said += part
    return said


def test_arguments_arrive_as_they_were_given(server: Sshd, connections: Connections) -> None:
    assert _said(connections.connect(server.target())) == WORDS[2].encode()


def test_one_node_can_be_had_without_shared_connections(server: Sshd) -> None:
    alone = Connections(Passwords())
    transport = alone.connect(server.target())
    stream = alone.start_worker(transport, server.target(), b"import os\nos.write(1, b'ok')")
    assert stream.read(10) == b"ok"


def test_a_closed_transport_can_be_closed_again(server: Sshd, connections: Connections) -> None:
    transport = connections.connect(server.target())
    transport.close()
    transport.close()
    with fails("ssh-session-refused"):
        transport.execute(["true"])


# Host keys


def test_an_unknown_host_is_refused_before_any_login(server: Sshd, connections: Connections) -> None:
    with fails("host-key-unknown", HostKeyError):
        connections.connect(server.target(host_keys=()))
    assert server.logins == 0
    assert "Failed" not in server.log.read_text()


def test_trusting_a_node_makes_it_known(server: Sshd, connections: Connections, tmp_path: Path) -> None:
    target = server.target(host_keys=(), known_hosts=tmp_path / "known_hosts")
    found = connections.scan(target)
    assert [key.line for key in found] == [server.host_key()]
    host_keys.add(tmp_path / "known_hosts", connections.known_as(target), found)
    assert _said(Connections(Passwords()).connect(target))


def test_a_scan_finds_the_keys_of_every_type(servers: Servers, connections: Connections) -> None:
    server = servers(host_keys=("rsa", "ed25519", "ecdsa"))
    found = connections.scan(server.target(host_keys=()))
    assert [key.line for key in found] == [server.host_key(kind) for kind in ("ed25519", "ecdsa", "rsa")]


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_the_known_type_is_asked_for_of_a_host_with_several(
    servers: Servers, connections: Connections, kind: str
) -> None:
    server = servers(host_keys=("ed25519", "ecdsa", "rsa"))
    assert _said(connections.connect(server.target(host_keys=(server.host_key(kind),))))


def test_another_key_than_the_pinned_one_is_refused_loudly(
    server: Sshd, connections: Connections, tmp_path: Path
) -> None:
    keygen(tmp_path / "other")
    with fails("host-key-changed", HostKeyError):
        connections.connect(server.target(host_keys=((tmp_path / "other.pub").read_text(),)))
    assert server.logins == 0


def test_any_of_several_pinned_keys_is_right(server: Sshd, connections: Connections, tmp_path: Path) -> None:
    keygen(tmp_path / "other")
    pins = ((tmp_path / "other.pub").read_text(), server.host_key())
    assert _said(connections.connect(server.target(host_keys=pins)))


def test_a_host_that_lost_the_known_type_of_key_counts_as_changed(
    server: Sshd, connections: Connections, tmp_path: Path
) -> None:
    keygen(tmp_path / "other", "-t", "ecdsa")
    with fails("host-key-type-gone", HostKeyError):
        connections.connect(server.target(host_keys=((tmp_path / "other.pub").read_text(),)))


def test_the_alias_is_the_name_in_known_hosts(server: Sshd, connections: Connections, tmp_path: Path) -> None:
    (tmp_path / "known").write_text(f"rack-1 {server.host_key()}\n")
    config = tmp_path / "config"
    config.write_text(f"Host *\n HostKeyAlias rack-1\n UserKnownHostsFile {tmp_path / 'known'}\n")
    assert _said(connections.connect(server.target(host_keys=(), ssh_config=config)))


# Logins


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real ssh-agent; its socket is in SSH_AUTH_SOCK."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    while not path.exists():
        time.sleep(0.01)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    yield path
    process.kill()
    process.wait()


@pytest.mark.parametrize("kind", [("ed25519",), ("rsa", "-b", "2048"), ("ecdsa",), ("rsa", "-b", "2048", "-m", "PEM")])
def test_keys_of_every_type_let_us_in(
    server: Sshd, connections: Connections, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    key = keygen(tmp_path / "mine", "-t", *kind)
    server.authorize(key)
    assert _said(connections.connect(server.target(identity_file=str(key))))


def test_the_agent_signs_for_fifty_nodes_at_once(server: Sshd, agent: Path) -> None:
    subprocess.run(["ssh-add", "-q", str(server.key)], check=True)
    connections = Connections(Passwords())

    def login(number: int) -> bytes:
        transport = connections.connect(server.target(f"spark-{number}", identity_file=None))
        said = _said(transport)
        transport.close()
        return said

    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(login, range(50))) == {WORDS[2].encode()}
    assert server.logins == 50


def test_an_encrypted_key_that_the_agent_holds_asks_for_nothing(server: Sshd, agent: Path, tmp_path: Path) -> None:
    key = keygen(tmp_path / "mine", "-t", "ed25519", "-N", "open sesame")
    server.authorize(key)
    helper = tmp_path / "askpass"
    helper.write_text("#!/bin/sh\necho open sesame\n")
    helper.chmod(0o755)
    told = {**os.environ, "SSH_ASKPASS": str(helper), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": "none"}
    subprocess.run(["ssh-add", "-q", str(key)], check=True, env=told)
    assert _said(Connections(Passwords()).connect(server.target(identity_file=str(key))))


def test_the_passphrase_of_a_key_is_asked_for_once(server: Sshd, tmp_path: Path) -> None:
    key = keygen(tmp_path / "mine", "-t", "ed25519", "-N", "open sesame")
    server.authorize(key)
    prompts: list[str] = []
    answers = ["wrong", "open sesame"]

    def person(prompt: str) -> str:
        prompts.append(prompt)
        return answers.pop(0)

    connections = Connections(Passwords(person))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: connections.connect(server.target(f"n{n}", identity_file=str(key))), range(8)))
    assert prompts == [f"Passphrase for {key}: "] * 2


def test_an_encrypted_key_without_a_terminal_is_explained(
    server: Sshd, connections: Connections, tmp_path: Path
) -> None:
    key = keygen(tmp_path / "mine", "-t", "ed25519", "-N", "open sesame")
    with fails("login-denied"):
        connections.connect(server.target(identity_file=str(key)))


def test_a_refused_key_is_named_with_the_way_out(server: Sshd, connections: Connections, tmp_path: Path) -> None:
    key = keygen(tmp_path / "stranger")
    with pytest.raises(AuthenticationFailed) as caught:
        connections.connect(server.target(identity_file=str(key)))
    assert caught.value.id == "login-denied"
    assert caught.value.args_by_name["tried"] == f"{key} was refused"
    assert "publickey" in caught.value.args_by_name["reason"]


def test_a_key_that_was_named_and_is_not_there_is_told(server: Sshd, connections: Connections, tmp_path: Path) -> None:
    with fails("login-denied", AuthenticationFailed) as caught:
        connections.connect(server.target(identity_file=str(tmp_path / "none")))
    assert caught.value.args_by_name["tried"] == f"{tmp_path / 'none'} is not there"


def test_five_wrong_keys_are_offered_and_no_more(servers: Servers, connections: Connections, tmp_path: Path) -> None:
    server = servers("MaxAuthTries 6")
    keys = [keygen(tmp_path / f"key{number}") for number in range(8)]
    config = tmp_path / "config"
    config.write_text("".join(f"IdentityFile {key}\n" for key in keys))
    with fails("login-disconnected"):
        connections.connect(server.target(identity_file=None, ssh_config=config))


def test_a_server_that_hangs_up_on_too_many_keys_is_explained(
    servers: Servers, connections: Connections, tmp_path: Path
) -> None:
    server = servers("MaxAuthTries 2")
    config = tmp_path / "config"
    config.write_text("".join(f"IdentityFile {keygen(tmp_path / f'key{number}')}\n" for number in range(4)))
    with fails("login-disconnected", AuthenticationFailed) as caught:
        connections.connect(server.target(identity_file=None, ssh_config=config))
    assert "IdentitiesOnly" in str(caught.value)


# Jumps


@pytest.fixture
def chain(servers: Servers, tmp_path: Path) -> tuple[Sshd, Sshd, Sshd, Path]:
    """Two jump hosts and a node behind them, with the configuration and known_hosts that lead there."""
    first, second, node = servers(), servers(), servers()
    known = tmp_path / "known_hosts"
    known.write_text("".join(f"[127.0.0.1]:{s.port} {s.host_key()}\n" for s in (first, second)))
    config = tmp_path / "config"
    config.write_text(
        f"Host first\n Port {first.port}\n IdentityFile {first.key}\n"
        f"Host second\n Port {second.port}\n IdentityFile {second.key}\n ProxyJump first\n"
        f"Host *\n HostName 127.0.0.1\n User {node.user}\n IdentitiesOnly yes\n UserKnownHostsFile {known}\n"
    )
    return first, second, node, config


def test_a_node_behind_two_jump_hosts_is_reached(
    chain: tuple[Sshd, Sshd, Sshd, Path], connections: Connections
) -> None:
    first, second, node, config = chain
    transport = connections.connect(node.target(ssh_config=config, proxy_jump="second"))
    assert _said(transport) == WORDS[2].encode()
    assert (first.logins, second.logins, node.logins) == (1, 1, 1)


def test_twenty_nodes_share_the_way_to_their_jump_hosts(
    chain: tuple[Sshd, Sshd, Sshd, Path], connections: Connections
) -> None:
    first, second, node, config = chain
    held = threading.Barrier(20, timeout=120)

    def visit(number: int) -> bytes:
        transport = connections.connect(
            node.target(f"n{number}", ssh_config=config, proxy_jump="first,second", connect_timeout=120)
        )
        held.wait()
        said = _said(transport)
        transport.close()
        return said

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(visit, range(20))) == {WORDS[2].encode()}
    assert (first.logins, second.logins, node.logins) == (1, 1, 20)
    _until(lambda: first.children() == [])


def test_the_key_of_every_jump_host_is_checked(
    chain: tuple[Sshd, Sshd, Sshd, Path], connections: Connections, tmp_path: Path
) -> None:
    first, second, node, config = chain
    known = tmp_path / "known_hosts"
    known.write_text(known.read_text().splitlines()[0] + "\n")
    with fails("host-key-unknown-jump-host", HostKeyError):
        connections.connect(node.target(ssh_config=config, proxy_jump="second"))
    assert (first.logins, second.logins, node.logins) == (1, 0, 0)
    _until(lambda: first.children() == [])


def test_a_dead_jump_host_fails_all_its_nodes_at_once(
    chain: tuple[Sshd, Sshd, Sshd, Path], connections: Connections
) -> None:
    first, _, node, config = chain
    first.freeze()
    config.write_text(f"{config.read_text()} ConnectTimeout 3\n")

    def visit(number: int) -> str:
        try:
            connections.connect(node.target(f"n{number}", ssh_config=config, proxy_jump="second"))
        except ConnectionFailed as error:
            return error.where
        return "connected"

    began = time.monotonic()
    with ThreadPoolExecutor(10) as pool:
        assert sorted(pool.map(visit, range(10))) == sorted(f"n{number}" for number in range(10))
    assert time.monotonic() - began < 25, "not one after another"


def test_what_a_jump_host_can_not_reach_is_said(chain: tuple[Sshd, Sshd, Sshd, Path], connections: Connections) -> None:
    *_, node, config = chain
    node.stop()
    with fails("jump-host-cannot-connect", ConnectionFailed):
        connections.connect(node.target(ssh_config=config, proxy_jump="second"))
    node.start()


def test_a_proxy_command_is_used(server: Sshd, connections: Connections, tmp_path: Path) -> None:
    relay = tmp_path / "relay.py"
    relay.write_text(
        "import os, select, socket, sys\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "while True:\n"
        "    for f in select.select([0, s], [], [])[0]:\n"
        "        data = os.read(0, 65536) if f == 0 else s.recv(65536)\n"
        "        if not data: sys.exit()\n"
        "        s.sendall(data) if f == 0 else os.write(1, data)\n"
    )
    config = tmp_path / "config"
    config.write_text(f"ProxyCommand {sys.executable} {relay} %h %p\n")
    assert _said(connections.connect(server.target(ssh_config=config)))


def test_a_proxy_command_that_fails_is_quoted(server: Sshd, connections: Connections, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("ProxyCommand sh -c 'echo no such tunnel >&2; exit 3'\n")
    with fails("proxy-command-failed"):
        connections.connect(server.target(ssh_config=config))


# Silence


def _until(done: object, patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def test_a_port_where_nobody_listens(connections: Connections, server: Sshd) -> None:
    with fails("connection-refused", ConnectionFailed):
        connections.connect(server.target(port=1))


def test_a_name_that_does_not_exist(connections: Connections, server: Sshd) -> None:
    with fails("address-unresolved", ConnectionFailed):
        connections.connect(server.target(host="no-such-host.invalid"))


def test_something_that_is_no_ssh(connections: Connections, server: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        with fails("ssh-closed-before-login", ConnectionFailed):
            connections.connect(server.target(port=listener.getsockname()[1]))


def test_a_node_that_connects_but_never_speaks_is_reported_in_time(connections: Connections, server: Sshd) -> None:
    server.freeze()
    began = time.monotonic()
    with fails("ssh-no-answer", ConnectionFailed):
        connections.connect(server.target(connect_timeout=1))
    assert time.monotonic() - began < 9, "that was the limit, and not the usual one"


def test_a_dead_node_does_not_hold_the_others(servers: Servers, connections: Connections) -> None:
    dead, alive = servers(), servers()
    dead.freeze()
    with ThreadPoolExecutor(20) as pool:
        lost = [pool.submit(connections.connect, dead.target(f"d{n}", connect_timeout=60)) for n in range(10)]
        found = [pool.submit(connections.connect, alive.target(f"a{n}", connect_timeout=60)) for n in range(10)]
        for each in found:
            each.result()
        assert not any(each.done() for each in lost)
        dead.stop()
        assert {type(each.exception()) for each in lost} == {ConnectionFailed}, [
            repr(each.exception()) for each in lost
        ]


def test_a_node_that_freezes_in_mid_session_is_noticed_while_reading(connections: Connections, server: Sshd) -> None:
    stream = connections.connect(server.target(keepalive=1)).execute(["sleep", "60"])
    server.freeze()
    began = time.monotonic()
    with fails("connection-lost"):
        stream.read(10)
    assert time.monotonic() - began < 3 * 1 + 25


def test_a_node_that_freezes_in_mid_session_is_noticed_while_writing(connections: Connections, server: Sshd) -> None:
    stream = connections.connect(server.target(keepalive=1)).execute(["cat"])
    server.freeze()
    began = time.monotonic()
    with fails("connection-lost"):
        for _ in range(1000):
            stream.write(b"x" * 65536)
    assert time.monotonic() - began < 3 * 1 + 25


def test_a_quiet_program_on_a_living_node_is_not_lost(connections: Connections, server: Sshd) -> None:
    stream = connections.connect(server.target(keepalive=1)).execute(["sh", "-c", "sleep 4; echo still here"])
    assert stream.read(100) == b"still here\n"


def test_a_node_that_dies_in_mid_session_is_reported(connections: Connections, server: Sshd) -> None:
    stream = connections.connect(server.target()).execute(["sleep", "60"])
    threading.Timer(0.2, server.stop).start()
    with fails("connection-lost"):
        stream.read(10)
    server.start()


def test_a_program_ended_by_a_signal_gives_no_answer_but_its_status(connections: Connections, server: Sshd) -> None:
    stream = connections.connect(server.target()).execute(["sh", "-c", f"kill -{int(signal.SIGTERM)} $$"])
    assert stream.read(10) == b""
    assert stream.exit_status(5) in (143, None)


def test_errors_never_hold_a_secret(server: Sshd) -> None:
    def person(prompt: str) -> str:
        return "hunter2"

    with pytest.raises(SparkopsError) as caught:
        Connections(Passwords(person)).connect(
            Target(name="x", host="127.0.0.1", port=server.port, ssh_config=server.folder / "none")
        )
    assert "hunter2" not in str(caught.value)
