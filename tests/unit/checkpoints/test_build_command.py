"""`checkpoint build` on this machine, against a hub here: a folder or a repository as base, --check, and bad orders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkops.cli.app import run
from tests.lab.hub import Hub
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
    assert found["schema"] == "sparkops.build-check/1"
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
    hub.forget()
    capsys.readouterr()
    assert run(words) == 0
    assert "built already, and as declared" in capsys.readouterr().out
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
    assert not (tmp_path / "hybrid").exists()
    assert not list(tmp_path.glob("org*"))
    assert found["steps"] == checked(capsys, *command(base, *map(Path, [tmp_path / "hybrid"]), *words[5:]))["steps"]


def test_check_stops_at_the_step_that_would_be_refused(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(base, tmp_path / "hybrid", "--step", "lm_head=int8", "--step", "hybrid=org/int4")
    first, second = checked(capsys, *words, status=2)["steps"]
    assert (first["name"], first["refused"]) == ("lm_head", "")
    assert "can't be taken from org/int4@" in second["refused"]
    assert second["hint"]


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
        tmp_path / "foreign": "holds files that no build put there",
        tmp_path / "foreign" / "config.json": "is no folder",
        tmp_path / "foreign" / "config.json" / "x": "is no folder",
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
        (["--step", "merge=x"], "there is no step 'merge'"),
        (["--step", "repack=compressed-tensors", "--step", "lm_head=int8"], "repack can only be the last"),
        (["--step", "hybrid"], "hybrid lacks its donor"),
        ([], "no steps are given"),
        (["--recipe", "qwen3.5-122b-a10b-int4"], "builds no checkpoint"),
        (
            ["--step", "hybrid=org/none"],
            "the step hybrid takes weights from org/none@main: there is no such repository",
        ),
    ],
)
def test_what_can_t_be_is_refused_before_anything_is_read(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert run(command(base, tmp_path / "out", *more)) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
