"""What is declared is what is imported, and each has its reason in the documentation; the audit's verdicts."""

from __future__ import annotations

import ast
import json
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

import sparkops
from tests.audit import verdict

ROOT = Path(sparkops.__file__).parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text()
TOOLS = {"mypy", "ruff", "pip-audit", "pytest-xdist"}
"""Dependencies that are run, not imported."""


def plain(name: str) -> str:
    """A distribution's name as all spellings of it are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(table: str) -> set[str]:
    """The names in a list of pyproject.toml (which Python 3.10 has no reader for)."""
    block = re.search(rf"^{table} = \[\n(.*?)^\]", PROJECT, re.M | re.S)
    assert block is not None
    return {plain(name) for name in re.findall(r'"([\w.-]+)', block[1])}


def imported(*folders: str) -> set[str]:
    """The distributions that the sources in these folders import."""
    owners = packages_distributions()
    found: set[str] = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names.append(node.module or "")
            for top in {name.partition(".")[0] for name in names} - {"sparkops", "tests", "bench", "docs", "tools"}:
                if top not in sys.stdlib_module_names:
                    found |= {plain(owner) for owner in owners.get(top, [f"nothing that is installed: {top}"])[:1]}
    return found


def test_what_is_declared_is_what_is_imported() -> None:
    assert imported("sparkops") == declared("dependencies")


def test_what_the_tests_import_is_declared_for_development() -> None:
    here = imported("tests/unit", "tests/worker", "tests/e2e") - declared("dependencies")
    stubs = {name for name in declared("dev") if name.startswith("types-")}
    assert here == declared("dev") - stubs - TOOLS


def test_each_dependency_has_its_reason_in_the_documentation() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    rows = {plain(name) for name in re.findall(r"^\| (\S+) \|", page, re.M)} - {"package"}
    assert rows == declared("dependencies")
    told = page.partition("For development:")[2]
    assert [name for name in declared("dev") if not name.startswith("types-") and name not in told] == []


def test_each_stub_package_is_for_a_dependency() -> None:
    stubs = {name.removeprefix("types-") for name in declared("dev") if name.startswith("types-")}
    assert stubs <= declared("dependencies")


def package(name: str, *faults: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": [{"id": each, "fix_versions": ["1.1"]} for each in faults], **more}


@pytest.mark.parametrize(
    ("answer", "said", "status", "words"),
    [
        ([package("a"), package("b")], "", 0, "2 packages without a known"),
        ([package("a"), package("b", "CVE-1", "CVE-2")], "Found 2", 1, "b 1.0: CVE-1, CVE-2 (mended in 1.1)"),
        ([package("a"), {"name": "b", "skip_reason": "not found"}], "", 0, "nothing is told about b"),
        ([{"name": "b", "skip_reason": "not found"}], "", 0, "audit left out"),
        (None, "trace\nERROR: no route to the service", 0, "audit left out: ERROR: no route to the service"),
        (None, "", 0, "audit left out: it printed nothing"),
    ],
)
def test_only_a_known_vulnerability_fails_and_nothing_is_left_out_silently(
    answer: list[dict[str, Any]] | None, said: str, status: int, words: str
) -> None:
    given = "" if answer is None else json.dumps({"dependencies": answer, "fixes": []})
    found = verdict(given, said)
    assert found[0] == status
    assert words in found[1]
