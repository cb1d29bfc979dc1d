"""The hook by the real pre-commit, and the commands of the example workflow as a runner would start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
SARIF = json.loads((ROOT / "tests" / "data" / "formats" / "sarif-2.1.0.json").read_text())
WORKFLOW = yaml.safe_load((ROOT / "integrations" / "github" / "sparkops.yml").read_text())
GOOD = """\
version: 1
cluster: rack
nodes: {spark-01: {host: 192.0.2.1}}
services:
  qwen: {recipe: qwen3.6-35b-a3b, nodes: [spark-01]}
"""
BAD = GOOD.replace("nodes: [spark-01]}", "nodes: [spark-01], serve: {max-model-lenght: 4096}}")


def run(argv: Sequence[str | Path], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, env={**os.environ, **environment}, timeout=600, check=False
    )


def steps() -> list[tuple[str, dict[str, Any]]]:
    return [(each.get("name", each.get("uses", "")), each) for each in WORKFLOW["jobs"]["lint"]["steps"]]


@pytest.mark.parametrize(("text", "status"), [(GOOD, 0), (BAD, 1)])
def test_the_workflow_annotates_and_writes_sarif_also_where_lint_finds_an_error(
    tmp_path: Path, text: str, status: int
) -> None:
    (tmp_path / "inventory.yml").write_text(text)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "sparkops"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m sparkops "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    done = {
        name: run(["bash", "-e", "-o", "pipefail", "-c", step["run"]], tmp_path, PATH=path)
        for name, step in steps()
        if "sparkops lint" in step.get("run", "")
    }
    annotated, written = done["annotate the lines"], done["write SARIF"]
    assert annotated.returncode == status, annotated.stdout + annotated.stderr
    assert ("::error file=inventory.yml,line=5" in annotated.stdout) == bool(status)
    assert written.returncode == 0
    (upload,) = [step["with"]["sarif_file"] for name, step in steps() if "upload-sarif" in name]
    sarif = json.loads((tmp_path / upload).read_text())
    jsonschema.validate(sarif, SARIF)
    assert any(each["level"] == "error" for each in sarif["runs"][0]["results"]) == bool(status)


def test_what_always_has_to_run_does(tmp_path: Path) -> None:
    always = {name for name, step in steps() if step.get("if") == "always()"}
    assert always == {"write SARIF", "github/codeql-action/upload-sarif@v3"}
    assert WORKFLOW["permissions"] == {"contents": "read", "security-events": "write"}


@pytest.mark.slow
def test_pre_commit_installs_the_hook_and_stops_a_commit_with_an_error(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("pre-commit")
    if not program.exists():
        pytest.skip("pre-commit is not installed")
    project = tmp_path / "project"
    project.mkdir()
    home = {"PRE_COMMIT_HOME": str(tmp_path / "home"), "GIT_CONFIG_GLOBAL": "/dev/null"}
    assert run([program, "validate-manifest", ROOT / ".pre-commit-hooks.yaml"], project).returncode == 0
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x.invalid"]
    commit = run(["git", "rev-parse", "HEAD"], ROOT).stdout.strip()
    for name, text in (("inventory.yml", GOOD), ("README.md", "x\n"), (".pre-commit-config.yaml", yaml.safe_dump({
        "repos": [{"repo": str(ROOT), "rev": commit, "hooks": [{"id": "sparkops-lint"}]}],
    }))):  # fmt: skip
        (project / name).write_text(text)
    assert run(["git", "init", "-q"], project).returncode == 0
    assert run([program, "install"], project, **home).returncode == 0
    assert run(["git", "add", "."], project).returncode == 0
    first = run([*git, "commit", "-m", "good"], project, **home)
    assert first.returncode == 0, first.stdout + first.stderr
    (project / "inventory.yml").write_text(BAD)
    second = run([*git, "commit", "-am", "bad"], project, **home)
    assert second.returncode == 1 and "max-model-lenght" in second.stdout + second.stderr
    assert run([*git, "checkout", "-q", "inventory.yml"], project).returncode == 0
    (project / "README.md").write_text("y\n")
    third = run([*git, "commit", "-am", "no inventory"], project, **home)
    assert third.returncode == 0 and "Skipped" in third.stdout + third.stderr
