"""One node passes an image on to another: between two engines on loopback that say what a test wants."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from sparkops.checkpoints.authority import Authority
from sparkops.core.plan import Step
from sparkops.programs import docker
from sparkops.resources.image import Image
from sparkops.resources.images.build import LABEL
from sparkops.resources.transfers.source import Upstream
from sparkops.worker.calls import Refused
from sparkops.worker.kinds import image
from sparkops.worker.system import jobs
from tests.worker.engines import Engine, lines, running, say
from tests.worker.nodes import call

HERE = "127.0.0.1"
ID = "sha256:" + "c" * 64
ARCHIVE = ("a" * 70_000, "b" * 300_000, "c")


class Ground:
    """The engines of a source that has the image and of a receiver that will load it."""

    def __init__(self, source: Engine, receiver: Engine, folder: Path) -> None:
        self.source, self.receiver = source, receiver
        self.at = {"n1": str(folder / "n1.sock"), "n2": str(folder / "n2.sock")}
        self.wanted = Image(node="n2", name="local/tiny:1", content="FROM scratch\n", platform="linux/arm64")
        for engine in (source, receiver):
            engine.answers["/info"] = say('{"DockerRootDir": "/nowhere"}')
        source.answers["/images/local/tiny:1/json"] = say(json.dumps(self.told()))
        source.answers[f"/images/{ID}/get"] = lines(*ARCHIVE)
        receiver.answers["/images/load"] = say(json.dumps({"stream": f"Loaded image ID: {ID}\n"}))
        receiver.answers[f"/images/{ID}/json"] = say(json.dumps(self.told(RepoTags=[])))
        receiver.answers[f"/images/{ID}/tag"] = say("", 201)
        receiver.answers[f"/images/{ID}"] = say("[]")

    def told(self, **more: Any) -> dict[str, Any]:
        """What an engine says of the image."""
        config = {"Cmd": ["x"], "Labels": {LABEL: self.wanted.origin.build}}
        place = {"Os": "linux", "Architecture": "arm64", "RootFS": {"Layers": ["sha256:" + "1" * 64]}}
        return {"Id": ID, "Size": 370_000, "Config": config, **place, **more}

    def spread(self) -> None:
        """The relay of n1 opened, and n2 converged."""
        run = Authority()
        source = Image(node="n1", name="local/tiny:1", content="FROM scratch\n", platform="linux/arm64")
        way = Upstream(
            source=source, receiver=self.wanted, addresses=(HERE,), fabric=True, receivers=("n2",), authority=run
        )
        said = image.relay(call(), {**way._order(HERE), "at": self.at["n1"]})
        peer = {**said, "node": "n1", "address": HERE, "credentials": run.receiver("n2")}
        one, want = self.wanted, self.wanted.desired()
        step = Step(id=one.id, kind=one.kind, node="n2", action="create", before=None, after=want, changes=())
        image.converge(call(), {**one.ask(), "at": self.at["n2"]}, None, want, one.received(one.act(step), peer))

    def loads(self) -> list[bytes]:
        """The archives that the receiver's engine got whole."""
        return [body for _, path, _, body in self.receiver.asked if "/images/load" in path]

    @property
    def acts(self) -> list[str]:
        """What the receiver's engine was told to do with the loaded image."""
        return [method for method, path, _, _ in self.receiver.asked if ID in path and method != "GET"]


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    monkeypatch.setattr(jobs, "RUN", str(tmp_path / "run"))
    docker.versions.cache_clear()
    with contextlib.ExitStack() as started:
        engines = [started.enter_context(running(str(tmp_path / f"{name}.sock"))) for name in ("n1", "n2")]
        yield Ground(*engines, tmp_path)
    for job in jobs.running():
        os.killpg(job["pid"], signal.SIGKILL)


def refused(ground: Ground) -> str:
    """The id of the error that the transfer ends with."""
    with pytest.raises(Refused) as caught:
        ground.spread()
    return caught.value.id


def test_it_is_loaded_as_it_was_saved_and_then_named(ground: Ground) -> None:
    ground.spread()
    assert ground.loads() == ["".join(ARCHIVE).encode()]
    assert ground.acts == ["POST"]


def test_an_image_other_than_the_source_told_gets_no_name(ground: Ground) -> None:
    other = {"RootFS": {"Layers": ["sha256:" + "2" * 64]}, "RepoTags": []}
    ground.receiver.answers[f"/images/{ID}/json"] = say(json.dumps(ground.told(**other)))
    assert refused(ground) == "transfer-image-wrong"
    assert ground.acts == ["DELETE"]


def test_an_image_of_another_build_gets_no_name(ground: Ground) -> None:
    config = {"Cmd": ["x"], "Labels": {LABEL: "sha256:other"}}
    ground.receiver.answers[f"/images/{ID}/json"] = say(json.dumps(ground.told(Config=config, RepoTags=["mine:1"])))
    assert refused(ground) == "transfer-image-wrong"
    assert ground.acts == [], "what has a name already is somebody's"


def test_a_source_with_another_build_passes_nothing_on(ground: Ground) -> None:
    config = {"Cmd": ["x"], "Labels": {LABEL: "sha256:other"}}
    ground.source.answers["/images/local/tiny:1/json"] = say(json.dumps(ground.told(Config=config)))
    assert refused(ground) == "transfer-content-missing"


def test_a_save_that_breaks_off_is_begun_again_and_nothing_of_it_is_loaded(ground: Ground) -> None:
    answers = [lines(ARCHIVE[0], end=False), lines(*ARCHIVE)]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        answers.pop(0)(handler)

    ground.source.answers[f"/images/{ID}/get"] = answer
    ground.spread()
    assert answers == []
    assert ground.loads() == ["".join(ARCHIVE).encode()]
    assert ground.acts == ["POST"]


def test_a_source_that_sends_without_end_is_stopped(ground: Ground) -> None:
    ground.source.answers[f"/images/{ID}/get"] = lines(*["a" * (1 << 20)] * 8)
    assert refused(ground) == "transfer-image-too-large"
    assert ground.loads() == []


def test_a_cancelled_transfer_ends_at_once_though_its_source_is_silent(ground: Ground) -> None:
    ground.source.answers[f"/images/{ID}/get"] = lines(*ARCHIVE, pause=60.0)
    ends: list[Refused] = []

    def run() -> None:
        with pytest.raises(Refused) as refused:
            ground.spread()
        ends.append(refused.value)

    running_it = threading.Thread(target=run)
    running_it.start()
    folder = jobs.folder_of("image local/tiny:1")
    deadline = time.monotonic() + 90
    while "receiving" not in str(jobs.last_progress(folder).get("text")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert jobs.cancel_folder(folder)
    running_it.join(60)
    assert [each.type for each in ends] == ["cancelled"]
    assert ground.loads() == []
