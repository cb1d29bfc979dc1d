"""`init --from-host` and `trust ADDRESS` against a real sshd that nobody knows: told, asked, pinned; never a circle."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from sparkops.nodes.ssh.host_keys import pinned

from .sshd import Sshd


class Stranger:
    """A person with a key that the server lets in, and no known_hosts."""

    def __init__(self, server: Sshd, folder: Path) -> None:
        self.folder = folder / "home"
        self.folder.mkdir()
        self.address = f"{server.user}@127.0.0.1:{server.port}"
        self.fingerprint = pinned(server.host_key(), "").fingerprint
        config = self.folder / "ssh_config"
        config.write_text(
            f"Host *\n  IdentityFile {server.key}\n  UserKnownHostsFile {self.folder}/user_known_hosts\n"
            "  GlobalKnownHostsFile none\n"
        )
        self.environment = {**os.environ, "SPARKOPS_SSH_CONFIG": str(config), "NO_COLOR": "1"}
        self.environment.pop("SSH_AUTH_SOCK", None)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sparkops", *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )

    def at_a_terminal(self, *words: str, answers: dict[str, str]) -> tuple[int, str]:
        """The exit status and what was shown; each question that is a key of `answers` is answered once."""
        main, side = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "sparkops", *words],
            cwd=self.folder,
            env=self.environment,
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
        )
        os.close(side)
        shown, left, deadline = "", dict(answers), time.monotonic() + 180
        while time.monotonic() < deadline:
            if select.select([main], [], [], 0.2)[0]:
                try:
                    shown += os.read(main, 65536).decode(errors="replace")
                except OSError:
                    break
            for question in [each for each in left if each in shown]:
                os.write(main, f"{left.pop(question)}\n".encode())
        os.close(main)
        return process.wait(60), shown

    def inventory(self) -> dict[str, dict[str, dict[str, dict[str, str]]]]:
        found = yaml.safe_load((self.folder / "inventory.yml").read_text())
        assert isinstance(found, dict)
        return found


@pytest.fixture
def stranger(server: Sshd, tmp_path: Path) -> Stranger:
    return Stranger(server, tmp_path)


def test_on_a_terminal_the_key_is_shown_and_asked_about_and_the_cluster_named(stranger: Stranger, server: Sshd) -> None:
    status, shown = stranger.at_a_terminal(
        "init", "--from-host", stranger.address, answers={"Is this the key": "y", "Name of the cluster": "rack"}
    )
    assert status == 0, shown
    assert stranger.fingerprint in shown
    found = stranger.inventory()
    assert found["cluster"] == "rack"
    (node,) = found["nodes"].values()
    assert node["connection"]["host_key"] == server.host_key()


def test_an_answer_of_no_writes_nothing_and_does_not_log_in(stranger: Stranger, server: Sshd) -> None:
    status, _ = stranger.at_a_terminal("init", "--from-host", stranger.address, answers={"Is this the key": "n"})
    assert status == 130
    assert server.logins == 0 and not (stranger.folder / "inventory.yml").exists()


def test_without_a_terminal_the_message_has_the_command_that_goes_on(stranger: Stranger, server: Sshd) -> None:
    refused = stranger.run("init", "--from-host", stranger.address)
    assert refused.returncode == 1 and "error[host-key-unconfirmed]" in refused.stderr
    assert f"--accept-key {stranger.fingerprint}" in refused.stderr and server.logins == 0
    other = stranger.run("init", "--from-host", stranger.address, "--accept-key", "SHA256:" + "A" * 43)
    assert other.returncode == 3 and "error[host-key-other-than-accepted]" in other.stderr and server.logins == 0
    done = stranger.run("init", "--from-host", stranger.address, "--accept-key", stranger.fingerprint)
    assert done.returncode == 0, done.stderr
    assert stranger.inventory()["cluster"], "a name is made where nobody can be asked"
    assert stranger.run("inventory", "show", next(iter(stranger.inventory()["nodes"]))).returncode == 0


def test_trust_takes_an_address_and_init_then_asks_nothing(stranger: Stranger) -> None:
    assert stranger.run("trust").returncode == 1
    shown = stranger.run("trust", stranger.address, "--accept-key", stranger.fingerprint)
    assert shown.returncode == 0 and "added to known_hosts" in shown.stdout, shown.stderr
    assert stranger.fingerprint in shown.stdout
    done = stranger.run("init", "--from-host", stranger.address, "--cluster", "rack")
    assert done.returncode == 0, done.stderr
    assert stranger.run("trust", stranger.address).returncode == 0, "beside an inventory an address is still one"


@pytest.mark.parametrize("address", ["", "nvidia@", "host:ssh", "a b"])
def test_what_is_no_address_is_told(stranger: Stranger, address: str) -> None:
    assert "error[node-address-malformed]" in stranger.run("init", "--from-host", address).stderr
