"""The report as GitHub's workflow commands: an annotation for each finding, at its place in the inventory."""

from __future__ import annotations

from sparkops.core.report import Report
from sparkops.reports.findings.github import annotation
from sparkops.reports.formatting import safe
from sparkops.reports.run.findings import findings


def render(report: Report) -> str:
    """A line each; what is accepted is left out."""
    lines = (
        annotation(each.severity, each.where, each.id, safe(f"{each.text} → {each.fix}" if each.fix else each.text))
        for each in findings(report)
        if not each.accepted
    )
    return "".join(f"{line}\n" for line in lines)
