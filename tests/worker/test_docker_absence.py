"""Why Docker does not answer: one reason for each state that a node can be in, and a way out for each."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core.wording import words
from sparkops.programs import docker_absence
from sparkops.programs.docker_absence import Seen, reason, why

SOCKET = docker_absence.SOCKETS[0]
LOADED = {"LoadState": "loaded", "ActiveState": "inactive", "Result": "success"}


def seen(service: dict[str, str], socket: dict[str, str] | None = None, *sockets: str, installed: bool = True) -> Seen:
    units = {"docker.service": {**LOADED, **service}, "docker.socket": {**LOADED, **(socket or {})}}
    return Seen(units, installed, sockets)


GONE = {"LoadState": "not-found"}
STATES = {
    "docker-stopped": seen({}),
    "docker-masked": seen({"LoadState": "masked"}),
    "docker-failed": seen({"ActiveState": "failed", "Result": "start-limit-hit"}),
    "docker-starting": seen({"ActiveState": "activating"}),
    "docker-elsewhere": seen({"ActiveState": "active"}, None, "/run/other.sock"),
    "docker-deaf": seen({"ActiveState": "active"}),
    "docker-not-installed": seen(GONE, GONE, installed=False),
    "docker-not-running": seen(GONE, GONE),
}


@pytest.mark.parametrize("id", STATES)
def test_each_state_has_its_own_reason_and_a_way_out(id: str) -> None:
    found = reason(SOCKET, STATES[id])
    assert found.id == id
    assert words(found.id, found.values)[1]


def test_a_masked_socket_is_named_with_the_service() -> None:
    found = reason(SOCKET, seen({}, {"LoadState": "masked"}))
    assert (found.id, found.values["units"]) == ("docker-masked", "docker.socket")
    both = reason(SOCKET, seen({"LoadState": "masked"}, {"LoadState": "masked"}))
    assert both.values["units"] == "docker.service docker.socket"


def test_an_engine_of_another_kind_is_told_by_where_it_listens() -> None:
    assert reason(SOCKET, seen(GONE, GONE, "/run/user/1000/docker.sock", installed=False)).id == "docker-elsewhere"


WORDS = st.sampled_from(["", "loaded", "not-found", "masked", "error", "active", "inactive", "failed", "activating"])


@given(WORDS, WORDS, WORDS, st.booleans(), st.lists(st.just("/run/x.sock"), max_size=1))
def test_whatever_systemd_says_there_is_one_reason_with_words(
    load: str, active: str, other: str, installed: bool, sockets: list[str]
) -> None:
    units = {"docker.service": {"LoadState": load, "ActiveState": active}, "docker.socket": {"LoadState": other}}
    found = reason(SOCKET, Seen(units, installed, tuple(sockets)))
    message, fix = words(found.id, found.values)
    assert "not given" not in message + fix and fix


def test_a_node_without_systemd_is_told_by_what_is_installed() -> None:
    assert reason(SOCKET, Seen(installed=True)).id == "docker-not-running"
    assert reason(SOCKET, Seen(installed=False)).id == "docker-not-installed"


def test_a_refused_user_is_told_as_that() -> None:
    assert why(SOCKET, PermissionError(13, "Permission denied")).id == "docker-permission-denied"


def test_where_a_process_listens_is_found_by_its_open_sockets(tmp_path: Path) -> None:
    path = str(tmp_path / "docker.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        inodes = set(docker_absence._inodes(str(os.getpid())))
        assert [found for inode, found in docker_absence._listening() if inode in inodes] == [path]
        assert path in docker_absence.look().sockets
