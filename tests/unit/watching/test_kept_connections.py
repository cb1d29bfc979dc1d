"""Rounds over one connection per node: a real sshd counts the logins."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sparkops.library import Cluster, load
from sparkops.reconcile.fleet import Fleet
from sparkops.watching.loop import NOT_TRIED, Audience, Orders, Rhythm, Watcher
from tests.unit.inventory.project import Project
from tests.unit.nodes.sshd import SSHD, Sshd


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    if not SSHD.exists():
        pytest.skip("no sshd on this machine")
    made = Sshd(tmp_path / "sshd")
    yield made
    made.stop()


@pytest.fixture
def cluster(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """One node behind that sshd, with one file as declared."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "kept"))
    monkeypatch.setenv("SPARKOPS_SSH_CONFIG", "/dev/null")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "motd").write_text("hello")
    project = Project(tmp_path)
    project.role("own", f"summary: x\nscope: node\nresources: [{{file: {tmp_path / 'motd'}, content: hello}}]\n")
    way = (
        f"{{user: {server.user}, port: {server.port}, become: false, identity_file: {server.key}, connect_timeout: 20,"
        f" host_key: '{server.host_key()}', state_dir: {tmp_path / 'state'}}}"
    )
    project.write(
        "inventory.yml",
        f"version: 1\ncluster: attic\nroles: [own]\nconnection: {way}\nnodes: {{here: {{host: 127.0.0.1}}}}\n",
    )
    return load(tmp_path / "inventory.yml")


def look(cluster: Cluster, fleet: Fleet) -> int:
    fleet.renew()
    return cluster.drift(fleet=fleet).exit_status


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_all_looks_share_a_connection_and_see_what_is_there_now(cluster: Cluster, server: Sshd, tmp_path: Path) -> None:
    with cluster.fleet() as fleet:
        assert [look(cluster, fleet) for _ in range(3)] == [0, 0, 0]
        (tmp_path / "motd").write_text("edited")
        assert look(cluster, fleet) == 2
        (tmp_path / "motd").write_text("hello")
        assert look(cluster, fleet) == 0
    assert server.logins == 1
    until(lambda: server.children() == [])


def test_a_connection_that_is_lost_between_two_looks_is_made_anew(cluster: Cluster, server: Sshd) -> None:
    with cluster.fleet() as fleet:
        assert look(cluster, fleet) == 0
        for pid in server.children():
            os.kill(pid, signal.SIGKILL)
        until(lambda: fleet.session("here").lost)
        assert look(cluster, fleet) == 0
    assert server.logins == 2


def test_a_node_that_is_away_is_told_and_left_alone_for_growing_times(cluster: Cluster, server: Sshd) -> None:
    reasons: list[str] = []
    orders = Orders()

    def show(report: object, changes: object) -> None:
        unreachable = report.plan.unreachable  # type: ignore[attr-defined]
        reasons.append(unreachable["here"].id if unreachable else "")
        if len(reasons) == 5:
            server.start()
        if len(reasons) > 5 and not unreachable:
            orders.stop.set()

    server.stop()
    audience = Audience(show=show, say=lambda message: pytest.fail(message.full))
    Watcher(lambda: cluster, Rhythm(interval=0.01), orders, audience).run()
    tried = [number for number, reason in enumerate(reasons) if reason != NOT_TRIED]
    assert tried == [0, 1, 3, 7]
    assert reasons[7] == ""
