"""The unit's look on a temporary root: one `systemctl show` for all, with files and processes behind it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparkops.programs import docker
from sparkops.programs.launch import container_body, listening
from sparkops.resources.unit import Unit
from sparkops.worker.calls import Unknown
from sparkops.worker.kinds import unit
from sparkops.worker.record import started_from
from sparkops.worker.system import processes
from tests.errors import fails
from tests.worker.engines import running, say
from tests.worker.nodes import call

UNITS, STAMPS = "etc/systemd/system", "run/sparkops/units"
SAYS = Callable[[str], None]
PRESENT = "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nNeedDaemonReload=no\n"
ABSENT = "LoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=\nNeedDaemonReload=no\n"


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SAYS:
    """Puts a `systemctl` of the given output before the real one, and makes the units' folders below a root.

    What the file `later` has is its output from the second time on.
    """
    for folder in (UNITS, STAMPS, "proc"):
        (tmp_path / folder).mkdir(parents=True)
    programs_folder = tmp_path / "bin"
    programs_folder.mkdir()
    monkeypatch.setenv("PATH", f"{programs_folder}:{os.environ['PATH']}")

    def say(text: str) -> None:
        (tmp_path / "said").write_text(text)
        program = programs_folder / "systemctl"
        later = f"[ ! -e {tmp_path}/later ] || mv {tmp_path}/later {tmp_path}/said"
        program.write_text(f"#!/bin/sh\necho x >> {tmp_path}/asked\ncat {tmp_path}/said\n{later}\n")
        program.chmod(0o755)

    return say


def look(root: Path, *units: Unit) -> list[Any]:
    found = unit.observe_many({each.id: each.ask() for each in units}, root=str(root))
    return [found[each.id] for each in units]


def declared(name: str = "a.service", **given: Any) -> Unit:
    return Unit(node="n", name=name, **given)


def test_all_units_are_asked_for_at_once(says: SAYS, tmp_path: Path) -> None:
    says(f"{PRESENT}\n{ABSENT}\n{PRESENT}")
    one, two, three = look(tmp_path, declared("a.service"), declared("b.service", content="x"), declared("c.service"))
    assert (one["running"], two, three["enabled"]) == (True, None, True)
    assert (tmp_path / "asked").read_text() == "x\n"


def test_an_answer_that_is_short_is_unknown(says: SAYS, tmp_path: Path) -> None:
    says(PRESENT)
    with fails("systemd-not-answering", Unknown):
        look(tmp_path, declared("a.service"), declared("b.service"))


def test_the_text_comes_back_only_where_it_differs(says: SAYS, tmp_path: Path) -> None:
    says(PRESENT)
    (tmp_path / UNITS / "a.service").write_text("old\n")
    (other,) = look(tmp_path, declared(content="new\n"))
    assert other["text"] == "old\n"
    assert other["content"] == "sha256:" + hashlib.sha256(b"old\n").hexdigest()
    (same,) = look(tmp_path, declared(content="old\n"))
    assert "text" not in same


def test_a_mask_is_a_link_and_no_text(says: SAYS, tmp_path: Path) -> None:
    says(PRESENT.replace("LoadState=loaded", "LoadState=masked"))
    (tmp_path / UNITS / "a.service").symlink_to("/dev/null")
    (found,) = look(tmp_path, declared(content="x"))
    assert (found["masked"], found["content"]) == (True, None)


def test_a_unit_that_waits_for_its_restart_does_not_run(says: SAYS, tmp_path: Path) -> None:
    says(PRESENT.replace("=active", "=activating").replace("=running", "=auto-restart"))
    assert look(tmp_path, declared())[0]["running"] is False
    says(PRESENT.replace("=active", "=activating").replace("=running", "=start"))
    assert look(tmp_path, declared())[0]["running"] is True


def test_the_inputs_come_out_of_the_running_process(says: SAYS, tmp_path: Path) -> None:
    (tmp_path / "proc").rmdir()
    (tmp_path / "proc").symlink_to("/proc")
    with subprocess.Popen(["sleep", "60"], env={"SPARKOPS_INPUTS": "abc"}) as process:
        try:
            says(f"{PRESENT}MainPID={process.pid}\n")
            assert look(tmp_path, declared(inputs="abc"))[0]["inputs"] == "abc"
        finally:
            process.kill()


def test_a_process_that_ended_meanwhile_is_unknown(says: SAYS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit, "POLL", 0.01)
    says(f"{PRESENT}MainPID=1\n")
    assert isinstance(look(tmp_path, declared(inputs="abc"))[0], Unknown)
    assert isinstance(look(tmp_path, declared(running=True, main_process=("x",)))[0], Unknown)


def test_a_process_that_ends_between_two_looks_is_asked_for_again(says: SAYS, tmp_path: Path) -> None:
    """An engine in a crash loop made its unit unknown, and the proof of its return failed."""
    says(f"{PRESENT}MainPID=1\n")
    (tmp_path / "later").write_text(PRESENT.replace("active", "failed", 1).replace("running", "dead"))
    found = look(tmp_path, declared(inputs="abc"))[0]
    assert (found["running"], found["failed"]) == (False, True)


def test_a_unit_whose_process_ends_between_two_looks_is_not_known_to_be_outdated_by_that(
    says: SAYS, tmp_path: Path
) -> None:
    """An engine in a crash loop made the return of its files unknown."""
    (tmp_path / UNITS / "a.service").write_text("[Service]\nEnvironment=SPARKOPS_INPUTS=new\n")
    says(f"{PRESENT}MainPID=1\n")
    (tmp_path / "next").write_text(PRESENT.replace("=active", "=activating").replace("=running", "=auto-restart"))
    program = tmp_path / "bin/systemctl"
    program.write_text(program.read_text() + f"mv {tmp_path}/next {tmp_path}/said 2>&-\n:\n")
    assert unit.outdated("a.service", str(tmp_path)) is False


@pytest.mark.parametrize("listed", [[], [{"Id": "c"}]])
def test_a_container_that_ends_between_two_looks_is_asked_for_again(
    says: SAYS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: list[dict[str, str]]
) -> None:
    """A unit whose engine had just ended was to be restarted, as if it had been started from something else."""
    says(PRESENT)
    (tmp_path / "next").write_text(PRESENT.replace("active", "failed", 1).replace("running", "dead"))
    program = tmp_path / "bin/systemctl"
    program.write_text(program.read_text() + f"mv {tmp_path}/next {tmp_path}/said 2>&-\n:\n")
    monkeypatch.setattr(docker, "SOCKET", str(tmp_path / "docker.sock"))
    with running(docker.SOCKET) as engine:
        engine.answers = {
            "/containers/json": say(json.dumps(listed)),
            "/containers/c/json": say(json.dumps({"Id": "c", "State": {"Running": False}})),
        }
        (found,) = look(tmp_path, declared(running=True, container="c", service="q"))
    assert (found["running"], found["failed"], found["container_inputs"]) == (False, True, None)


def test_a_unit_without_a_process_yet_is_not_started_from_something_else(says: SAYS, tmp_path: Path) -> None:
    says(PRESENT.replace("=active", "=activating").replace("=running", "=start-pre") + "MainPID=0\n")
    (found,) = look(tmp_path, declared(inputs="abc"))
    assert (found["running"], found["inputs"]) == (True, None)


def test_a_unit_without_a_process_has_a_stamp(says: SAYS, tmp_path: Path) -> None:
    says(f"{PRESENT}MainPID=0\n")
    assert look(tmp_path, declared(inputs="abc"))[0]["inputs"] == ""
    (tmp_path / STAMPS / "a.service").write_text("abc\n")
    assert look(tmp_path, declared(inputs="abc"))[0]["inputs"] == "abc"


def test_drop_ins_that_systemd_has_not_read_yet_are_seen(says: SAYS, tmp_path: Path) -> None:
    says(PRESENT)
    folder = tmp_path / UNITS / "a.service.d"
    folder.mkdir()
    (folder / "mine.conf").write_text("")
    assert look(tmp_path, declared())[0]["drop_ins"] == [str(folder / "mine.conf")]


def test_a_program_that_hangs_is_unknown() -> None:
    with fails("program-timeout", Unknown):
        processes.ask(["sleep", "5"], timeout=0.1)


def test_an_environment_that_is_still_being_set_up_is_looked_at_again(tmp_path: Path) -> None:
    folder = tmp_path / "proc" / "7"
    folder.mkdir(parents=True)
    (folder / "exe").symlink_to("/usr/bin/engine")
    (folder / "environ").write_bytes(b"")
    later = threading.Timer(0.1, (folder / "environ").write_bytes, [b"A=1\0SPARKOPS_INPUTS=abc\0"])
    later.start()
    assert unit.inputs_of("x.service", {"MainPID": "7"}, str(tmp_path)) == "abc"
    later.join()


def test_a_taken_port_is_seen_also_where_the_unit_is_not_there_yet(says: SAYS, tmp_path: Path) -> None:
    says(ABSENT)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (found,) = look(tmp_path, declared(content="x", running=True, port=port))
        assert found["exists"] is False
        assert found["port_taken"]["pid"] == os.getpid()
        (other,) = look(tmp_path, declared(content="x", running=True, port=port, host="127.0.0.9"))
        assert other is None
    assert look(tmp_path, declared(content="x", running=True, port=port)) == [None]


def test_what_goes_by_itself_when_the_unit_starts_does_not_take_its_port(
    says: SAYS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(ABSENT)
    own = listening.owner(os.getpid())
    monkeypatch.setattr(listening, "owner", lambda pid, proc: own._replace(unit="other-model.service"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        given = {"content": "x", "running": True, "port": server.getsockname()[1]}
        assert look(tmp_path, declared(**given, displaces=("other-model.service",))) == [None]
        assert look(tmp_path, declared(**given))[0]["port_taken"]["unit"] == "other-model.service"


def test_the_main_process_is_told_by_its_argument_list(says: SAYS, tmp_path: Path) -> None:
    (tmp_path / "proc").rmdir()
    (tmp_path / "proc").symlink_to("/proc")
    with subprocess.Popen(["sleep", "60"]) as process:
        says(f"{PRESENT}MainPID={process.pid}\n")
        assert look(tmp_path, declared(running=True, main_process=("x",)))[0]["main_process"] == ["sleep", "60"]
        process.kill()


def test_what_the_launcher_kept_is_read(says: SAYS, tmp_path: Path) -> None:
    says(PRESENT)
    (tmp_path / "var/lib/sparkops/services/q").mkdir(parents=True)
    (tmp_path / "var/lib/sparkops/services/q/last-start.json").write_text(
        '{"port_seconds": 9, "token_seconds": 21.4, "at": 7}'
    )
    (tmp_path / "var/lib/sparkops/services/q/last-token.json").write_text('{"at": 8}')
    (tmp_path / "var/lib/sparkops/services/q/last-hang.txt").write_text("x")
    (found,) = look(tmp_path, declared(service="q"))
    assert found["last_start"] == {"port_seconds": 9.0, "token_seconds": 21.4, "at": 7.0}
    assert found["last_token"] == 8.0
    assert found["last_hang"]["path"].endswith("/var/lib/sparkops/services/q/last-hang.txt")
    (tmp_path / "var/lib/sparkops/services/q/last-start.json").write_text("[]")
    assert "last_start" not in look(tmp_path, declared(service="q"))[0]


SPEC = json.dumps(
    {
        "secrets": "/etc/sparkops/services/q.env",
        "cache": "",
        "environment": {"A": "1"},
        "argv": ["serve", "/model"],
        "limits": {"memory_bytes": 1 << 30},
        "image": "org/engine:1",
        "mounts": [{"source": "/srv/m", "target": "/model", "read_only": True}],
        "manifest": {"repository": "org/m"},
    }
)
VARIABLES = ["PATH=/bin", "PYTHONFAULTHANDLER=1", "A=1", "TOKEN=geheim=x"]


@pytest.mark.parametrize(
    ("variables", "spec", "told"),
    [
        (VARIABLES, SPEC, "declared"),
        ([*VARIABLES, "EDITED=1"], SPEC, "other"),
        ([each.replace("A=1", "A=2") for each in VARIABLES], SPEC, "other"),
        ([each.replace("geheim", "anders") for each in VARIABLES], SPEC, "other"),
        (VARIABLES[:-2], SPEC, "other"),
        (VARIABLES, SPEC.replace("serve", "other"), None),
        (VARIABLES, SPEC.replace("engine:1", "engine@sha256:00"), "declared"),
    ],
)
def test_a_container_has_the_variables_of_its_spec_its_secrets_and_its_image(
    says: SAYS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: list[str], spec: str, told: str | None
) -> None:
    folder = tmp_path / "etc/sparkops/services"
    folder.mkdir(parents=True)
    (folder / "q.json").write_text(spec)
    (folder / "q.env").write_text('{"TOKEN": "geheim=x"}')
    labels = {"sparkops.service": "q", "sparkops.spec": container_body.digest_of(json.loads(SPEC))}
    container = {
        "Id": "c",
        "Image": "i",
        "Config": {"Labels": labels, "Env": variables},
        "HostConfig": {"RestartPolicy": {"Name": "always"}},
        "State": {"Running": True},
    }
    says(PRESENT)
    path = str(tmp_path / "docker.sock")
    monkeypatch.setattr(docker, "SOCKET", path)
    with running(path) as engine:
        engine.answers = {
            "/containers/json": say(json.dumps([{"Id": "c"}])),
            "/containers/c/json": say(json.dumps(container)),
            "/images/i/json": say(json.dumps({"Id": "i", "Config": {"Env": ["PATH=/bin", "A=image"]}})),
        }
        (found,) = look(tmp_path, declared(running=True, container="c", service="q"))
    assert (found["container_environment"], found["restart_policy"]) == (told, "always")


@pytest.mark.parametrize("paused", [True, False])
def test_a_container_that_somebody_paused_is_let_go_on(
    says: SAYS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paused: bool
) -> None:
    """Every question ran into its limit, apply failed, and the unit was as declared."""
    path = str(tmp_path / "docker.sock")
    monkeypatch.setattr(docker, "SOCKET", path)
    says(PRESENT)
    thing = declared(running=True, container="c", service="q")
    with running(path) as engine:
        engine.answers = {
            "/containers/json": say(json.dumps([{"Id": "c"}])),
            "/containers/c/json": say(json.dumps({"Id": "c", "State": {"Running": True, "Paused": paused}})),
            "/containers/c/unpause": say("", 204),
        }
        (found,) = look(tmp_path, thing)
        assert found["paused"] is paused
        assert "paused" not in thing.interrupting
        unit._resume("q")
        assert paused == any(path.endswith("/unpause") for _, path, *_ in engine.asked)
    assert thing.same("paused", False, None), "nothing runs"


AS_DECLARED = {"Memory": 1 << 30, "MemorySwap": -1, "PidsLimit": None, "CpuShares": 0, "CpusetCpus": ""}


@pytest.mark.parametrize(
    ("config", "host", "told"),
    [
        ({}, {}, "declared"),
        ({}, {"PidsLimit": -1}, "declared"),
        ({}, {"Memory": 0}, "other"),
        ({}, {"Memory": 3 << 30}, "other"),
        ({}, {"NanoCpus": 10**9}, "other"),
        ({}, {"CpusetCpus": "0"}, "other"),
        ({}, {"PidsLimit": 10}, "other"),
        ({"Cmd": ["serve", "/other"]}, {}, "other"),
        ({"Cmd": None}, {}, "other"),
    ],
)
def test_a_container_has_the_arguments_and_the_limits_of_its_spec(
    config: dict[str, Any], host: dict[str, Any], told: str
) -> None:
    """`docker update` changes limits of what runs, and leaves its labels."""
    found = {"Config": {"Cmd": ["serve", "/model"], **config}, "HostConfig": {**AS_DECLARED, **host}}
    assert started_from._settings(json.loads(SPEC), found) == told


@pytest.mark.parametrize(
    ("properties", "age", "waiting"),
    [
        ({"OOMScoreAdjust": "-500", "MemoryMin": "1"}, -60, ["OOMScoreAdjust"]),
        ({"OOMScoreAdjust": "-500"}, 60, []),
        ({"MemoryMin": "1"}, -60, None),
    ],
)
def test_what_a_process_gets_at_its_start_waits_where_it_is_older_than_the_drop_in(
    says: SAYS, tmp_path: Path, properties: dict[str, str], age: int, waiting: list[str] | None
) -> None:
    (tmp_path / "a.conf").write_text("")
    started = int((time.monotonic() + age) * 1e6)
    says(f"{PRESENT}MainPID=7\nDropInPaths=/a.conf\nExecMainStartTimestampMonotonic={started}\n")
    thing = declared(properties=properties)
    (found,) = look(tmp_path, thing)
    assert found.get("waiting") == waiting
    assert [each.id for each in thing.notices(found)] == ["unit-properties-wait"] * bool(waiting)


@pytest.mark.parametrize(("inputs", "verbs"), [("old", ["restart"]), ("new", [])])
def test_a_unit_that_systemd_started_again_between_the_looks_is_restarted_where_its_inputs_are_others(
    says: SAYS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: str, verbs: list[str]
) -> None:
    """It waited for its automatic restart when it was compared, and ran by its old file when it was acted on."""
    monkeypatch.setattr(unit, "UNITS", str(tmp_path / UNITS))
    (tmp_path / UNITS / "a.service").write_text("[Service]\nEnvironment=SPARKOPS_INPUTS=new\n")
    with subprocess.Popen(["sleep", "60"], env={"SPARKOPS_INPUTS": inputs}) as process:
        try:
            says(f"{PRESENT}MainPID={process.pid}\n")
            program = tmp_path / "bin/systemctl"
            program.write_text(program.read_text().replace("echo x", 'echo "$@"'))
            found = {"running": False, "inputs": None}
            unit._run(call(), declared(inputs="new").ask(), found, {"running": True, "inputs": "new"}, {"wait": False})
        finally:
            process.kill()
    asked = (tmp_path / "asked").read_text().split()
    assert [word for word in asked if word in ("start", "restart")] == verbs
