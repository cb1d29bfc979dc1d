"""The written pages are what the data says, and the links in the documentation lead somewhere."""

import re
import shlex
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

from docs.generate import DOCS, PAGES
from sparkops.cli.app import cli
from sparkops.cli.checkpoint import build
from sparkops.compile.compiler import compile_inventory
from sparkops.inventory.load import load
from sparkops.operate.checkpoint_build import steps_of

ROOT = DOCS.parent


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run `make docs`"


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_test_that_a_page_names_is_there() -> None:
    pages = "".join(page.read_text() for page in DOCS.glob("*.md"))
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", pages)
    assert len(named) > 40
    assert [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()] == []


def test_what_the_readme_shows_of_commands_is_what_they_say() -> None:
    shown = re.findall(r"^    \$ sparkops (.+)\n((?:    (?!\$).+\n)+)", (ROOT / "README.md").read_text(), re.M)
    assert len(shown) == 2
    for words, said in shown:
        output = CliRunner().invoke(cli, shlex.split(words)).output
        for line in said.splitlines():
            assert line.strip().rstrip("…").rstrip() in output


def blocks(page: str) -> list[str]:
    """The indented blocks of a page, without their indentation."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", (DOCS / page).read_text(), re.M)
    return [textwrap.dedent(each).strip() + "\n" for each in found]


def test_the_inventory_of_the_page_on_checkpoints_compiles_to_a_built_one(tmp_path: Path) -> None:
    (text,) = [each for each in blocks("checkpoints.md") if each.startswith("version: 1")]
    path = tmp_path / "inventory.yml"
    path.write_text(text)
    kinds = [each.kind for each in compile_inventory(load(path)).resources]
    assert "built_checkpoint" in kinds[kinds.index("checkpoint") :]


def test_the_commands_of_the_page_on_checkpoints_are_understood() -> None:
    (text,) = [each for each in blocks("checkpoints.md") if each.startswith("sparkops checkpoint build")]
    for line in text.splitlines():
        given = build.make_context("build", shlex.split(line)[3:]).params
        assert steps_of(given["steps"], given["layers"], given["recipe"])
