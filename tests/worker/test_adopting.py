"""Which containers and units stand in the place of a service, on plain values; a folder proven on a temporary root."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from sparkops.operate.first_contact.look import ANY
from sparkops.programs import docker
from sparkops.programs.checkpoints.index import Index
from sparkops.programs.fetch import caller
from sparkops.worker.requests import adopt
from sparkops.worker.system import jobs
from tests.errors import fails
from tests.worker.engines import running, say
from tests.worker.nodes import call

ASKED = {"image": "x:1", "container": "sparkops-qwen", "port": 8000, "unit": "qwen.service"} | {
    "chosen": "",
    "chosen_unit": "",
}


def container(name: str = "vllm", running: bool = True, **more: Any) -> dict[str, Any]:
    config = {"Image": "some/thing:1", "Cmd": ["sleep"], **more.pop("config", {})}
    return {"Id": "1", "Name": f"/{name}", "Image": "sha256:1", "State": {"Running": running}, "Config": config, **more}


@pytest.mark.parametrize(
    ("found", "stands"),
    [
        (container(), False),
        (container(config={"Cmd": ["vllm", "serve"]}), True),
        (container(config={"Cmd": ["python3", "-m", "vllm.entrypoints.openai.api_server"]}), True),
        (container(config={"Image": "nvcr.io/nvidia/vllm:26.01"}), True),
        (container(config={"Image": "vllm/vllm-openai:v1"}), True),
        (container(Image="sha256:declared"), True),
        (container(HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "8000"}]}}), True),
        (container(running=False, Image="sha256:declared"), False),
        (container("sparkops-qwen", running=False), True),
        (container("vllm-before-sparkops", Image="sha256:declared"), False),
        (container("sparkops-qwen", config={"Labels": {"sparkops.service": "qwen"}}), False),
    ],
)
def test_an_engine_or_what_has_the_name_or_port_stands_for_the_service(found: dict[str, Any], stands: bool) -> None:
    assert adopt.stands_for(found, ASKED, "sha256:declared") is stands


def test_what_is_chosen_is_it_and_nothing_else() -> None:
    asked = {**ASKED, "chosen": "mine"}
    assert adopt.stands_for(container("mine", running=False), asked, None)
    assert not adopt.stands_for(container(config={"Cmd": ["vllm"]}), asked, None)


@pytest.mark.parametrize(
    ("name", "text", "stands"),
    [
        ("a.service", "ExecStart=/opt/venv/bin/vllm serve m", True),
        ("a.service", "ExecStart=/usr/bin/docker start -a vllm-1", True),
        ("a.service", "ExecStart=/usr/bin/docker start -a other", False),
        ("qwen.service", "ExecStart=/bin/true", True),
        ("a.service", "Description=about nothing", False),
    ],
)
def test_a_unit_stands_for_the_service_by_what_it_starts(name: str, text: str, stands: bool) -> None:
    assert adopt._starts(name, text, ASKED, ["vllm-1"]) is stands


def test_a_machine_that_nothing_is_declared_for_tells_its_engines_and_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `init` asks: no image, name or port to go by; Docker is asked for no image without a name."""
    path = str(tmp_path / "docker.sock")
    monkeypatch.setattr(docker, "SOCKET", path)
    seen = container(config={"Cmd": ["serve", "org/name"], "Entrypoint": ["vllm"]}, HostConfig={}, Mounts=[])
    with running(path) as engine:
        engine.answers["/containers/json"] = say(json.dumps([{"Id": "1"}]))
        engine.answers["/containers/1/json"] = say(json.dumps(seen))
        engine.answers["/images/sha256:1/json"] = say(json.dumps({"Id": "sha256:1", "Config": {}}))
        answer = adopt.look(None, ANY)  # type: ignore[arg-type]
    (found,) = answer["containers"]
    assert found["name"] == "vllm" and found["same_image"] is None
    assert set(answer) == {"containers", "units", "listening"}


def oid(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("removed", [True, False])
def test_a_container_that_is_removed_as_it_ends_is_out_of_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    """Docker removed it (`--rm`) between the look at it and its stop, which called the takeover failed."""
    monkeypatch.setattr(docker, "SOCKET", str(tmp_path / "docker.sock"))
    there = say(json.dumps(container()))
    with running(docker.SOCKET) as engine:
        gone = say('{"message": "No such container: 1"}', 404)

        def stop(handler: Any) -> None:
            engine.answers["/containers/1/json"] = gone if removed else there
            gone(handler)

        engine.answers |= {"/containers/1/json": there, "/containers/1/update": say("{}"), "/containers/1/stop": stop}
        ask: Any = {"container": {"id": "1", "name": "vllm"}, "units": [], "unit": "q.service", "state_dir": "/nowhere"}
        found = {"in_place": ["container vllm"], "container": "vllm", "copies": {}}
        with contextlib.nullcontext() if removed else fails("docker-error", docker.EngineError):
            adopt.converge(call(), ask, found, None, {})


def test_a_folder_is_proven_and_the_index_of_the_declared_one_learns_it(tmp_path: Path) -> None:
    contents = {"right": b"right" * 100, "wrong": b"wrong" * 100, "short": b"short" * 100, "gone": b"gone"}
    files = [[name, len(data), oid(data)] for name, data in contents.items()]
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "right").write_bytes(contents["right"])
    (folder / "wrong").write_bytes(b"w" * 500)
    (folder / "short").write_bytes(b"short")
    before = {path.name: path.stat() for path in folder.iterdir()}
    manifest = json.dumps({"repository": "o/n", "commit": "0" * 40, "files": files})
    state_dir, run = str(tmp_path / "state"), tmp_path / "job"
    run.mkdir()
    args = {"path": str(folder), "folder": "/srv/declared", "state_dir": state_dir, "manifest": manifest}
    found = caller.compare(**args, job=jobs.Job(str(run)))
    assert found == {
        "right": ["right"],
        "wrong": ["wrong", "short"],
        "missing": ["gone"],
        "unreadable": [],
        "right_bytes": 500,
        "other_bytes": 1004,
    }
    index = Index(state_dir, "/srv/declared")
    known = index.find(os.stat(folder / "right"))
    assert known is not None
    assert known[0] == oid(contents["right"])
    assert caller.compare(**args, job=jobs.Job(str(run))) == found
    assert Index(state_dir, "/srv/declared").find(os.stat(folder / "right")) == known, "it is not read twice"
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == {
        name: status.st_mtime_ns for name, status in before.items()
    }


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("closed", ["parent", "file"])
def test_what_its_owner_may_not_read_is_not_known_and_never_missing(tmp_path: Path, closed: str) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as opened:
        parent, run = Path(opened) / "parent", tmp_path / "job"
        folder = parent / "old"
        folder.mkdir(parents=True)
        (folder / "a").write_bytes(b"a")
        os.chown(folder, 65534, 65534)
        Path(opened).chmod(0o755)
        parent.chmod(0o700 if closed == "parent" else 0o755)
        (folder / "a").chmod(0o600 if closed == "file" else 0o644)
        manifest = json.dumps({"repository": "o/n", "commit": "0" * 40, "files": [["a", 1, oid(b"a")]]})
        run.mkdir()
        args = {"path": str(folder), "folder": "/srv/x", "state_dir": str(tmp_path / "state"), "manifest": manifest}
        found = caller.compare(**args, job=jobs.Job(str(run)))
    assert (found["unreadable"], found["missing"], found["wrong"]) == (["a"], [], [])
