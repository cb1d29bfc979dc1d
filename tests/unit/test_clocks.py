"""Clocks that are wrong: times still to come, and times before those of yesterday, where times are compared.

The lab's nodes share the machine's clock, so this is shown on the values themselves.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from sparkops.core.wording import duration
from sparkops.programs.checkpoints.index import Index
from sparkops.programs.checkpoints.proof import identity
from sparkops.reports.record import Record
from sparkops.runs import store
from sparkops.worker.calls import Call, Refused
from sparkops.worker.requests import lock
from tests.errors import fails
from tests.unit.reports.made import report

TOMORROW = 86400.0


def test_a_run_on_a_clock_that_went_back_is_kept_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    Record("words", "drift").finish(report(time=TOMORROW * 365 * 1000))
    made = Record("words", "drift").finish(report(time=1_000_000.0))
    assert store.find(made.run).body is not None
    assert [each.run for each in store.latest("words")][-1] == made.run


def test_a_lock_from_tomorrow_is_held_and_told_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = Call(1, lambda message: None, threading.Event())
    holder = {"who": "ada", "from": "laptop", "command": "apply x"}
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + TOMORROW)
    lock.acquire(call, {"state_dir": str(tmp_path), "holder": holder})
    monkeypatch.setattr(time, "time", lambda: now)
    with fails("node-locked", Refused) as busy:
        lock.acquire(call, {"state_dir": str(tmp_path), "holder": holder})
    assert (busy.value.values["who"], busy.value.values["seconds"]) == ("ada", 0)
    lock.release(call, {"state_dir": str(tmp_path)})


def test_what_was_verified_tomorrow_is_verified_anew_when_it_is_due(tmp_path: Path) -> None:
    index = Index(str(tmp_path), "/m")
    (tmp_path / "f").write_text("x")
    status = os.stat(tmp_path / "f")
    index.note(identity(status), "sha256:1", time.time() + TOMORROW)
    index.save()
    assert Index(str(tmp_path), "/m").find(status) == ("sha256:1", 0.0)
    assert json.loads(Path(index.path).read_text())["folder"] == "/m"


@pytest.mark.parametrize("seconds", [-1.0, -TOMORROW])
def test_a_time_still_to_come_is_no_negative_duration(seconds: float) -> None:
    assert "-" not in duration(seconds)
