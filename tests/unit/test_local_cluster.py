"""The command line with a real worker on this machine, in a folder of the test's own: a question, a rename, its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparkops.cli.app import run
from tests.unit.inventory.project import Project


class Cluster:
    """An inventory whose only node is this machine, with files below a folder, and `sparkops` for it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.capsys, self.monkeypatch = folder, capsys, monkeypatch
        self.runs = 0
        self.project = Project(folder)
        self.files = folder / "files"
        self.files.mkdir()

    def declare(self, *names: str, cluster: str = "attic", renamed_from: str = "", file: str = "inventory.yml") -> None:
        entries = ", ".join(f"{{file: {self.files / name}, content: hello}}" for name in names)
        self.project.role("own", f"summary: files\nscope: node\nresources: [{entries}]\n")
        former = f"renamed_from: {renamed_from}\n" if renamed_from else ""
        self.project.write(
            file,
            f"version: 1\ncluster: {cluster}\n{former}roles: [own]\nnodes: {{here: }}\n"
            f"connection: {{type: local, become: false, state_dir: {self.folder / 'state'}}}\n",
        )

    def run(self, *words: str, status: int = 0) -> str:
        """Each run has a folder for its record, which is named by time and process: here all are of one process."""
        self.capsys.readouterr()
        self.runs += 1
        self.monkeypatch.setenv("XDG_STATE_HOME", str(self.folder / f"records-{self.runs}"))
        done = run([*words, "-i", str(self.folder / "inventory.yml")])
        out, err = self.capsys.readouterr()
        assert done == status, f"{done}\n{out}\n{err}"
        return out + err

    def json(self, *words: str, status: int = 0) -> dict[str, Any]:
        self.capsys.readouterr()
        done = run([*words, "-i", str(self.folder / "inventory.yml"), "--format", "json"])
        out, err = self.capsys.readouterr()
        assert done == status, f"{done}\n{out}\n{err}"
        found = json.loads(out)
        assert isinstance(found, dict)
        return found

    def claims(self, cluster: str) -> set[str]:
        path = self.folder / "state" / "claims" / f"{cluster}.json"
        return {key.rpartition("/")[2] for key in json.loads(path.read_text())} if path.exists() else set()


def about_the_name(report: dict[str, Any]) -> list[str]:
    """The notices about the cluster's name; that stubs shadow built-in roles is told too."""
    return [each["id"] for each in report["notices"] if each["id"].startswith("cluster-")]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cluster:
    return Cluster(tmp_path, capsys, monkeypatch)


def test_without_a_terminal_nothing_is_changed_unless_told_so(cluster: Cluster) -> None:
    cluster.declare("a", "b")
    said = cluster.run("apply", status=1)
    assert "error[apply-unconfirmed]" in said and "2 changes on here" in said
    assert list(cluster.files.iterdir()) == []
    cluster.run("apply", "--yes")
    assert "nothing was changed" not in cluster.run("apply"), "what finds nothing to change needs no answer"
    (cluster.files / "a").unlink()
    cluster.run("apply", status=1)
    cluster.run("plan", "-o", str(cluster.folder / "plan.json"), status=2)
    cluster.run("apply", "--plan", str(cluster.folder / "plan.json"))
    assert (cluster.files / "a").exists(), "a saved plan was agreed to when it was saved"


def test_a_cluster_gets_another_name_and_keeps_its_things(cluster: Cluster) -> None:
    cluster.declare("kept", "gone")
    cluster.run("apply", "--yes")
    written = (cluster.files / "kept").stat()

    cluster.declare("kept", cluster="rack")
    found = cluster.json("plan", status=2)
    assert {each["id"] for each in found["violations"]} == {"claim-of-other-cluster"}
    assert "renamed_from: attic" in cluster.run("plan", status=2)

    cluster.declare("kept", cluster="rack", renamed_from="attic")
    found = cluster.json("plan", status=2)
    assert (found["steps"], found["violations"]) == ([], [])
    assert about_the_name(found) == ["cluster-renamed"]
    assert [each["name"] for each in found["orphans"]] == [str(cluster.files / "gone")], "what it left is its own too"
    assert cluster.claims("attic") == {"kept", "gone"} and not cluster.claims("rack"), "a look moves nothing"

    cluster.run("apply")
    assert cluster.claims("rack") == {"kept", "gone"} and not cluster.claims("attic")
    now = (cluster.files / "kept").stat()
    assert (now.st_ino, now.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert about_the_name(cluster.json("drift", status=2)) == ["cluster-rename-done"]

    cluster.declare("kept", cluster="rack")
    cluster.run("apply", "--prune", "--yes")
    assert not (cluster.files / "gone").exists()
    assert about_the_name(cluster.json("drift")) == []


def test_a_first_apply_under_the_new_name_may_change_things_at_once(cluster: Cluster) -> None:
    cluster.declare("a")
    cluster.run("apply", "--yes")
    (cluster.files / "a").write_text("edited")
    cluster.declare("a", "b", cluster="rack", renamed_from="attic")
    cluster.run("apply", "--yes")
    assert cluster.claims("rack") == {"a", "b"} and not cluster.claims("attic")
    assert {(cluster.files / name).read_text() for name in "ab"} == {"hello"}
    cluster.run("drift")


def test_remove_takes_back_what_the_former_name_put_there(cluster: Cluster) -> None:
    cluster.declare("a")
    cluster.run("apply", "--yes")
    cluster.declare(cluster="rack", renamed_from="attic")
    cluster.run("remove", "here", "--yes")
    assert not (cluster.files / "a").exists()
