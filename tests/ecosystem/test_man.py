"""Man pages: one for each command with all its options, and without a fault by the rules of mandoc and man."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from docs.man import commands, main, page

CONTEXTS = {context.command_path.replace(" ", "-"): context for context in commands()}


def test_each_command_has_a_page_and_is_found_from_its_group(tmp_path: Path) -> None:
    main(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.1" for name in CONTEXTS}
    assert {"sparkops", "sparkops-apply", "sparkops-inventory-export"} <= CONTEXTS.keys()


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_page_has_what_the_help_has(name: str) -> None:
    context = CONTEXTS[name]
    text = page(context, "2026-11-29").replace("\\-", "-")
    for each in context.command.get_params(context):
        if isinstance(each, click.Option) and not each.hidden:
            assert all(re.search(rf"^\.B .*{re.escape(word)}\b", text, re.M) for word in each.opts), each.name
    assert (".SH EXAMPLES" in text) == ("Examples:" in (context.command.epilog or ""))
    assert "\b" not in text


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("man1")
    main(folder)
    return sorted(folder.iterdir())


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
def test_mandoc_finds_nothing_wrong(pages: list[Path]) -> None:
    done = subprocess.run(["mandoc", "-Tlint", "-W", "warning", *pages], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.skipif(not shutil.which("man"), reason="man is not installed")
def test_man_shows_a_page_as_it_is_meant(pages: list[Path]) -> None:
    path = next(each for each in pages if each.name == "sparkops-apply.1")
    done = subprocess.run(
        ["man", "--warnings", "-l", path],
        capture_output=True,
        text=True,
        check=True,
        env={"LC_ALL": "C.UTF-8", "MANWIDTH": "100", "PATH": "/usr/bin:/bin", "MAN_KEEP_FORMATTING": ""},
    )
    assert done.stderr == ""
    shown = re.sub(r".\x08", "", done.stdout)
    for words in ("SPARKOPS-APPLY(1)", "--limit", "sparkops apply", "EXAMPLES", "sparkops(1)"):
        assert words in shown
