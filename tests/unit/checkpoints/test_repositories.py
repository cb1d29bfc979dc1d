"""Models by a repository's name: read from a hub by its real client, kept by commit, and told where they are from."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkops.checkpoints.hub import HubError, HubUnreachable, NoRepository
from sparkops.checkpoints.repositories import FRESH, Repositories, inspection_of
from sparkops.cli.app import run
from sparkops.core.errors import InventoryError
from sparkops.core.secrets import Secret
from sparkops.models.catalogue import of_folder
from tests.errors import fails
from tests.lab import model
from tests.lab.hub import Fault
from tests.lab.hub import Hub as LabHub
from tests.lab.machine import wait_until

REPO = "birds/sparrow"
LINE = f"vllm serve {REPO} --max-model-len 4096 --max-num-seqs 2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.write(tmp_path_factory.mktemp("sparrow"))


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LabHub]:
    """A hub with the model, which commands ask too; their cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with LabHub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        running.add_repo(REPO, folder)
        yield running


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert run([*words, "--format", "json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def fit(capsys: pytest.CaptureFixture[str], *more: str, line: str = LINE) -> dict[str, object]:
    return answer(capsys, "fit", "--serve", line, "--engine", "0.33.0", *more)


def findings(capsys: pytest.CaptureFixture[str], *more: str, line: str = LINE) -> dict[str, str]:
    content = answer(capsys, "lint", "--serve", line, "--engine", "0.33.0", *more)["findings"]
    assert isinstance(content, list)
    return {each["id"]: each["message"] for each in content}


def test_a_repository_is_the_model_of_its_files(hub: LabHub, folder: Path) -> None:
    found, here = Repositories().model(REPO), of_folder(folder)
    assert found is not None and found.from_hub is not None
    assert (found.geometry, found.quantisation, found.weights) == (here.geometry, here.quantisation, here.weights)
    assert (found.name, found.mtp_weights, found.from_hub.cached) == ("sparrow", here.mtp_weights, False)


def test_a_commit_is_read_once_and_a_branch_is_asked_for_once_a_day(
    hub: LabHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Repositories().model(REPO)
    hub.forget()
    again = Repositories().model(REPO)
    assert hub.requests == () and first is not None and again is not None
    assert again.from_hub is not None and first.from_hub is not None
    assert (again.weights, again.from_hub.cached) == (first.weights, True)
    pinned = Repositories().model(REPO, first.from_hub.commit)
    assert hub.requests == () and pinned is not None
    later = time.time() + FRESH + 1
    monkeypatch.setattr("time.time", lambda: later)
    Repositories().model(REPO)
    assert len(hub.requests) == 1


def test_a_branch_that_moved_is_another_commit(hub: LabHub, folder: Path, tmp_path: Path) -> None:
    other = model.write(tmp_path / "other")
    Repositories().model(REPO)
    commit = hub.add_repo(REPO, other, branch="next")
    found = Repositories().model(REPO, "next")
    assert found is not None and found.from_hub is not None and found.from_hub.commit == commit


def test_a_cache_that_is_damaged_is_asked_for_again(hub: LabHub, tmp_path: Path) -> None:
    Repositories().model(REPO)
    for kept in (tmp_path / "cache" / "sparkops" / "models").rglob("*.json"):
        kept.write_text(kept.read_text()[:-5])
    assert Repositories().model(REPO) is not None


def test_offline_asks_nobody(hub: LabHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with fails("hub-offline-not-cached", HubUnreachable):
        Repositories(offline=True).model(REPO)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with fails("hub-offline-not-cached", HubUnreachable):
        Repositories().model(REPO)
    assert hub.requests == ()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    Repositories().model(REPO)
    hub.forget()
    found = Repositories(offline=True).model(REPO)
    assert found is not None and hub.requests == ()


def test_a_hub_that_is_gone_leaves_what_it_last_said(hub: LabHub, monkeypatch: pytest.MonkeyPatch) -> None:
    Repositories().model(REPO)
    later = time.time() + FRESH + 1
    monkeypatch.setattr("time.time", lambda: later)
    hub.fail("*", Fault(stage="info", status=503))
    found = Repositories().model(REPO)
    assert found is not None and found.from_hub is not None and found.from_hub.cached


def test_a_hub_that_does_not_answer_is_asked_once(hub: LabHub) -> None:
    hub.fail("*", Fault(stage="info", status=503))
    asked = Repositories()
    for repository in (REPO, "birds/wren", REPO):
        with fails("hub-failing", HubUnreachable):
            asked.model(repository)
    wait_until(lambda: hub.requests, 10)  # it notes a request when it has answered it
    assert len(hub.requests) == 1


def test_reading_as_a_whole_has_a_limit(hub: LabHub) -> None:
    hub.fail("*.safetensors", Fault(stage="resolve", delay=30))
    with fails("hub-too-slow", HubUnreachable):
        Repositories(whole=1).model(REPO)


@pytest.mark.parametrize("token", ["", "hf_other"])
def test_a_gated_repository_is_explained(hub: LabHub, folder: Path, token: str) -> None:
    hub.add_repo("birds/kept", folder, gated=True)
    hub.grant("hf_other")
    hub.grant("hf_mine", "birds/kept")
    id = "hub-repository-gated" if token else "hub-repository-gated-without-token"
    with fails(id, HubError) as caught:
        Repositories(token=Secret(token) if token else None).model("birds/kept")
    assert f"{hub.endpoint}/birds/kept" in caught.value.hint and "declare" not in caught.value.hint
    assert Repositories(token=Secret("hf_mine")).model("birds/kept") is not None


def test_a_missing_repository_and_a_missing_revision_are_explained(hub: LabHub) -> None:
    with fails("hub-repository-missing-without-token", NoRepository):
        Repositories().model("birds/dodo")
    with fails("hub-revision-missing", HubError):
        Repositories().model(REPO, "v9")


def test_a_refused_token_and_a_disabled_repository_are_explained(hub: LabHub, folder: Path) -> None:
    with fails("hub-token-refused", HubError) as caught:
        Repositories(token=Secret("hf_stale")).model(REPO)
    assert "hf_stale" not in str(caught.value) and "HF_TOKEN" in caught.value.hint
    hub.add_repo("birds/gone", folder, disabled=True)
    with fails("hub-repository-disabled", HubError):
        Repositories().model("birds/gone")


def test_a_name_that_was_given_up_is_read_under_the_new_one(hub: LabHub, folder: Path) -> None:
    hub.add_repo("birds/old", folder)
    hub.move_repo("birds/old", "trees/new")
    found = Repositories().model("birds/old")
    assert found is not None and found.from_hub is not None
    assert (found.name, found.from_hub.moved_to) == ("new", "trees/new")


def test_the_token_stays_with_the_usual_hub(hub: LabHub) -> None:
    hub.grant("hf_mine", REPO)
    Repositories(token=Secret("hf_mine")).model(REPO, "", hub.endpoint)
    assert {each.authorization for each in hub.requests} == {None}


@pytest.mark.parametrize("name", ["sparrow", "./birds/sparrow", "/birds/sparrow", "a/b/c", ""])
def test_what_is_no_name_of_a_repository_is_not_asked_for(hub: LabHub, name: str) -> None:
    assert Repositories().model(name) is None
    assert hub.requests == ()


def test_a_repository_without_configuration_is_explained(hub: LabHub, tmp_path: Path) -> None:
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf" / "model.gguf").write_bytes(b"GGUF")
    hub.add_repo("birds/gguf", tmp_path / "gguf")
    with fails("repository-without-config", HubError):
        Repositories().model("birds/gguf")


def test_a_configuration_other_than_the_list_of_files_says_is_refused(hub: LabHub) -> None:
    hub.fail("config.json", Fault(corrupt_at=1))
    with fails("hub-index-wrong", HubError):
        Repositories().model(REPO)


def test_a_configuration_that_is_none_is_explained(hub: LabHub, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text('{"architectures": ["X"], "hidden_size": "wide"}')
    hub.add_repo("birds/odd", tmp_path / "odd")
    with fails("model-size-invalid", InventoryError):
        Repositories().model("birds/odd")


def test_a_repository_is_inspected_out_of_the_cache(hub: LabHub) -> None:
    first = inspection_of(Repositories().record(REPO))
    hub.forget()
    assert inspection_of(Repositories(offline=True).record(REPO)) == first
    assert hub.requests == () and first.faults == ()


def test_fit_counts_a_repository_as_its_folder_and_says_where_it_is_from(
    hub: LabHub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named, here = fit(capsys), fit(capsys, line=LINE.replace(REPO, str(folder)))
    assert named["weight_bytes_per_rank"] == here["weight_bytes_per_rank"] is not None
    assert named["pool_tokens"] == here["pool_tokens"]
    source = named["from_hub"]
    assert isinstance(source, dict) and source["repository"] == REPO and not source["cached"]
    assert "from_hub" not in here
    assert run(["fit", "--serve", LINE, "--engine", "0.33.0", "--offline"]) == 0
    assert "out of the cache" in capsys.readouterr().out


def test_fit_says_why_a_repository_could_not_be_read(hub: LabHub, capsys: pytest.CaptureFixture[str]) -> None:
    found = fit(capsys, line="vllm serve birds/dodo")
    assert isinstance(found["not_read"], dict)
    assert found["not_read"]["id"] == "hub-repository-missing-without-token"
    assert found["weight_bytes_per_rank"] is None and found["fits"] is None


def test_lint_judges_the_flags_and_says_what_the_hub_said(
    hub: LabHub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {"model-from-hub"} <= set(findings(capsys)) and "model-unknown" not in findings(capsys)
    hub.move_repo(REPO, "trees/sparrow")
    assert "repository-renamed" not in findings(capsys), "the answer of today is in the cache"
    found = findings(capsys, line="vllm serve birds/dodo --max-num-seqs 4")
    assert {"repository-refused", "model-unknown"} <= set(found)
    hub.add_repo("birds/old", folder)
    hub.move_repo("birds/old", "trees/old")
    assert "trees/old" in findings(capsys, line="vllm serve birds/old")["repository-renamed"]
    hub.add_repo("birds/new", folder)
    hub.fail("*", Fault(stage="info", status=503))
    found = findings(capsys, line="vllm serve birds/new")
    assert "repository-refused" not in found and "503" in found["model-unknown"]


def test_the_services_of_an_inventory_are_read_too(
    hub: LabHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "inventory.yml").write_text(
        "version: 1\ncluster: x\nnodes: {n: {host: 192.0.2.1}}\nservices:\n  s:\n    nodes: [n]\n"
        "    image: {pull: 'vllm/vllm-openai:v0.33.0'}\n"
        f"    checkpoint: {{repository: {REPO}}}\n"
        "    serve: {max-model-len: 4096, max-num-seqs: 2}\n"
    )
    found = answer(capsys, "fit", str(tmp_path / "inventory.yml"))["services"]
    assert isinstance(found, dict) and found["s"]["from_hub"]["repository"] == REPO
    assert found["s"]["weight_bytes_per_rank"] is not None


def test_inspect_says_where_it_is_from(hub: LabHub, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "checkpoint", "inspect", REPO)["from_hub"]
    assert isinstance(found, dict) and found["repository"] == REPO and not found["cached"]
    hub.forget()
    found = answer(capsys, "checkpoint", "inspect", REPO, "--offline")["from_hub"]
    assert isinstance(found, dict) and found["cached"] and hub.requests == ()
