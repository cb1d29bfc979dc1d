"""known_hosts files and pins, as plain values."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sparkops.core.errors import HostKeyError, InventoryError
from sparkops.nodes.ssh.host_keys import HostKey, Known, KnownHosts, add, check, host_name, pinned
from tests.errors import fails

from .sshd import keygen


@pytest.fixture
def key(tmp_path: Path) -> HostKey:
    """A host's key."""
    return _public(keygen(tmp_path / "one"))


@pytest.fixture
def other(tmp_path: Path) -> HostKey:
    """Another key of the same type."""
    return _public(keygen(tmp_path / "two"))


def _public(path: Path) -> HostKey:
    return pinned(path.with_name(path.name + ".pub").read_text(), "test")


def _file(folder: Path, text: str) -> KnownHosts:
    (folder / "known_hosts").write_text(text)
    return KnownHosts([folder / "known_hosts"])


def test_a_fingerprint_is_the_one_that_ssh_keygen_prints(tmp_path: Path) -> None:
    path = keygen(tmp_path / "three")
    said = subprocess.run(["ssh-keygen", "-l", "-f", str(path)], check=True, capture_output=True, text=True).stdout
    assert _public(path).fingerprint == said.split()[1]


def test_a_known_key_is_accepted(tmp_path: Path, key: HostKey) -> None:
    known = _file(tmp_path, f"# mine\nspark,192.0.2.1 {key.line} a comment\n").known("192.0.2.1")
    check(key, known, node="n", host="192.0.2.1")


def test_another_port_is_another_name(tmp_path: Path, key: HostKey) -> None:
    hosts = _file(tmp_path, f"[spark]:2222 {key.line}\n")
    assert hosts.known(host_name("Spark", 2222)).keys == (key,)
    assert hosts.known(host_name("spark", 22)).keys == ()


def test_hashed_names_are_found_as_ssh_keygen_writes_them(tmp_path: Path, key: HostKey) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"[spark]:2222 {key.line}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True)
    hosts = KnownHosts([path])
    assert "spark" not in path.read_text()
    assert hosts.known("[spark]:2222").keys == (key,)
    assert hosts.known("[spark]:2223").keys == ()


def test_patterns_match_and_a_negated_one_excludes(tmp_path: Path, key: HostKey) -> None:
    hosts = _file(tmp_path, f"*.lab,!bad.lab {key.line}\n")
    assert hosts.known("good.lab").keys
    assert not hosts.known("bad.lab").keys
    assert not hosts.known("lab").keys


def test_an_unknown_key_is_refused_with_its_fingerprint_and_the_way_out(key: HostKey) -> None:
    with fails("host-key-unknown", HostKeyError) as caught:
        check(key, Known(), node="spark-01", host="192.0.2.1")
    assert key.fingerprint in str(caught.value)
    assert "sparkops trust spark-01" in str(caught.value)
    assert caught.value.where == "spark-01"


def test_a_changed_key_names_file_and_line_of_the_old_one(tmp_path: Path, key: HostKey, other: HostKey) -> None:
    known = _file(tmp_path, f"\n# two lines above\nspark {key.line}\n").known("spark")
    with fails("host-key-changed", HostKeyError) as caught:
        check(other, known, node="spark-01", host="spark")
    assert f"{tmp_path / 'known_hosts'}:3" in str(caught.value)
    assert key.fingerprint in str(caught.value)
    assert other.fingerprint in str(caught.value)


def test_a_revoked_key_is_refused_even_where_it_is_also_known(tmp_path: Path, key: HostKey) -> None:
    known = _file(tmp_path, f"spark {key.line}\n@revoked * {key.line}\n").known("spark")
    with fails("host-key-revoked", HostKeyError):
        check(key, known, node="n", host="spark")


def test_an_authority_is_not_followed_and_that_is_said(tmp_path: Path, key: HostKey, other: HostKey) -> None:
    known = _file(tmp_path, f"@cert-authority * {other.line}\n").known("spark")
    with fails("host-key-authority-ignored", HostKeyError):
        check(key, known, node="n", host="spark")


def test_broken_lines_and_missing_files_are_passed_over(tmp_path: Path, key: HostKey) -> None:
    _file(tmp_path, f"spark\nspark ssh-ed25519 !!!\nspark ssh-rsa {key.line.split()[1]}\nspark {key.line}\n")
    hosts = KnownHosts([tmp_path / "none", tmp_path / "known_hosts"])
    assert hosts.known("spark").keys == (key,)


def test_a_pin_that_is_no_key_is_an_error_of_the_inventory() -> None:
    with fails("host-key-pin-invalid", InventoryError):
        pinned("SHA256:abc", "spark-01")


def test_added_keys_are_found_once_and_the_file_is_private(tmp_path: Path, key: HostKey, other: HostKey) -> None:
    path = tmp_path / "new" / "known_hosts"
    add(path, "spark", [key])
    add(path, "spark", [key, other])
    assert path.read_text() == f"spark {key.line}\nspark {other.line}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["known_hosts"]


def test_adding_keeps_what_the_file_had(tmp_path: Path, key: HostKey) -> None:
    path = tmp_path / "known_hosts"
    path.write_text("# by hand, no line end")
    add(path, "spark", [key])
    assert path.read_text() == f"# by hand, no line end\nspark {key.line}\n"
