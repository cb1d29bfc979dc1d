"""A real sshd for the tests of `nodes`; where the machine has none, those tests are skipped and say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import Passwords

from .sshd import SSHD, Sshd

Servers = Callable[..., Sshd]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Starts servers; the words are lines of sshd_config. All end with the test."""
    if not SSHD.exists():
        pytest.skip("no sshd on this machine")
    made: list[Sshd] = []

    def start(*settings: str, **options: object) -> Sshd:
        made.append(Sshd(tmp_path / f"sshd{len(made)}", *settings, **options))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for server in made:
        server.stop()


@pytest.fixture
def server(servers: Servers) -> Sshd:
    """One server with an ed25519 host key."""
    return servers()


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    """Nobody to ask, and no agent."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return Connections(Passwords())
