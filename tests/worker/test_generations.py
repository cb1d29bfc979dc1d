"""Keeping and bringing back the rendered files of a service, on a folder that stands for the node's root."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from sparkops.programs.checkpoints.proof import RECORD
from sparkops.worker.calls import Refused
from sparkops.worker.kinds import gate, generation, unit
from sparkops.worker.record import generations
from sparkops.worker.system import processes
from tests.worker.engines import Engine, say
from tests.worker.nodes import call

SPEC, ENV, UNIT = "/etc/sparkops/services/q.json", "/etc/sparkops/services/q.env", "/etc/systemd/system/q.service"
FILES = [SPEC, ENV, UNIT]


class Node:
    """A root with the files of a service, and an engine that knows images by name."""

    def __init__(self, root: Path, engine: Engine) -> None:
        self.root, self.engine = root, engine
        self.folder = str(root / "var/lib/sparkops/generations/q")
        for path in FILES:
            (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        self.checkpoint = root / "models/m"
        (self.checkpoint / RECORD).parent.mkdir(parents=True)

    def render(self, version: str, image: str, commit: str = "1", env: str | None = None) -> None:
        self.engine.answers["/images/x/y:1/json"] = say(json.dumps({"Id": image}))
        self.engine.answers[f"/images/{image}/json"] = say(json.dumps({"Id": image}))
        (self.checkpoint / RECORD).write_text(commit)
        spec = {"image": "x/y:1", "argv": [version], "mounts": [{"source": "/models/m", "target": "/model"}]}
        self.path(SPEC).write_text(json.dumps(spec))
        self.path(UNIT).write_text(f"[Service]\n# {version}\n")
        self.path(ENV).unlink(missing_ok=True)
        if env is not None:
            self.path(ENV).write_text(env)
            self.path(ENV).chmod(0o600)

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def ask(self, **more: Any) -> dict[str, Any]:
        return {"folder": self.folder, "present": True, "unit": "q.service", "files": FILES, "restore": None, **more}

    def look(self, **more: Any) -> dict[str, Any]:
        found = generation.observe(self.ask(**more), root=str(self.root))
        assert found is not None
        return found

    def keep(self, keep: int = 3) -> None:
        generation.converge(
            call(), self.ask(), self.look(), {"stable": True}, {"keep": keep, "image": ""}, root=str(self.root)
        )


@pytest.fixture
def node(tmp_path: Path) -> Any:
    import threading

    socket = tmp_path / "var/run/docker.sock"
    socket.parent.mkdir(parents=True)
    engine = Engine(str(socket))
    thread = threading.Thread(target=engine.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield Node(tmp_path, engine)
    engine.shutdown()
    engine.server_close()
    thread.join(10)


def test_what_is_kept_is_stable_until_any_part_of_it_changes(node: Node) -> None:
    node.render("1", "sha256:a", env="S=1")
    assert not node.look()["stable"]
    node.keep()
    assert node.look()["stable"]
    assert node.look()["inputs"] == hashlib.sha256(node.path(SPEC).read_bytes()).hexdigest()
    for change in (
        {"version": "2", "image": "sha256:a", "env": "S=1"},
        {"version": "1", "image": "sha256:b", "env": "S=1"},
        {"version": "1", "image": "sha256:a", "env": "S=2"},
        {"version": "1", "image": "sha256:a", "env": None},
        {"version": "1", "image": "sha256:a", "env": "S=1", "commit": "2"},
    ):
        node.render(**change)  # type: ignore[arg-type]
        assert not node.look()["stable"], change
    node.render("1", "sha256:a", env="S=1")
    assert node.look()["stable"]


def test_no_more_than_asked_for_are_kept_and_nobody_else_may_read_them(node: Node) -> None:
    for version in "12345":
        node.render(version, "sha256:a")
        node.keep(keep=2)
    assert [each["number"] for each in node.look()["generations"]] == [4, 5]
    assert {oct(each.stat().st_mode & 0o777) for each in Path(node.folder).iterdir()} == {"0o600"}
    assert oct(Path(node.folder).stat().st_mode & 0o777) == "0o700"


def test_a_generation_comes_back_byte_by_byte_with_its_image_and_what_was_there_is_gone(node: Node) -> None:
    node.render("1", "sha256:a", env=None)
    node.keep()
    unit = node.path(UNIT).read_bytes()
    node.render("2", "sha256:b", env="S=secret")
    node.engine.answers["/images/sha256:a/tag"] = say("", 201)
    (kept,) = generations.kept(node.folder)
    generations.bring_back(kept, root=str(node.root))
    assert node.path(UNIT).read_bytes() == unit
    assert not node.path(ENV).exists(), "there was none then"
    tagged = [path for method, path, _, _ in node.engine.asked if method == "POST"]
    assert len(tagged) == 1 and "repo=x%2Fy" in tagged[0] and "tag=1" in tagged[0]


@pytest.mark.parametrize("gone", ["image", "checkpoint"])
def test_nothing_is_written_where_the_image_or_the_checkpoint_is_another(node: Node, gone: str) -> None:
    node.render("1", "sha256:a")
    node.keep()
    node.render("2", "sha256:b", commit="1" if gone == "image" else "2")
    before = {path: node.path(path).read_bytes() for path in (SPEC, UNIT)}
    if gone == "image":
        node.engine.answers["/images/sha256:a/json"] = say('{"message": "no such image"}', 404)
    (kept,) = generations.kept(node.folder)
    with pytest.raises(Refused) as caught:
        generations.bring_back(kept, root=str(node.root))
    assert caught.value.id == {"image": "generation-image-gone", "checkpoint": "generation-checkpoint-changed"}[gone]
    assert before == {path: node.path(path).read_bytes() for path in before}


def test_what_is_to_be_brought_back_is_named_and_stays_so_when_it_is_there(node: Node) -> None:
    node.render("1", "sha256:a")
    node.keep()
    assert node.look(restore="newest")["restored"]
    node.render("2", "sha256:a")
    assert (node.look(restore="newest")["target"], node.look(restore="newest")["restored"]) == (1, False)
    node.keep()
    assert node.look(restore="newest")["target"] == 2
    assert node.look(restore=2)["restored"] and not node.look(restore=1)["restored"]
    assert node.look(restore=9)["target"] is None


def test_nothing_goes_back_by_itself_to_what_a_person_took_back(node: Node) -> None:
    for version in "12":
        node.render(version, "sha256:a")
        node.keep()
    newest = node.look()["inputs"]
    node.render("3", "sha256:a")
    assert node.look(restore="newest")["target"] == 2
    generations.reject(node.folder, newest)
    assert node.look(restore="newest")["target"] == 1
    assert node.look(restore=2)["target"] == 2, "it is asked for"
    generations.reject(node.folder, generations.kept(node.folder)[0]["inputs"])
    assert node.look(restore="newest")["target"] == 2, "there is no other"


def test_a_unit_that_still_runs_from_other_files_than_those_that_are_back_is_told(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.render("1", "sha256:a")
    node.path(UNIT).write_text("[Service]\nEnvironment=SPARKOPS_INPUTS=one\n")
    node.keep()
    shown = {"ActiveState": "active", "SubState": "running", "MainPID": "7"}
    monkeypatch.setattr(unit, "show", lambda names, more=(): dict.fromkeys(names, shown))
    process = node.root / "proc/7"
    process.mkdir(parents=True)
    (process / "exe").symlink_to("/usr/bin/python3")
    for inputs, outdated in (("two", True), ("one", False)):
        (process / "environ").write_text(f"A=1\0SPARKOPS_INPUTS={inputs}\0")
        found = node.look(restore="newest")
        assert (found["restored"], found["outdated"]) == (True, outdated)


def test_what_is_rejected_is_held_until_it_is_stable(node: Node) -> None:
    node.render("1", "sha256:a")
    inputs = node.look()["inputs"]
    generations.reject(node.folder, inputs)
    generations.reject(node.folder, inputs)
    assert node.look()["rejected"] == [inputs]
    node.keep()
    assert node.look()["rejected"] == []


@pytest.mark.parametrize(
    ("there", "known", "rejected"),
    [
        ({"version": "2", "image": "sha256:b"}, "new", "{there}"),
        ({"version": "1", "image": "sha256:b"}, "new", "{there}+new"),
        ({"version": "1", "image": "sha256:b"}, "", None),
        ({"version": "1", "image": "sha256:a", "env": "S=2"}, "new", None),
    ],
    ids=["another spec", "another image", "not known which", "another secret"],
)
def test_what_is_taken_back_is_held_by_what_was_another(
    node: Node, monkeypatch: pytest.MonkeyPatch, there: dict[str, str], known: str, rejected: str | None
) -> None:
    monkeypatch.setattr(processes, "run", lambda argv: None)
    node.engine.answers["/images/sha256:a/tag"] = say("", 201)
    node.render("1", "sha256:a", env="S=1")
    node.keep()
    node.render(**{"env": "S=1", **there})
    inputs = node.look()["inputs"]
    ask = node.ask(restore="newest")
    found = generation.observe(ask, root=str(node.root))
    generation.converge(call(), ask, found, {"restored": True}, {"keep": 3, "image": known}, root=str(node.root))
    assert node.look()["rejected"] == ([rejected.format(there=inputs)] if rejected else [])
    node.render("1", "sha256:b", env="S=1")
    node.keep()
    assert node.look()["rejected"] == ([inputs] if there["version"] == "2" else []), "it became stable"


def test_a_state_whose_gate_was_not_asked_has_not_passed_however_it_came_there(node: Node) -> None:
    def passed() -> bool:
        return bool(gate.observe({"files": FILES, "folder": node.folder}, root=str(node.root))["passed"])

    node.render("1", "sha256:a")
    assert not passed()
    now = generations.present(FILES, root=str(node.root))
    generations.note_passed(node.folder, now["fingerprint"], {}, {})
    assert passed()
    node.render("2", "sha256:a")
    assert not passed(), "a run that was cut off here is made up for by the next one"


def test_what_was_measured_of_another_state_is_not_this_one_s(node: Node) -> None:
    """A file that changed between the gate and the keeping gave the next gate a false measure."""
    now = generations.present(FILES, root=str(node.root))
    generations.note_passed(node.folder, now["fingerprint"], {"speed": 40.0}, {})
    node.render("2", "sha256:2")
    node.keep()
    assert generations.kept(node.folder)[-1]["measured"] == {}
    now = generations.present(FILES, root=str(node.root))
    generations.note_passed(node.folder, now["fingerprint"], {"speed": 40.0}, {})
    node.keep()
    assert generations.kept(node.folder)[-1]["measured"] == {"speed": 40.0}


def test_a_damaged_record_is_none_and_stops_nothing(node: Node) -> None:
    node.render("1", "sha256:a")
    node.keep()
    (Path(node.folder) / "1.json").write_text("{")
    (Path(node.folder) / "rejected.json").write_text("[]")
    assert node.look()["generations"] == [] and node.look()["rejected"] == []
    node.keep()
    assert node.look()["stable"]
