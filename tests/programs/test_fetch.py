"""The fetch program with a folder and a spec: without worker, job or node."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sparkops.core.messages import Refused
from sparkops.programs import runner
from sparkops.programs.checkpoints import publish
from sparkops.programs.checkpoints.folder import CheckpointFolder, record_of
from sparkops.programs.checkpoints.index import Index, IndexListener
from sparkops.programs.checkpoints.target import Target
from sparkops.programs.fetch import caller
from sparkops.programs.progress import Listener
from tests.lab.hub import Fault, Hub

REPO, COMMIT = "org/tiny", "0" * 40
CONTENTS = {"config.json": b"{}", "sub/model.safetensors": b"weights" * 1000}


@dataclass
class Heard(Listener):
    notices: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    records: list[Any] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def progress(self, message: Any = "", *more: Any) -> None:
        self.texts.append(str(message.get("text")) if isinstance(message, Mapping) else str(message))

    def notice(self, id: str, args: Mapping[str, Any]) -> None:
        self.notices[id] = args

    def record(self, value: Any) -> None:
        self.records.append(value)

    def stopped(self) -> bool:
        return self.stopping.is_set()


@dataclass
class Ground:
    folder: Path
    hub: Hub
    commit: str

    def spec(self, mode: str, **more: Any) -> dict[str, Any]:
        return {
            "mode": mode,
            "folder": str(self.folder / "tiny"),
            "existing": None,
            "files": [[path, len(data), oid(data)] for path, data in CONTENTS.items()],
            "previous": [],
            "known": {},
            "prefixes": {},
            "record": "{}",
            "adopt": [],
            "repository": REPO,
            "commit": self.commit,
            "hub": {"endpoint": self.hub.endpoint, "repository": REPO, "commit": self.commit, "token": ""},
            "options": {"stall": 2.0, "pause": 0.02},
            **more,
        }

    def run(self, mode: str, heard: Heard | None = None, **more: Any) -> dict[str, Any]:
        (self.folder / "staging").mkdir(exist_ok=True)
        staging = os.open(self.folder / "staging", os.O_RDONLY)
        handles = [each for each in (staging, more.get("existing")) if each is not None]
        heard = heard or Heard()
        try:
            spec = self.spec(mode, staging=staging, **more)
            return dict(runner.run(caller.PROGRAM, spec, heard, descriptors=handles))
        finally:
            os.close(staging)


def oid(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def write(folder: Path, contents: Mapping[str, bytes]) -> Path:
    for path, data in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


@pytest.fixture
def ground(tmp_path: Path) -> Any:
    with Hub() as hub:
        commit = hub.add_repo(REPO, write(tmp_path / "published", CONTENTS))
        yield Ground(tmp_path, hub, commit)


def test_the_files_are_fetched_and_laid_out_with_the_record(ground: Ground) -> None:
    heard = Heard()
    done = ground.run("fetch", heard)
    staged = {path: (ground.folder / "staging" / path).read_bytes() for path in done["staged"]}
    assert staged == CONTENTS
    assert (ground.folder / "staging" / ".sparkops" / "manifest.json").read_text() == "{}"
    assert heard.texts[0] == "fetching 2 files"


def test_what_was_adopted_is_hashed_and_its_proof_recorded(ground: Ground) -> None:
    cache = write(ground.folder / "cache", {**CONTENTS, "config.json": b"[]"})
    heard = Heard()
    ground.run("fetch", heard, adopt=[str(cache)])
    assert heard.notices["files-adopted"]["ways"] == ["1 by link"]
    assert heard.notices["adopted-file-wrong"]["source"] == str(cache / "config.json")
    assert ground.hub.bytes_sent("sub/*") == 0


def test_what_has_to_be_pushed_is_listed_and_the_rest_refused(ground: Ground) -> None:
    assert [path for path, *_ in ground.run("list")["missing"]] == list(CONTENTS)
    with pytest.raises(Refused) as caught:
        ground.run("staged")
    assert (caught.value.id, caught.value.values["count"]) == ("files-not-pushed", 2)


def test_a_verified_folder_is_summed_up_and_each_file_read_is_recorded(ground: Ground) -> None:
    folder = write(ground.folder / "tiny", {"config.json": b"[]"})
    existing = os.open(folder, os.O_RDONLY)
    heard = Heard()
    done = ground.run("verify", heard, existing=existing)
    os.close(existing)
    assert (done["wrong"], done["missing"], done["hashed"]) == (["config.json"], ["sub/model.safetensors"], 2)
    assert [record["hashed"][1] for record in heard.records] == [oid(b"[]")]


def test_a_hub_that_fails_is_an_error_with_an_id_and_what_arrived_stays(ground: Ground) -> None:
    ground.hub.fail("sub/*", Fault(status=404, stage="resolve"))
    with pytest.raises(Refused) as caught:
        ground.run("fetch")
    assert caught.value.id == "hub-file-not-served"
    ground.hub.heal()
    assert ground.run("fetch")["staged"].keys() == CONTENTS.keys()


def test_a_stopped_fetch_ends_soon_and_is_resumed(ground: Ground) -> None:
    ground.hub.fail("sub/*", Fault(stall_after=10, stall=30))
    heard = Heard()
    threading.Timer(1.0, heard.stopping.set).start()
    with pytest.raises(Refused) as caught:
        ground.run("fetch", heard)
    assert caught.value.type == "cancelled"
    ground.hub.heal()
    assert ground.run("fetch")["staged"].keys() == CONTENTS.keys()


def test_the_caller_publishes_what_was_staged_with_its_proof(ground: Ground) -> None:
    place, state = CheckpointFolder(str(ground.folder / "tiny")), str(ground.folder / "state")
    record = json.dumps({"repository": REPO, "commit": COMMIT, "files": []})
    index = Index(state, place.path)
    target = Target(place, None, pwd.getpwuid(os.getuid()), index, Heard())  # type: ignore[arg-type]
    done = target.bring(caller.PROGRAM, ground.spec("fetch", record=record), lambda _: "")
    assert done["notices"] == []
    handle = place.open()
    assert handle is not None and record_of(handle)[1]["commit"] == COMMIT
    status = os.stat(ground.folder / "tiny" / "config.json")
    assert Index(state, place.path).find(status) is not None
    publish.retire(place, state)
    os.close(handle)
    assert not os.path.exists(place.path) and not os.path.exists(index.path)


@pytest.mark.parametrize("text", ["torn", "[]", '{"files": {"a": 1}}', '{"files": []}'])
def test_a_damaged_index_is_reported_and_counts_for_nothing(tmp_path: Path, text: str) -> None:
    path = Path(Index(str(tmp_path), "/m").path)
    path.parent.mkdir()
    path.write_text(text)
    index = Index(str(tmp_path), "/m")
    assert index.entries == {}
    ((id, args),) = IndexListener(Heard(), index).notices
    assert (id, args["path"], args["folder"]) == ("index-damaged", str(path), "/m")
    index.save()
    assert Index(str(tmp_path), "/m").notices == []


def test_a_folder_without_an_index_is_no_damaged_one(tmp_path: Path) -> None:
    assert Index(str(tmp_path), "/m").notices == []
