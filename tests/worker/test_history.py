"""The node's record of runs: appended to, bounded, readable by its owner only, whole after a crash."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from sparkops.worker.requests import history
from tests.worker.nodes import call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


def append(folder: Path, **entry: Any) -> None:
    history.append(call(), {"state_dir": str(folder), "entry": entry})


def read(folder: Path, last: int = 1000) -> list[dict[str, Any]]:
    return history.read(call(), {"state_dir": str(folder), "last": last})


def test_entries_come_back_oldest_first_with_the_nodes_time(folder: Path) -> None:
    assert read(folder) == []
    for number in range(3):
        append(folder, number=number)
    assert [entry["number"] for entry in read(folder)] == [0, 1, 2]
    assert [entry["number"] for entry in read(folder, 2)] == [1, 2]
    times = [entry["time"] for entry in read(folder)]
    assert times == sorted(times)


def test_only_the_owner_may_read_it(folder: Path) -> None:
    append(folder, number=0)
    assert stat.S_IMODE(os.stat(folder / "history.jsonl").st_mode) == 0o600
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700


def test_it_does_not_grow_beyond_its_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "LIMIT", 4096)
    for number in range(200):
        append(folder, number=number, text="x" * 50)
        assert os.path.getsize(folder / "history.jsonl") <= 4096
    numbers = [entry["number"] for entry in read(folder)]
    assert numbers == list(range(numbers[0], 200)), "the newest are kept, without a gap"
    assert len(numbers) > 10


def test_a_line_that_would_be_too_long_names_the_first_steps(folder: Path) -> None:
    append(folder, steps=[{"id": f"file /{number}" + "x" * 100} for number in range(5000)])
    (entry,) = read(folder)
    assert entry["more"]
    assert 0 < len(entry["steps"]) < 5000


def test_a_torn_line_costs_only_itself(folder: Path) -> None:
    append(folder, number=0)
    with open(folder / "history.jsonl", "ab") as file:
        file.write(b'{"number": 1, "ti')
    append(folder, number=2)
    assert [entry["number"] for entry in read(folder)] == [0, 2]


def test_two_who_write_at_once_lose_nothing(folder: Path) -> None:
    append(folder, number=-1)
    threads = [threading.Thread(target=append, args=(folder,), kwargs={"number": number}) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry["number"] for entry in read(folder)) == list(range(-1, 20))


def test_a_link_in_its_place_is_not_followed(folder: Path, tmp_path: Path) -> None:
    folder.mkdir(mode=0o700)
    (tmp_path / "other").write_text("mine")
    (folder / "history.jsonl").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        append(folder, number=0)
    assert (tmp_path / "other").read_text() == "mine"
