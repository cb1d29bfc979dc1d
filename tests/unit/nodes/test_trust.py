"""`trust` on a real sshd: what is shown against what is pinned, known and revoked."""

from __future__ import annotations

from pathlib import Path

from sparkops.nodes.connect import Connections
from sparkops.nodes.ssh.host_keys import pinned
from sparkops.operate.first_contact.trust import Shown, compare

from .conftest import Servers
from .sshd import Sshd, keygen


def looked(server: Sshd, connections: Connections, *lines: str, pins: tuple[str, ...] = ()) -> Shown:
    """The server with these lines in its known_hosts and these pins; `HOST` in a line is its name."""
    path = server.folder / "known"
    path.write_text("".join(line.replace("HOST", f"[127.0.0.1]:{server.port}") + "\n" for line in lines))
    return compare(server.target(host_keys=pins, known_hosts=path), connections, "here")


def another(folder: Path, *words: str) -> str:
    return " ".join(keygen(folder / "other", *words).with_suffix(".pub").read_text().split()[:2])


def test_a_key_that_nobody_knows_is_new(server: Sshd, connections: Connections) -> None:
    found = looked(server, connections)
    assert [key.line for key in found.new] == [server.host_key()]
    assert not found.known and not found.fault


def test_a_known_key_is_known(server: Sshd, connections: Connections) -> None:
    found = looked(server, connections, f"HOST {server.host_key()}")
    assert [key.line for key in found.known] == [server.host_key()]
    assert not found.new and not found.fault


def test_a_revoked_key_is_never_offered(server: Sshd, connections: Connections) -> None:
    found = looked(server, connections, f"@revoked * {server.host_key()}")
    assert not found.new and not found.known
    assert "REVOKED" in found.fault and f"{server.folder / 'known'}:1" in found.fault


def test_a_revoked_key_is_not_known_even_where_it_is_pinned(server: Sshd, connections: Connections) -> None:
    found = looked(server, connections, f"@revoked HOST {server.host_key()}", pins=(server.host_key(),))
    assert not found.new and not found.known and "REVOKED" in found.fault


def test_a_revoked_key_spoils_the_good_one_beside_it(servers: Servers, connections: Connections) -> None:
    server = servers(host_keys=("ed25519", "rsa"))
    found = looked(server, connections, f"@revoked HOST {server.host_key('rsa')}")
    assert [key.line for key in found.new] == [server.host_key("ed25519")]
    assert "REVOKED" in found.fault


def test_another_key_of_a_known_type_has_changed(server: Sshd, connections: Connections, tmp_path: Path) -> None:
    old = another(tmp_path)
    found = looked(server, connections, f"HOST {old}")
    assert "HAS CHANGED" in found.fault and pinned(old, "").fingerprint in found.fault


def test_a_second_pin_is_as_good_as_the_first(server: Sshd, connections: Connections, tmp_path: Path) -> None:
    found = looked(server, connections, pins=(another(tmp_path), server.host_key()))
    assert [key.line for key in found.known] == [server.host_key()]
    assert not found.new and not found.fault


def test_beside_a_pinned_key_no_other_is_offered(servers: Servers, connections: Connections) -> None:
    server = servers(host_keys=("ed25519", "rsa"))
    found = looked(server, connections, pins=(server.host_key("rsa"),))
    assert [key.line for key in found.known] == [server.host_key("rsa")]
    assert not found.new and not found.fault


def test_a_key_of_another_type_than_the_pinned_one_can_not_be_added(
    server: Sshd, connections: Connections, tmp_path: Path
) -> None:
    found = looked(server, connections, pins=(another(tmp_path, "-t", "ecdsa"),))
    assert "pinned" in found.fault and not found.known
