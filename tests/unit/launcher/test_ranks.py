"""Ranks that talk over real sockets, each road a network of its own on this machine's loopback."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparkops.programs.launch.group import ENDING, ENGINE, HANG, LEFT, RUNNING, WAITING
from sparkops.programs.launch.ranks import Ranks
from sparkops.programs.launch.systemd import Failed, Systemd

ROADS = {"fabric": "127.77.0", "management": "127.78.0"}


@pytest.fixture
def port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind(("127.77.0.1", 0))
        return int(link.getsockname()[1])


def rank_of(folder: Path, rank: int, port: int, *, key: str = "k" * 64, count: int = 3) -> Ranks:
    """A rank whose launcher nobody watches."""
    if not (folder / f"key-{key[0]}").exists():  # a rank that runs would read it half written
        (folder / f"key-{key[0]}").write_text(key)
    roads = [{road: f"{network}.{number + 1}" for road, network in ROADS.items()} for number in range(count)]
    spec: dict[str, Any] = {
        "port": port,
        "rank": rank,
        "timeouts": {"first_boot_seconds": 60},
        "group": {
            "digest": "d",
            "key": str(folder / f"key-{key[0]}"),
            "record": str(folder / f"groups-{rank}" / "qwen.json"),
            "ranks": [{"node": f"spark-{number}", "roads": each} for number, each in enumerate(roads)],
            "heartbeat_seconds": 40,
            "minimum_uptime_seconds": 0,
            "hang_cooldown_seconds": 60,
            "restarts_per_boot": 0,
        },
    }
    return Ranks(spec, Systemd({}), lambda: None)


def until(true: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def begin(*ranks: Ranks) -> threading.Event:
    """Each waits for the others in a thread of its own, as its launcher does."""
    stopping = threading.Event()
    for each in ranks:
        each.start()
        threading.Thread(target=each.hold, args=(stopping, dict), daemon=True).start()
    return stopping


def test_ranks_meet_run_and_end_together_over_real_sockets(tmp_path: Path, port: int) -> None:
    head, *others = ranks = [rank_of(tmp_path, rank, port) for rank in range(3)]
    begin(others[1], head)
    until(lambda: head.group.why == "rank 1 (spark-1) is not there")
    begin(others[0])
    until(lambda: {each.group.phase for each in ranks} == {RUNNING})
    assert len({each.group.epoch for each in ranks}) == 1
    head.served()
    until(lambda: others[0].head_serves)
    assert others[0].ended(Failed(137, "the container ended with 137"))
    until(lambda: head.group.phase == ENDING and others[1].group.phase == ENDING)
    assert head.group.why == "rank 1 (spark-1): the container ended with 137"
    with pytest.raises(Failed, match="ended with 137"):
        others[1].check()
    assert others[1].ended(Failed(0, "")) and head.ended(Failed(0, ""))
    with pytest.raises(Failed, match="0 restarts since this node was booted are enough"):
        head.hold(threading.Event(), dict)
    noted = json.loads((tmp_path / "groups-0" / "qwen.json").read_text())
    assert [cause for _, cause in noted["restarts"]] == ["engine"]
    again = rank_of(tmp_path, 0, port)
    assert [cause for _, cause in again.group.restarts] == ["engine"], "the next launcher of this boot knows them"
    head.leave(ENGINE, head.group.spent)
    assert rank_of(tmp_path, 0, port).group.restarts == [], (
        "systemd starts it no more; who starts it by hand begins anew"
    )
    until(lambda: others[0].group.peers[0].said["phase"] == LEFT)


def test_a_rank_of_another_key_is_not_heard(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    head, foreign = rank_of(tmp_path, 0, port, count=2), rank_of(tmp_path, 1, port, key="f" * 64, count=2)
    begin(head, foreign)
    until(lambda: head.foreign > 3)
    assert head.group.phase == WAITING and head.group.why == "rank 1 (spark-1) is not there"
    assert capsys.readouterr().out.count("a message of another key") <= 2, "it is said once a minute at most"
    (tmp_path / "key-f").write_text("k" * 64)
    until(lambda: {head.group.phase, foreign.group.phase} == {RUNNING})  # a key that sparkops brings is taken at once


def test_an_address_that_is_not_there_yet_is_waited_for_and_named(tmp_path: Path, port: int) -> None:
    rank = rank_of(tmp_path, 0, port, count=2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.77.0.1", port))
        begin(rank)
        until(lambda: "fabric: 127.77.0.1 can't be used: UDP port" in rank.group.why)
    until(lambda: rank.group.why == "rank 1 (spark-1) is not there")


def test_without_a_key_nothing_is_said_or_believed(tmp_path: Path, port: int) -> None:
    rank = rank_of(tmp_path, 0, port)
    (tmp_path / "key-k").unlink()
    with pytest.raises(Failed, match="the group's key can't be read"):
        rank.start()


def test_every_cause_is_told_in_a_message(tmp_path: Path, port: int) -> None:
    head, other = rank_of(tmp_path, 0, port, count=2), rank_of(tmp_path, 1, port, count=2)
    begin(head, other)
    until(lambda: {head.group.phase, other.group.phase} == {RUNNING})
    with head.lock:
        head.group._end(HANG, "no sign of life", time.monotonic())
    until(lambda: other.group.phase == ENDING)
    assert other.group.end[1:] == (HANG, "no sign of life")
