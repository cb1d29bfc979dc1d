"""Findings as text, JSON, SARIF 2.1.0 and GitHub annotations.

It must not know where findings come from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sparkops.lint.check import Finding
from sparkops.lint.rules import rules
from sparkops.reports import schemas

SARIF = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {"error": "error", "warning": "warning", "info": "note"}
ANNOTATIONS = {"error": "error", "warning": "warning", "info": "notice"}
DOCUMENTATION = "https://github.com/sparkops/sparkops/blob/main/docs/lint.md"


def text(findings: Sequence[Finding]) -> Iterable[tuple[str, str]]:
    """Lines, each with the severity that colours it ("" for none)."""
    for each in findings:
        place = f"{each.where}: " if each.where else ""
        about = "" if each.subject in each.message else f"{each.subject}: "
        yield each.severity, f"{place}{each.severity}: {about}{each.message} [{each.id}]"
        yield "", f"  → {f'accepted: {each.accepted}' if each.accepted else each.remedy}"


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The contract `sparkops.lint/1`."""
    return {"schema": schemas.LINT, "findings": [_plain(each) for each in findings]}


def sarif(findings: Sequence[Finding], version: str) -> dict[str, Any]:
    """One SARIF run: rules with their words, results with their places and suppressions."""
    used = {each.id: rules()[each.id] for each in findings}
    driver = {
        "name": "sparkops lint",
        "version": version,
        "informationUri": DOCUMENTATION,
        "rules": [
            {
                "id": rule.id,
                "shortDescription": {"text": rule.summary},
                "fullDescription": {"text": rule.why},
                "help": {"text": f"{rule.remedy}\n\nSource: {rule.source}"},
                "defaultConfiguration": {"level": LEVELS[rule.severity]},
            }
            for rule in used.values()
        ],
    }
    results = [_result(each, list(used)) for each in findings]
    return {"$schema": SARIF, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def github(findings: Sequence[Finding]) -> Iterable[str]:
    """Workflow commands that annotate the lines of a file; accepted findings are left out."""
    for each in findings:
        if each.accepted:
            continue
        file, _, line = each.where.rpartition(":")
        place = f"file={_property(file)},line={line}," if file and line.isdigit() else ""
        message = f"{each.subject}: {each.message} → {each.remedy}"
        yield f"::{ANNOTATIONS[each.severity]} {place}title={_property(each.id)}::{_escaped(message)}"


def dumped(content: dict[str, Any]) -> str:
    """As every JSON of ours: indented by one, characters as they are."""
    return json.dumps(content, indent=1, ensure_ascii=False)


def _plain(finding: Finding) -> dict[str, Any]:
    names = ("id", "severity", "message", "subject", "remedy", "source", "engine")
    content = {name: getattr(finding, name) for name in names}
    return content | {name: getattr(finding, name) for name in ("where", "accepted") if getattr(finding, name)}


def _result(finding: Finding, order: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.id,
        "ruleIndex": order.index(finding.id),
        "level": LEVELS[finding.severity],
        "message": {"text": f"{finding.subject}: {finding.message}. {finding.remedy}"},
    }
    file, _, line = finding.where.rpartition(":")
    if file and line.isdigit():
        region = {"artifactLocation": {"uri": file}, "region": {"startLine": int(line)}}
        result["locations"] = [{"physicalLocation": region}]
    if finding.accepted:
        result["suppressions"] = [{"kind": "inSource", "justification": finding.accepted}]
    return result


def _escaped(message: str) -> str:
    return message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _escaped(value).replace(":", "%3A").replace(",", "%2C")
