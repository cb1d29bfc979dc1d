"""The watcher as a process on this machine: changes, a reload, its end, and what it leaves."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner

from sparkops.cli.app import cli
from sparkops.core.plan import Plan
from sparkops.core.report import Report
from sparkops.runs import store
from sparkops.watching.loop import NOT_TRIED, Resting
from tests.unit.inventory.project import Project
from tests.unit.reports.made import said


class Watching:
    """A cluster whose only node is this machine, watched by a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "files" / "motd"
        self.file.parent.mkdir()
        self.file.write_text("hello")
        self.project = Project(folder)
        self.declare("motd")
        self.processes: list[subprocess.Popen[str]] = []
        (folder / "out").touch()

    def declare(self, *names: str) -> None:
        entries = ", ".join(f"{{file: {self.file.parent / name}, content: hello}}" for name in names)
        self.project.role("own", f"summary: files\nscope: node\nresources: [{entries}]\n")
        self.project.write(
            "inventory.yml",
            "version: 1\ncluster: attic\nroles: [own]\nnodes: {here: }\n"
            f"connection: {{type: local, become: false, state_dir: {self.folder / 'state'}}}\n",
        )

    def start(self, *words: str, stdout: IO[str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "sparkops", "watch", "--interval", "1s", "--jitter", "0s", *words],
            cwd=self.folder,
            stdout=stdout or (self.folder / "out").open("a"),
            stderr=(self.folder / "err").open("a"),
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.processes.append(process)
        return process

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def state(self) -> dict[str, Any]:
        paths = list((self.folder / "kept" / "sparkops" / "watch").glob("*.json"))
        found = json.loads(paths[0].read_text()) if paths else {}
        assert isinstance(found, dict)
        return found

    def until(self, true: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 150
        while not true():
            assert self.processes[-1].poll() is None, f"it ended:\n{self.out}\n{self.err}"
            assert time.monotonic() < deadline, f"{self.out}\n{self.err}\n{self.state()}"
            time.sleep(0.05)

    def rounds(self, more: int = 1) -> None:
        """Until so many more rounds have come to an end."""
        wanted = self.state().get("rounds", 0) + more
        self.until(lambda: self.state().get("rounds", 0) >= wanted)

    def end(self, number: int = signal.SIGTERM) -> None:
        process = self.processes[-1]
        process.send_signal(number)
        assert process.wait(150) == 0, self.err


@pytest.fixture
def watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watching]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "kept"))
    made = Watching(tmp_path)
    yield made
    for each in made.processes:
        if each.poll() is None:
            each.kill()
            each.wait()


def test_a_change_and_its_repair_are_told_once_each_over_a_restart(watching: Watching) -> None:
    told = watching.folder / "told"
    hook = shlex.join(["sh", "-c", f"cat >> {told}; echo >> {told}"])
    watching.start("--on-change", hook, "--format", "json", "--report", f"html={watching.folder / 'drift.html'}")
    watching.rounds()
    watching.file.write_text("edited")
    watching.until(lambda: told.exists() and told.read_text().count("\n") == 1)
    watching.rounds(2)
    watching.end()

    watching.start("--on-change", hook, "--format", "json")
    watching.rounds(2)
    watching.file.write_text("hello")
    watching.until(lambda: told.read_text().count("\n") == 2)
    watching.rounds(2)
    watching.end(signal.SIGINT)

    messages = [json.loads(line) for line in told.read_text().splitlines()]
    changes = [each for message in messages for each in message["changes"]]
    assert [each["change"] for each in changes] == ["appeared", "went"]
    assert {each["finding"]["id"] for each in changes} == {"drift-differs"}
    assert [json.loads(line) for line in watching.out.splitlines()] == messages
    assert messages[0]["schema"] == "sparkops.changes/1"
    assert store.find(messages[0]["run"]).run.exit_status == 2, "the round is kept"
    assert "/motd" in (watching.folder / "drift.html").read_text()


def test_a_hangup_reads_the_inventory_again_or_keeps_what_was_read(watching: Watching) -> None:
    heartbeat = watching.folder / "beat.prom"
    process = watching.start("--heartbeat", str(heartbeat))
    watching.rounds()
    watching.declare("motd", "other")
    watching.rounds(2)
    assert watching.out == "", "a changed inventory is read when it is asked for"
    process.send_signal(signal.SIGHUP)
    watching.until(lambda: "/other" in watching.out)

    before = (watching.folder / "inventory.yml").read_text()
    (watching.folder / "inventory.yml").write_text("version: 2")
    process.send_signal(signal.SIGHUP)
    watching.until(lambda: "watch-not-reloaded" in watching.err)
    watching.rounds(2)
    assert 'sparkops_watch_reload_successful{cluster="attic"} 0.0' in heartbeat.read_text()
    (watching.folder / "inventory.yml").write_text(before)
    process.send_signal(signal.SIGHUP)
    watching.until(lambda: 'reload_successful{cluster="attic"} 1.0' in heartbeat.read_text())
    watching.end()
    assert watching.out.count("/other") == 1, "a reload tells nothing again"
    (beat,) = re.findall(r"^sparkops_watch_last_round_timestamp_seconds\{.*\} (\S+)$", heartbeat.read_text(), re.M)
    assert float(beat) == watching.state()["time"]
    assert abs(time.time() - float(beat)) < 150


@pytest.mark.parametrize("fault", ["secret", "gone", "unreadable", "binary"])
def test_whatever_keeps_the_inventory_from_being_read_again_the_rounds_go_on(watching: Watching, fault: str) -> None:
    """A secret of the connection is not read where the inventory is, and a file may not be there at all."""
    process = watching.start()
    watching.rounds()
    inventory = watching.folder / "inventory.yml"
    before = inventory.read_text()
    if fault == "secret":
        inventory.write_text(before.replace("become: false", "become: true, become_password: !file none"))
    elif fault == "binary":
        inventory.write_bytes(b"\xff\xfe\x00")
    else:
        inventory.unlink()
        if fault == "unreadable":
            inventory.symlink_to("inventory.yml")
    process.send_signal(signal.SIGHUP)
    watching.until(lambda: "watch-not-reloaded" in watching.err)
    watching.rounds(2)
    assert watching.state()["reloaded"] is False
    inventory.unlink(missing_ok=True)
    inventory.write_text(before)
    process.send_signal(signal.SIGHUP)
    watching.until(lambda: watching.state()["reloaded"])
    watching.end()


def test_a_damaged_file_of_runs_is_set_aside_and_the_rounds_go_on(watching: Watching) -> None:
    watching.start()
    watching.rounds()
    runs = watching.folder / "kept" / "sparkops" / "runs.sqlite"
    runs.write_bytes(b"no database" * 500)
    watching.until(lambda: [*runs.parent.glob("runs.sqlite.damaged-*")] and "is set aside" in watching.err)
    watching.rounds(2)
    watching.end()
    assert len(store.latest("attic")) >= 2


def test_a_full_disk_below_the_output_ends_no_watcher(watching: Watching) -> None:
    told = watching.folder / "told"
    with open("/dev/full", "w") as full:
        watching.start("--on-change", shlex.join(["sh", "-c", f"cat >> {told}"]), stdout=full)
    watching.rounds()
    watching.file.write_text("edited")
    watching.until(lambda: "watch-output-not-written" in watching.err and told.exists())
    watching.rounds(2)
    watching.processes[-1].terminate()
    assert watching.processes[-1].wait(150) == 74, "what was not printed is not printed yet"


def test_one_selection_is_watched_once(watching: Watching) -> None:
    watching.start()
    watching.rounds()
    second = subprocess.run(
        [sys.executable, "-m", "sparkops", "watch"], cwd=watching.folder, capture_output=True, text=True, timeout=150
    )
    assert (second.returncode, "watch-runs-already" in second.stderr) == (75, True)
    watching.processes[-1].kill()
    watching.processes[-1].wait()
    watching.start()
    watching.rounds()
    watching.end()


def test_an_inventory_that_is_wrong_ends_it_at_once(watching: Watching) -> None:
    (watching.folder / "inventory.yml").write_text("version: 2")
    assert watching.start().wait(150) == 1


def test_a_silent_node_is_tried_less_and_less_often() -> None:
    resting, tried = Resting(300.0), []
    for number in range(40):
        now = resting.now()
        why = now["a"].message if now else said("silent")
        if not now:
            tried.append(number)
        resting.note(_report(why))
        assert why.id in ("error", NOT_TRIED)
    assert tried == [0, 1, 3, 7, 15, 28]
    resting.note(_report(None))
    assert resting.now() == {}


def _report(why: Any) -> Report:
    silent = {} if why is None else {"a": why}
    return Report(command="drift", cluster="c", inventory="i", plan=Plan(nodes=("a",), unreachable=silent))


def test_the_unit_runs_the_same_words(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(watching.folder)
    words = ["watch", "inventory.yml", "--hold", "10m", "--on-change", "mail -s '100% $HOME' x@y", "--unit"]
    text = CliRunner().invoke(cli, words).output
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.M)
    again = [each.replace("%%", "%").replace("$$", "$") for each in shlex.split(line)]
    assert again == [sys.executable, "-m", "sparkops", *words[:-1]]
    assert f"WorkingDirectory={watching.folder}\n" in text
    assert f"Environment=XDG_STATE_HOME={os.environ['XDG_STATE_HOME']}\n" in text


@pytest.mark.parametrize(
    "words",
    [
        ["--webhook", "ftp://x/"],
        ["--webhook", "https://a:b@x/"],
        ["--webhook", "https://x/"],
        ["--on-change", "'"],
        ["--on-change", ""],
        ["--interval", "0s"],
        ["--interval", "5"],
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPARKOPS_WEBHOOK_KEY", raising=False)
    done = CliRunner().invoke(cli, ["watch", *words])
    assert done.exit_code == 2, done.output


def test_a_unit_has_no_variable_for_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARKOPS_WEBHOOK_KEY", "k")
    assert CliRunner().invoke(cli, ["watch", "--webhook", "https://x/", "--unit"]).exit_code == 2
