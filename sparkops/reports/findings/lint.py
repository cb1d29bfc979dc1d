"""Findings as text, JSON, SARIF 2.1.0 and GitHub annotations.

It must not know where findings come from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from sparkops.lint.check import Finding
from sparkops.lint.rules import rules
from sparkops.reports import schemas
from sparkops.reports.findings import sarif
from sparkops.reports.findings.github import annotation


def text(findings: Sequence[Finding]) -> Iterable[tuple[str, str]]:
    """Lines, each with the severity that colours it ("" for none)."""
    for each in findings:
        place = f"{each.where}: " if each.where else ""
        about = "" if each.subject in each.message else f"{each.subject}: "
        yield each.severity, f"{place}{each.severity}: {about}{each.message} [{each.id}]"
        yield "", f"  → {f'accepted: {each.accepted}' if each.accepted else each.remedy}"


def as_json(findings: Sequence[Finding]) -> dict[str, object]:
    """The contract `sparkops.lint/1`."""
    return {"schema": schemas.LINT, "findings": [_plain(each) for each in findings]}


def as_sarif(findings: Sequence[Finding], version: str) -> dict[str, object]:
    """One SARIF run: rules with their words, results with their places and suppressions."""
    used = {each.id: rules()[each.id] for each in findings}
    described = [
        sarif.rule(
            each.id,
            short=each.summary,
            full=each.why,
            help=f"{each.remedy}\n\nSource: {each.source}",
            level=sarif.LEVELS[each.severity],
        )
        for each in used.values()
    ]
    order = list(used)
    results = [
        sarif.result(
            each.id,
            order.index(each.id),
            each.severity,
            f"{each.subject}: {each.message}. {each.remedy}",
            where=each.where,
            accepted=each.accepted,
        )
        for each in findings
    ]
    made: dict[str, object] = sarif.log("sparkops lint", version, "lint.md", described, results)
    return made


def workflow_commands(findings: Sequence[Finding]) -> Iterable[str]:
    """Workflow commands that annotate the lines of a file; accepted findings are left out."""
    for each in findings:
        if not each.accepted:
            message = f"{each.subject}: {each.message} → {each.remedy}"
            yield annotation(each.severity, each.where, each.id, message)


def dumped(content: dict[str, object]) -> str:
    """As every JSON of ours: indented by one, characters as they are."""
    return json.dumps(content, indent=1, ensure_ascii=False)


def _plain(finding: Finding) -> dict[str, object]:
    names = ("id", "severity", "message", "subject", "remedy", "source", "engine")
    content = {name: getattr(finding, name) for name in names}
    return content | {name: getattr(finding, name) for name in ("where", "accepted") if getattr(finding, name)}
