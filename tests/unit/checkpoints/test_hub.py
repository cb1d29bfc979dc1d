"""The hub through its real client, against a hub on this machine: what is learnt, kept, and said when it fails."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkops.checkpoints.hub import Hub, HubError, HubUnreachable
from sparkops.checkpoints.manifest import ManifestError
from sparkops.core.secrets import Secret
from tests.lab.hub import Fault
from tests.lab.hub import Hub as LabHub

REPO = "org/tiny"
TOKEN = "hf_very_secret"


@pytest.fixture
def lab_hub() -> Iterator[LabHub]:
    with LabHub() as running:
        yield running


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    return folder


def ask(lab_hub: LabHub, tmp_path: Path, token: str = "") -> Hub:
    return Hub(lab_hub.endpoint, Secret(token) if token else None, tmp_path / "cache")


def test_a_branch_becomes_a_commit_and_the_commit_a_manifest(lab_hub: LabHub, model: Path, tmp_path: Path) -> None:
    commit = lab_hub.add_repo(REPO, model)
    hub = ask(lab_hub, tmp_path)
    assert hub.resolve(REPO, "main").commit == commit
    files = {file.path: file for file in hub.manifest(REPO, commit).files}
    assert files["model.safetensors"].oid == "sha256:" + hashlib.sha256(b"weights").hexdigest()
    assert files["config.json"].oid == "git-sha1:" + hashlib.sha1(b"blob 2\0{}").hexdigest()


def test_a_long_list_of_files_is_read_page_by_page(lab_hub: LabHub, model: Path, tmp_path: Path) -> None:
    for number in range(7):
        (model / f"{number}.txt").write_text("x")
    lab_hub.page_size = 2
    commit = lab_hub.add_repo(REPO, model)
    assert len(ask(lab_hub, tmp_path).manifest(REPO, commit).files) == 9


def test_the_record_of_a_built_folder_that_was_pushed_as_it_lay_is_no_part_of_it(
    lab_hub: LabHub, model: Path, tmp_path: Path
) -> None:
    (model / ".sparkops").mkdir()
    for name in ("manifest.json", "built.json"):
        (model / ".sparkops" / name).write_text("{}")
    commit = lab_hub.add_repo(REPO, model)
    files = ask(lab_hub, tmp_path).manifest(REPO, commit).files
    assert [file.path for file in files] == ["config.json", "model.safetensors"]


def test_the_manifest_of_a_commit_is_asked_for_once(lab_hub: LabHub, model: Path, tmp_path: Path) -> None:
    commit = lab_hub.add_repo(REPO, model)
    first = ask(lab_hub, tmp_path).manifest(REPO, commit)
    lab_hub.forget()
    assert ask(lab_hub, tmp_path).manifest(REPO, commit) == first
    assert lab_hub.requests == ()


def test_a_damaged_cache_entry_is_asked_for_again(lab_hub: LabHub, model: Path, tmp_path: Path) -> None:
    commit = lab_hub.add_repo(REPO, model)
    first = ask(lab_hub, tmp_path).manifest(REPO, commit)
    (kept,) = (tmp_path / "cache").rglob("*.json")
    kept.write_text(kept.read_text()[:-10])
    assert ask(lab_hub, tmp_path).manifest(REPO, commit) == first


def test_a_moved_repository_answers_under_its_new_name(lab_hub: LabHub, model: Path, tmp_path: Path) -> None:
    commit = lab_hub.add_repo(REPO, model)
    lab_hub.move_repo(REPO, "new-org/tiny")
    found = ask(lab_hub, tmp_path).resolve(REPO, "main")
    assert (found.commit, found.moved_to) == (commit, "new-org/tiny")


def test_a_revision_that_does_not_exist_is_told_with_the_nearest_one(
    lab_hub: LabHub, model: Path, tmp_path: Path
) -> None:
    lab_hub.add_repo(REPO, model, branch="release")
    with pytest.raises(HubError) as caught:
        ask(lab_hub, tmp_path).resolve(REPO, "relaese")
    assert f"{REPO}@relaese at {lab_hub.endpoint}: the repository has no such revision" in str(caught.value)
    assert caught.value.id == "hub-revision-missing" and caught.value.args_by_name["nearest"] == "release"


def test_a_missing_repository_is_told(lab_hub: LabHub, tmp_path: Path) -> None:
    with pytest.raises(HubError) as caught:
        ask(lab_hub, tmp_path).resolve("org/none", "main")
    assert caught.value.id == "hub-repository-missing-without-token"


def test_a_gated_repository_is_told_before_the_first_fetch(lab_hub: LabHub, model: Path, tmp_path: Path) -> None:
    commit = lab_hub.add_repo(REPO, model, gated=True)
    lab_hub.grant("other")
    for token, id in (("", "hub-repository-gated-without-token"), ("other", "hub-repository-gated")):
        with pytest.raises(HubError) as caught:
            ask(lab_hub, tmp_path, token).resolve(REPO, "main")
        assert caught.value.id == id
        assert caught.value.args_by_name["page"] == f"{lab_hub.endpoint}/{REPO}"
    lab_hub.grant(TOKEN, REPO)
    assert ask(lab_hub, tmp_path, TOKEN).resolve(REPO, "main").commit == commit


def test_a_refused_token_is_told_and_not_shown(lab_hub: LabHub, model: Path, tmp_path: Path) -> None:
    lab_hub.add_repo(REPO, model)
    with pytest.raises(HubError) as caught:
        ask(lab_hub, tmp_path, TOKEN).resolve(REPO, "main")
    assert caught.value.id == "hub-token-refused"
    assert TOKEN not in str(caught.value) and caught.value.__cause__ is None


def test_a_disabled_repository_is_told(lab_hub: LabHub, model: Path, tmp_path: Path) -> None:
    lab_hub.add_repo(REPO, model, disabled=True)
    with pytest.raises(HubError) as caught:
        ask(lab_hub, tmp_path).resolve(REPO, "main")
    assert caught.value.id == "hub-repository-disabled"


@pytest.mark.parametrize(("status", "id"), [(429, "hub-rate-limited"), (503, "hub-failing"), (500, "hub-failing")])
def test_a_busy_hub_is_another_error_than_a_refusing_one(
    lab_hub: LabHub, model: Path, tmp_path: Path, status: int, id: str
) -> None:
    lab_hub.add_repo(REPO, model)
    lab_hub.fail("*", Fault(stage="info", status=status))
    with pytest.raises(HubUnreachable) as caught:
        ask(lab_hub, tmp_path).resolve(REPO, "main")
    assert (caught.value.id, caught.value.exit_status) == (id, 3)


def test_an_absent_hub_is_told_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(HubUnreachable) as caught:
        Hub("http://127.0.0.1:9", None, tmp_path).resolve(REPO, "main")
    assert caught.value.id == "hub-unreachable" and "set to a full commit" in caught.value.hint
    assert caught.value.what == "http://127.0.0.1:9 can not be reached: [Errno 111] Connection refused"


def test_a_pinned_commit_that_is_not_known_yet_is_not_told_to_be_pinned(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    with pytest.raises(HubUnreachable) as caught:
        Hub("http://127.0.0.1:9", None, tmp_path).manifest(REPO, "0" * 40)
    assert caught.value.id == "hub-unreachable-pinned" and "set to a full commit" not in caught.value.hint
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("endpoint", ["foo", "hub.example.org:8080", "ftp://hub.example.org", "https://"])
def test_an_endpoint_that_is_no_address_is_named(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HubError) as caught:
        Hub(endpoint, None, tmp_path)
    assert (caught.value.id, caught.value.where) == ("hub-endpoint-invalid", "")
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(HubError) as caught:
        Hub("", None, tmp_path)
    assert (caught.value.id, caught.value.where) == ("hub-endpoint-invalid", "HF_ENDPOINT of the environment")


def test_a_list_that_leads_out_of_the_folder_is_refused(lab_hub: LabHub, model: Path, tmp_path: Path) -> None:
    commit = lab_hub.add_repo(REPO, model)
    files = lab_hub._repos[REPO].commits[commit]
    files["../../etc/cron.d/x"] = files["config.json"]  # type: ignore[index]
    with pytest.raises(ManifestError) as caught:
        ask(lab_hub, tmp_path).manifest(REPO, commit)
    assert caught.value.id == "manifest-file-invalid"


def test_the_environments_endpoint_is_honoured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example.org/")
    assert Hub().endpoint == "https://hub.example.org"
    assert Hub("https://other.example.org").endpoint == "https://other.example.org"


def test_the_client_is_not_imported_before_it_is_used() -> None:
    code = "import sys, sparkops.resources.checkpoint; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
