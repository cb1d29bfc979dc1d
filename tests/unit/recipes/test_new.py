"""`sparkops recipe new`: what it proposes for any repository passes lint and fit, or it says why none can."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from sparkops.checkpoints.repositories import Repositories
from sparkops.cli.app import run
from sparkops.core.errors import InventoryError
from sparkops.fit.fit import Fit
from sparkops.fit.services import fit_inventory
from sparkops.inventory.load import load
from sparkops.inventory.recipes import read_recipe_file
from sparkops.lint.declared import lint_inventory
from sparkops.proposing.proposal import Wish, propose
from tests.lab.hub import Hub as LabHub

FAMILIES = json.loads((Path(__file__).parents[2] / "data" / "families.json").read_text())["families"]
MODELS = [(family, variant) for family, content in FAMILIES.items() for variant in content["configs"]]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHub]:
    """Every family and variant as a repository that has a configuration and no tensors."""
    root = tmp_path_factory.mktemp("families")
    with LabHub() as running:
        for family, variant in MODELS:
            folder = root / f"{family}-{variant}"
            folder.mkdir()
            for name, value in FAMILIES[family]["configs"][variant].items():
                (folder / name).write_text(json.dumps(value))
            running.add_repo(f"families/{folder.name}", folder)
        (root / "odd").mkdir()
        config = FAMILIES["qwen3-30b-a3b"]["configs"]["bf16"]["config.json"]
        odd = {**config, "quantization_config": {"quant_method": "exl3", "bits": 4}}
        (root / "odd" / "config.json").write_text(json.dumps(odd))
        running.add_repo("families/odd", root / "odd")
        yield running


@pytest.fixture(autouse=True)
def places(hub: LabHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.chdir(tmp_path)


def judged(file: Path) -> tuple[list[str], bool | None, str]:
    """The errors of lint, whether it fits, and why that is not known, for the recipe as a service of an inventory."""
    recipe = read_recipe_file(file)
    names = [f"n{index}" for index in range(recipe.nodes)]
    nodes = "".join(
        f"  {each}: {{host: 192.0.2.{i}, fabric: {{address: 10.0.0.{i}}}}}\n" for i, each in enumerate(names)
    )
    path = file.parent.parent / "inventory.yml"
    services = f"services: {{s: {{recipe: {file.stem}, nodes: [{', '.join(names)}]}}}}\n"
    path.write_text(f"version: 1\ncluster: x\nnodes:\n{nodes}{services}")
    inventory = load(path)
    ask = Repositories(offline=True).model
    errors = [each.id for each in lint_inventory(inventory, date(2026, 1, 1), ask=ask) if each.severity == "error"]
    fit = fit_inventory(inventory, ask=ask)["s"]
    assert isinstance(fit, Fit)
    return errors, fit.fits, next(iter(fit.unknown.values()), "")


@pytest.mark.parametrize(("family", "variant"), MODELS, ids=[f"{family}-{variant}" for family, variant in MODELS])
def test_what_is_proposed_passes_lint_and_fit_or_there_is_a_reason(
    family: str, variant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipes").mkdir()
    name = f"families/{family}-{variant}"
    words = ["recipe", "new", name, "-o", str(tmp_path / "recipes" / "made.yml")]
    status = run(words)
    if status:
        told = capsys.readouterr().err
        assert status == 1 and "error[recipe-new-" in told
        if "recipe-new-needs-nodes" not in told:
            return
        assert run([*words, "--nodes", told.rstrip().rpartition(" ")[2]]) == 0
    errors, fits, reason = judged(tmp_path / "recipes" / "made.yml")
    text = (tmp_path / "recipes" / "made.yml").read_text()
    assert errors == []
    assert fits or (fits is None and reason and "whether it fits" in text)


def test_most_families_have_a_recipe(hub: LabHub) -> None:
    ask = Repositories().model
    made = {}
    for family, content in FAMILIES.items():
        for nodes in (1, 2):
            with contextlib.suppress(InventoryError):
                wish = Wish(model=f"families/{family}-{list(content['configs'])[-1]}", nodes=nodes, engine="0.33.0")
                made.setdefault(family, propose(wish, ask))
    assert len(made) >= 14
    assert sum(not each.uncounted for each in made.values()) >= 12


def test_it_prints_and_writes_nothing_without_o(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipe", "new", "families/gpt-oss-20b-published"]) == 0
    text = capsys.readouterr().out
    assert "tool-call-parser: openai" in text and "reasoning-parser: openai_gptoss" in text
    assert "revision: main" not in text, "the commit that was read is pinned"
    assert [each.name for each in tmp_path.iterdir()] == ["cache"]
    (tmp_path / "there.yml").write_text("mine")
    assert run(["recipe", "new", "families/gpt-oss-20b-published", "-o", "there.yml"]) == 1
    assert "recipe-output-exists" in capsys.readouterr().err
    assert (tmp_path / "there.yml").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "id"),
    [
        (["nobody/knows"], "hub-repository-missing-without-token"),
        (["nobody/knows", "--offline"], "hub-offline-not-cached"),
        (["no-name"], "recipe-new-not-a-repository"),
        (["families/llama-3.3-70b-bf16"], "recipe-new-needs-nodes"),
        (["Qwen/Qwen3.5-397B-A17B", "--nodes", "2"], "recipe-new-does-not-fit"),
        (["families/odd"], "recipe-new-method-unknown"),
        (["families/deepseek-v4-flash-published"], "recipe-new-needs-nodes"),
    ],
)
def test_why_there_is_none_is_told(words: list[str], id: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipe", "new", *words]) in (1, 3)
    assert id in capsys.readouterr().err


def test_two_nodes_share_the_heads_and_three_the_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipe", "new", "families/llama-3.3-70b-bf16", "--nodes", "2"]) == 0
    assert "tensor-parallel-size: 2" in capsys.readouterr().out
    assert run(["recipe", "new", "families/llama-3.3-70b-bf16", "--nodes", "3"]) == 0
    assert "pipeline-parallel-size: 3" in capsys.readouterr().out
