"""docs/scale.md: its Slurm script and Kubernetes Job are valid, and what they run does what the page says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from docs.generate import DOCS
from sparkops.cli import app
from tests.unit.inventory.project import Project

PAGE = (DOCS / "scale.md").read_text()
PARTS = 4
NODES = ("a", "b", "c")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)
    assert found is not None
    return found[1]


def job() -> dict[str, Any]:
    """The Job, read as kubectl reads YAML 1.1: 0400 is octal."""
    found = yaml.safe_load(block("yaml"))
    assert isinstance(found, dict)
    return found


def test_the_slurm_script_is_bash_and_its_tasks_are_numbered_from_1() -> None:
    script = block("bash")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(.+)$", script, re.M))
    assert script.startswith("#!/bin/bash\n#SBATCH")
    assert len(options) == script.count("#SBATCH")
    assert options["array"] == f"1-{PARTS}"


def test_the_job_is_one_of_kubernetes() -> None:
    found = job()
    for version in ("1.31", kubernetes_validate.latest_version()):
        kubernetes_validate.validate(found, version, strict=True)
    spec = found["spec"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == PARTS
    assert f"+ 1))/{PARTS}" in spec["template"]["spec"]["containers"][0]["command"][-1]
    pod = spec["template"]["spec"]
    assert {each["name"] for each in pod["volumes"]} == {each["name"] for each in pod["containers"][0]["volumeMounts"]}
    assert pod["volumes"][1]["secret"]["defaultMode"] == 0o400


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An inventory of three nodes that are all this machine, one of which has what is declared, and `sparkops`."""
    project = Project(tmp_path)
    thing = f"{{file: '{tmp_path}/files/{{{{ node.name }}}}', content: hello}}"
    project.role("own", f"summary: a file\nscope: node\nresources: [{thing}]\n")
    nodes = ", ".join(f"{name}: {{connection: {{state_dir: {tmp_path}/{name}}}}}" for name in NODES)
    project.write(
        "inventory.yml",
        f"version: 1\ncluster: attic\nconnection: {{type: local, become: false}}\nroles: [own]\nnodes: {{{nodes}}}\n"
        "accept: [{id: machine-with-two-names, reason: one machine for all}]\n",
    )
    (tmp_path / "files").mkdir()
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "sparkops"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m sparkops "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    assert app.run(["apply", "inventory.yml", "--yes"]) == 0
    (tmp_path / "files" / "b").write_text("edited")
    return tmp_path


def joined(capsys: pytest.CaptureFixture[str], reports: list[Path], status: int) -> dict[str, Any]:
    capsys.readouterr()
    assert app.run(["report", "merge", *map(str, reports), "--format", "json"]) == status
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("scheduler", ["slurm", "kubernetes"])
def test_what_the_tasks_write_is_joined_into_the_report_of_all_nodes(
    scheduler: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(1, PARTS + 1):
        if scheduler == "slurm":
            told = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_COUNT": str(PARTS)}
            done = subprocess.run(["bash"], input=block("bash"), text=True, env={**os.environ, **told}, check=False)
            assert done.returncode in (0, 2)
        else:
            *shell, script = job()["spec"]["template"]["spec"]["containers"][0]["command"]
            script = script.replace("/reports", str(folder / "reports")).replace("/inventory/", f"{folder}/")
            told = {"JOB_COMPLETION_INDEX": str(number - 1)}
            subprocess.run([*shell, script], env={**os.environ, **told}, check=True)
    reports = sorted((folder / "reports").glob("*.json"))
    assert len(reports) == PARTS, "an empty shard has a report too"
    found = joined(capsys, reports, 2)
    assert sorted(found["nodes"]) == list(NODES)
    assert ([each["node"] for each in found["steps"]], found["shards"], found["whole"]) == (["b"], None, True)
    assert [each["message"] for each in found["notices"] if each["id"] == "shard-part"] == []
    lacking = next(each for each in reports if json.loads(each.read_text())["nodes"] == ["b"])
    number = json.loads(lacking.read_text())["shards"]["numbers"][0]
    found = joined(capsys, [each for each in reports if each != lacking], 3)
    assert list(found["unreachable"]) == [f"shard {number}/{PARTS}"]


def test_a_saved_plan_is_of_its_shard(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = [
        app.run(["plan", "inventory.yml", "--shard", f"{each}/{PARTS}", "-o", f"{each}.plan"]) for each in (1, 2, 3, 4)
    ]
    assert sorted(done) == [0, 0, 0, 2]
    capsys.readouterr()
    number = done.index(2) + 1
    assert json.loads((folder / f"{number}.plan").read_text())["selection"]["shard"] == [number, PARTS]
    assert app.run(["apply", "inventory.yml", "--plan", f"{number}.plan", "--shard", "1/2"]) == 1
    assert app.run(["apply", "inventory.yml", "--plan", f"{number}.plan"]) == 0
    assert (folder / "files" / "b").read_text() == "hello"


@pytest.mark.parametrize("words", ["0/4", "5/4", "1/0", "1", "1/4/4", "-1/4", "1/10000", "a/b", "1.5/2"])
def test_what_is_no_shard_is_refused(words: str, folder: Path) -> None:
    assert app.run(["drift", "inventory.yml", "--shard", words]) == 1
