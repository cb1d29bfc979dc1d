"""`checkpoint build` on this machine, against a hub here: a folder or a repository as base, --check, and bad orders."""

from __future__ import annotations

import io
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkops.cli.app import run
from sparkops.core import events
from sparkops.core.errors import Interrupted, LockBusy
from sparkops.operate.checkpoint import build as checkpoint_build
from sparkops.operate.checkpoint.build import Checked, Order, StepCheck, build
from sparkops.operate.checkpoint.verify import Verified
from sparkops.programs.disk import free
from sparkops.reports.checkpoint import render_build_check, render_verified
from sparkops.reports.printer import Plain, Printer
from tests.lab.hub import Fault, Hub
from tests.worker import checkpoints_made as made


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    return made.save(root / "int4", made.autoround(made.SMALL), made.autoround_config(made.SMALL))


@pytest.fixture(scope="module")
def hub(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    donor = made.save(tmp_path_factory.mktemp("donor"), made.fp8(made.SMALL), made.config(made.SMALL))
    with Hub() as running:
        running.add_repo("org/int4", base)
        running.add_repo("org/fp8", donor)
        yield running


@pytest.fixture(autouse=True)
def own_places(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


def command(base: Path | str, output: Path, *more: str) -> list[str]:
    return ["checkpoint", "build", str(base), "-o", str(output), *more]


def checked(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> dict[str, Any]:
    assert run([*words, "--check", "--format", "json"]) == status
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "sparkops.build-check/2"
    return dict(found)


def test_a_folder_is_built_into_another_and_then_left_alone(
    base: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "hybrid"
    words = command(base, output, "--step", "hybrid=org/fp8", "--step", "lm_head=int8")
    assert run(words) == 0
    tensors = made.load(output)
    assert tensors["lm_head.weight"][0] == "I8"
    assert sum(dtype == "F8_E4M3" for dtype, _, _ in tensors.values()) == 12
    assert [each.name for each in output.parent.iterdir()] == ["hybrid"]
    told = capsys.readouterr().err.splitlines()
    for note in ("lm_head: in INT8; it needs an engine", "ranges cannot be verified by sha256"):
        assert [line.startswith("i ") for line in told if note in line] == [True]
    hub.forget()
    assert run(words) == 0
    again = capsys.readouterr()
    assert "built already, and as declared" in again.out
    assert "i checkpoint" not in again.err
    assert hub.bytes_sent() == 0


def test_check_says_from_the_headers_of_a_hub_what_each_step_would_do(
    base: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.forget()
    words = command("org/int4", tmp_path / "hybrid", "--step", "hybrid=org/fp8", "--step", "lm_head=int8")
    found = checked(capsys, *words)
    assert [(step["name"], step["changed"], step["added"]) for step in found["steps"]] == [
        ("hybrid", 12, 12),
        ("lm_head", 1, 1),
    ]
    assert 0 < found["written"] <= found["size"] < found["needed"] < found["free"]
    assert not (tmp_path / "hybrid").exists()
    assert not list(tmp_path.glob("org*"))
    assert found["steps"] == checked(capsys, *command(base, *map(Path, [tmp_path / "hybrid"]), *words[5:]))["steps"]


def test_what_a_donor_gave_to_one_step_is_not_told_again_of_the_next(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(base, tmp_path / "out", "--step", "hybrid=org/fp8", "--step", "repack=compressed-tensors")
    hybrid, repack = checked(capsys, *words)["steps"]
    assert hybrid["from_donors"] > 0
    assert repack["from_donors"] == 0


@pytest.mark.parametrize(("name", "place"), [("HF_HOME", "hub"), ("HF_HUB_CACHE", ".")])
def test_a_base_in_the_hugging_face_cache_of_this_process_is_linked(
    base: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str
) -> None:
    monkeypatch.setenv(name, str(tmp_path / "cache"))
    shutil.copytree(base, tmp_path / "cache" / place / "models--org--int4" / "snapshots" / "any")
    hub.forget()
    assert run(command("org/int4", tmp_path / "out", "--step", "lm_head=int8")) == 0
    assert hub.bytes_sent("*.safetensors") == 0


def test_check_stops_at_the_step_that_would_be_refused(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(base, tmp_path / "hybrid", "--step", "lm_head=int8", "--step", "hybrid=org/int4")
    first, second = checked(capsys, *words, status=2)["steps"]
    assert (first["name"], first["refused"]) == ("lm_head", None)
    assert second["refused"]["id"] == "hybrid-donor-not-fp8"
    assert second["refused"]["fix"]


def tree(folder: Path) -> dict[str, object]:
    return {str(path): path.read_bytes() if path.is_file() else path.lstat().st_mode for path in folder.rglob("*")}


def test_a_place_that_holds_something_else_is_refused_and_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = made.save(tmp_path / "a" / "base", made.autoround(made.SMALL), made.autoround_config(made.SMALL))
    (tmp_path / "foreign").mkdir(mode=0o700)
    (tmp_path / "foreign" / "config.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "foreign")
    before = tree(tmp_path)
    for output, words in {
        mine / "built": "lie in one another",
        tmp_path / "a": "lie in one another",
        tmp_path / "foreign": "contains files that no build put there",
        tmp_path / "foreign" / "config.json": "is not a folder",
        tmp_path / "foreign" / "config.json" / "x": "is not a folder",
        tmp_path / "link": "is a link",
    }.items():
        for more in ([], ["--check"]):
            assert run(command(mine, output, "--step", "lm_head=int8", *more)) == 1
            told = capsys.readouterr().err
            assert words in told and "→" in told
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--step", "merge=x"], "unknown step merge"),
        (["--step", "repack=compressed-tensors", "--step", "lm_head=int8"], "repack can only be the last"),
        (["--step", "hybrid"], "hybrid lacks its donor"),
        (["--step", "lm_head=int4"], "the step lm_head has the value int4"),
        (["--step", "repack"], "the step repack has the value nothing"),
        (["--step", "quantize=x"], "works with an inventory only"),
        (["--step", "lm_head=int8", "--layers", "x"], "needs the step hybrid"),
        ([], "no steps are given"),
        (["--recipe", "qwen3.5-122b-a10b-int4"], "builds no checkpoint"),
        (
            ["--step", "hybrid=org/none"],
            "has no repository org/none, or it is private",
        ),
    ],
)
def test_what_can_t_be_is_refused_before_anything_is_read(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert run(command(base, tmp_path / "out", *more)) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_check_says_that_there_is_no_room() -> None:
    step = StepCheck(name="lm_head", changed=1)
    told = Checked(output="/o", steps=(step,), size=9000, files=2, written=6000, needed=7000, free=5000)
    text = io.StringIO()
    render_build_check(told, Printer(Plain(text)))
    assert told.refused
    assert "/o: 6.0 kB to write of 9.0 kB in 2 files, the rest is the base's\n" in text.getvalue()
    assert "✗ not enough space: 7.0 kB needed on its disk, 5.0 kB free\n" in text.getvalue()


def test_room_is_that_of_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    assert abs(free(str(tmp_path / "not" / "yet")) - free(str(tmp_path))) < 1 << 30


@pytest.mark.parametrize(
    ("built", "steps", "what", "way_out"),
    [
        (False, (), "✓ org/int4@0123456789ab: ", "sparkops apply fetches them again, and only them"),
        (True, ("hybrid", "lm_head"), "✓ built from org/int4@0123456789ab by hybrid, lm_head with weights of org/fp8",
         "sparkops apply builds them again, and only them"),
        (True, ("quantize",), "✓ built from org/int4@0123456789ab by quantize", "builds the whole folder again"),
    ],
)  # fmt: skip
def test_verify_says_what_a_folder_is_built_of_and_how_it_is_mended(
    built: bool, steps: tuple[str, ...], what: str, way_out: str
) -> None:
    donors = ("org/fp8@ab",) if "hybrid" in steps else ()
    about: dict[str, Any] = {"node": "n1", "folder": "/m", "repository": "org/int4", "commit": "0123456789abcdef"}
    about |= {"built": built, "steps": steps, "donors": donors, "files": 2, "hashed_at": "2026-01-01T00:00:00Z"}
    good, bad = io.StringIO(), io.StringIO()
    render_verified([Verified(**about)], Printer(Plain(good)))
    render_verified([Verified(**about, wrong=("a.safetensors",))], Printer(Plain(bad)))
    assert what in good.getvalue()
    assert way_out in bad.getvalue()


def test_the_way_out_is_one_that_is_there_without_an_inventory(
    base: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.add_repo("org/gated", base, gated=True)
    assert run(command(base, tmp_path / "out", "--step", "mtp=org/gated")) == 1
    assert "then set HF_TOKEN" in capsys.readouterr().err
    short = tmp_path / "short"
    shutil.copytree(base, short)
    shard = max(short.glob("*.safetensors"), key=lambda each: each.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:-10])
    (step,) = checked(capsys, *command(short, tmp_path / "out", "--step", "lm_head=int8"), status=2)["steps"]
    assert run(command(short, tmp_path / "out", "--step", "lm_head=int8")) == 4
    said = step["refused"]["fix"] + capsys.readouterr().out
    assert "then run the same command again" in said
    assert "apply" not in said


def built(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> dict[str, Any]:
    assert run([*arguments, "--format", "json"]) == status
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "sparkops.build/2"
    return dict(found)


def test_json_says_what_was_built_and_of_a_failure_its_id(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(base, tmp_path / "out", "--step", "lm_head=int8")
    first, second = built(capsys, *arguments), built(capsys, *arguments)
    assert [each["status"] for each in (first, second)] == ["built", "unchanged"]
    assert first["identity"] == second["identity"]
    files = [path for path in (tmp_path / "out").iterdir() if path.is_file()]
    assert first["size"] == second["size"] == sum(path.stat().st_size for path in files)
    assert first["notices"] and first["error"] is None
    refused = command(base, tmp_path / "other", "--step", "hybrid=org/int4")
    failed = built(capsys, *refused, status=4)
    assert (failed["status"], failed["error"]["id"]) == ("failed", "hybrid-donor-not-fp8")


def test_a_build_that_is_stopped_is_resumed_by_the_same_order(base: Path, hub: Hub, tmp_path: Path) -> None:
    order = Order(base=str(base), output=tmp_path / "out", steps=[{"hybrid": {"donor": "org/fp8"}}])
    stop = threading.Event()
    hub.fail("*.safetensors", Fault(rate=10_000))

    def stop_when_bytes_arrive(event: events.Event) -> None:
        if isinstance(event, events.StepProgress) and event.done:
            stop.set()

    with pytest.raises(Interrupted) as caught:
        build(order, listener=stop_when_bytes_arrive, stop=stop)
    assert (caught.value.id, caught.value.exit_status) == ("cancelled", 130)
    assert "apply" not in caught.value.hint
    assert not (tmp_path / "out").exists()
    hub.heal()
    assert build(order).status == "built"


def test_two_builds_of_one_output_are_not_done_at_once(base: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with checkpoint_build._locked(str(output)), pytest.raises(LockBusy) as caught:
        build(Order(base=str(base), output=output, steps=[{"lm_head": "int8"}]))
    assert (caught.value.id, caught.value.exit_status) == ("build-running", 75)


@pytest.mark.parametrize("output", ["/proc/x", "/usr/lib/x", "/etc"])
def test_a_place_of_the_system_is_no_folder_to_build(
    base: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    assert run(command(base, Path(output), "--step", "lm_head=int8")) in (1, 4)
    assert re.search(r"error\[(folder-is-system|build-output-foreign)\]", capsys.readouterr().err)
