"""sparkops' own folder on a temporary root: gone when nothing needs it, and only what is sparkops' own in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparkops.worker.calls import Refused
from sparkops.worker.requests import own_state
from sparkops.worker.system import jobs
from tests.errors import fails


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(jobs, "RUN", str(tmp_path / "run" / "jobs"))
    made = tmp_path / "state"
    for name in ("claims", "verified", "models", "compiled/qwen"):
        (made / name).mkdir(parents=True)
    for name in ("key", "lock", "history.jsonl"):
        (made / name).write_text("x")
    (made / "claims" / "attic.json").write_text("{}")
    (tmp_path / "run" / "units").mkdir(parents=True)
    return made


def ask(folder: Path, *going: str, former: str = "") -> dict[str, Any]:
    return {"state_dir": str(folder), "cluster": "attic", "former": former, "going": list(going)}


def stays(folder: Path, *going: str) -> str | None:
    found = own_state.observe(ask(folder, *going), run=str(folder.parent / "run"))
    assert found is not None
    return found["stays"]["id"] if found["stays"] else None


def remove(folder: Path) -> None:
    own_state.converge(None, ask(folder), {}, None, {}, run=str(folder.parent / "run"))  # type: ignore[arg-type]


def test_it_goes_with_all_that_is_its_own(folder: Path) -> None:
    assert stays(folder) is None
    remove(folder)
    assert list(folder.parent.iterdir()) == []
    assert own_state.observe(ask(folder), run=str(folder.parent / "run")) is None
    remove(folder)


def test_another_cluster_a_checkpoint_or_a_persons_file_keeps_it(folder: Path) -> None:
    (folder / "claims" / "cellar.json").write_text(json.dumps({"file /a": {}}))
    assert stays(folder) == "own-state-of-cluster"
    with fails("own-state-needed", Refused):
        remove(folder)
    found = own_state.observe(ask(folder, former="cellar"), run=str(folder.parent / "run"))
    assert found is not None and found["stays"] is None, "the cluster's own former name is no other"
    (folder / "claims" / "cellar.json").unlink()

    checkpoint = folder / "models" / "org--x" / "main"
    checkpoint.mkdir(parents=True)
    (checkpoint.parent / ".main.sparkops-partial").mkdir()
    assert stays(folder) == "own-state-checkpoints"
    assert stays(folder, str(checkpoint)) is None
    with fails("own-state-needed", Refused):
        remove(folder)
    for each in checkpoint.parent.iterdir():
        each.rmdir()

    (folder / "adopted").mkdir()
    assert stays(folder) is None
    (folder / "adopted" / "vllm.service").write_text("somebody's")
    assert stays(folder) == "own-state-adopted"
    with fails("own-state-needed", Refused):
        remove(folder)
    (folder / "adopted" / "vllm.service").unlink()

    (folder / "notes.txt").write_text("mine")
    assert stays(folder) == "own-state-foreign"
    with fails("own-state-needed", Refused):
        remove(folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_what_this_cluster_still_claims_keeps_it_when_it_comes_to_the_act(folder: Path) -> None:
    (folder / "claims" / "attic.json").write_text(json.dumps({"file /a": {}}))
    assert stays(folder) is None, "what is to go before it is not in its way"
    with fails("own-state-needed", Refused):
        remove(folder)
    assert (folder / "claims" / "attic.json").exists()
