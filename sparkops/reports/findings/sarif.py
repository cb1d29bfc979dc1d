"""SARIF 2.1.0 (OASIS): the log of one run of one tool. It must not know what is found, nor by whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from sparkops.core.wording import Severity

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS: dict[Severity, str] = {"error": "error", "warning": "warning", "info": "note"}
PAGES = "https://github.com/sparkops/sparkops/blob/main/docs"


def log(
    tool: str, version: str, page: str, rules: Sequence[dict[str, object]], results: Iterable[dict[str, object]]
) -> Any:
    """One run. `page` is the tool's own of the documentation; results name their rule by its place in `rules`."""
    driver = {"name": tool, "version": version, "informationUri": f"{PAGES}/{page}", "rules": [*rules]}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": [*results]}]}


def rule(id: str, *, short: str, full: str, help: str, level: str) -> dict[str, object]:
    """A rule with its words. Texts must not be empty."""
    return {
        "id": id,
        "shortDescription": {"text": short or id},
        "fullDescription": {"text": full or short or id},
        "help": {"text": help or short or id},
        "defaultConfiguration": {"level": level},
    }


def result(id: str, index: int, severity: Severity, text: str, *, where: str, accepted: str) -> dict[str, Any]:
    """One finding. `where` is `file:line` or `file:line:column`, or empty."""
    made: dict[str, Any] = {"ruleId": id, "ruleIndex": index, "level": LEVELS[severity], "message": {"text": text}}
    file, line = place(where)
    if file:
        made["locations"] = [
            {"physicalLocation": {"artifactLocation": {"uri": _uri(file)}, "region": {"startLine": line}}}
        ]
    if accepted:
        made["suppressions"] = [{"kind": "inSource", "justification": accepted}]
    return made


def place(where: str) -> tuple[str, int]:
    """The file and the line of `file:line[:column]`; "" and 0 for anything else."""
    parts = where.split(":")
    while len(parts) > 2 and parts[-1].isdecimal() and parts[-2].isdecimal():
        parts.pop()
    line = int(parts[-1]) if len(parts) > 1 and parts[-1].isdecimal() else 0
    return (":".join(parts[:-1]), line) if line else ("", 0)


def _uri(file: str) -> str:
    path = PurePath(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
