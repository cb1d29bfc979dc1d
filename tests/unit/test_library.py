"""sparkops as a library, as somebody's program uses it: values in, values and errors out, nothing printed, no exit."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import sparkops
from docs.generate import DOCS
from tests.errors import fails
from tests.unit.inventory.project import Project


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster whose only node is this machine, with a file below the test's folder, and one service on paper."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "kept"))
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path)
    (tmp_path / "files").mkdir()
    file = f"{{file: {tmp_path / 'files' / 'motd'}, content: hello}}"
    project.role("own", f"summary: files\nscope: node\nresources: [{file}]\n")
    project.write(
        "inventory.yml",
        "version: 1\ncluster: attic\nroles: [own]\nnodes: {here: }\n"
        f"connection: {{type: local, become: false, state_dir: {tmp_path / 'state'}}}\n",
    )
    return tmp_path / "inventory.yml"


def test_a_program_plans_applies_and_looks_again(inventory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = sparkops.load(inventory)
    report = cluster.plan()
    assert report.exit_status == 2
    (step,) = report.plan.steps
    assert (step.kind, step.node, step.action) == ("file", "here", "create")

    declined = cluster.apply(lambda shown: len(shown.plan.steps) == 0)
    assert (declined.declined, cluster.plan().exit_status) == (True, 2)

    done = cluster.apply(lambda shown: True, reason="a test")
    assert [each.outcome for each in done.results] == ["done"]
    assert (inventory.parent / "files" / "motd").read_text() == "hello"

    (inventory.parent / "files" / "motd").write_text("edited")
    with cluster.fleet() as fleet:
        first, second = cluster.drift(fleet=fleet), cluster.drift(fleet=fleet)
    (finding,) = sparkops.findings(second)
    assert (finding.id, finding.origin, finding.severity) == ("drift-differs", "corrective", "warning")
    assert finding.since is not None
    assert finding.since.run == first.run
    assert "/motd" in sparkops.rendered(second, "markdown")
    assert (capsys.readouterr(), second.unrecorded) == (("", ""), ())


def test_what_is_wrong_is_raised_with_its_id(tmp_path: Path) -> None:
    with fails("inventory-not-found"):
        sparkops.load(tmp_path / "inventory.yml")
    (tmp_path / "inventory.yml").write_text("version: 1\ncluster: attic\nnodes: {a: }\n")
    with fails("role-not-found"):
        sparkops.load(tmp_path / "inventory.yml", roles=["nonsense"]).plan()


def test_a_silent_node_is_told_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    way = "connection: {connect_timeout: 2}"
    (tmp_path / "inventory.yml").write_text(
        f"version: 1\ncluster: attic\n{way}\nnodes: {{a: {{host: 127.0.0.1, connection: {{port: 1}}}}}}\n"
    )
    report = sparkops.load(tmp_path / "inventory.yml").drift()
    assert report.exit_status == 3
    assert list(report.plan.unreachable) == ["a"]


def test_a_run_that_cannot_be_kept_says_so_in_its_report(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc")
    assert [each.id for each in sparkops.load(inventory).drift().unrecorded] == ["run-not-recorded"]


def test_the_examples_of_the_page_do_what_they_say(inventory: Path, tmp_path: Path) -> None:
    """All blocks of Python in one program, in a process of its own: nothing is printed but what it prints itself."""
    page = (DOCS / "library.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert len(examples) >= 4
    done = subprocess.run([sys.executable, "-c", "\n".join(examples)], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    told = re.findall(r"^```text\n(.*?)^```", page, re.M | re.S)
    assert done.stdout.replace(str(tmp_path), "/srv") == "".join(told)


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import sparkops; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['sparkops']"


def test_every_public_name_is_there() -> None:
    assert all(getattr(sparkops, name) is not None for name in sparkops.__all__)
    with pytest.raises(AttributeError):
        sparkops.nonsense  # type: ignore[attr-defined]  # noqa: B018
