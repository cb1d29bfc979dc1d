"""The report as Markdown (GitHub's), for an issue or a chat: a table of findings, and each difference to unfold.

Everything that came from nodes or inventories stands in code spans and blocks: it can neither become markup nor
mention anybody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sparkops.core.plan import Step
from sparkops.core.report import Report
from sparkops.reports.formatting import brief, count, safe, value
from sparkops.reports.run.findings import Finding, counts, findings, standings

MARKS = {"error": "❌", "warning": "⚠️", "info": "ℹ️"}
DETAILS = 50
"""Differences that are shown whole: GitHub takes 65,536 characters in a comment."""
DIFF_LINES = 60
LONG = 300


def render(report: Report) -> str:
    """The document."""
    found = findings(report)
    lines = [f"## {code(report.command)} of {code(report.cluster)}: {_sum(report, found)}", ""]
    if found:
        lines += ["| | finding | what | way out |", "|---|---|---|---|", *map(_row, found), ""]
    shown = [each for each in found if each.step is not None and _unfolds(each)]
    for each in shown[:DETAILS]:
        lines += _details(each)
    if len(shown) > DETAILS:
        lines += [f"{len(shown) - DETAILS} more differences are not shown in detail.", ""]
    for service, url in report.endpoints.items() if report.exit_status == 0 else ():
        lines += [f"- {code(service)}: {code(url)}"]
    if report.run:
        lines += [f"Run {code(report.run)}, exit status {report.exit_status}."]
    return "\n".join(lines).rstrip() + "\n"


def _sum(report: Report, found: Sequence[Finding]) -> str:
    told = counts(standings(report, found))
    words = [f"{told[each]} {each.replace('-', ' ')}" for each in told if told[each]]
    return f"{count(len(report.plan.nodes), 'node')}, {', '.join(words) or count(report.plan.total, 'resource')}"


def _row(each: Finding) -> str:
    what = each.text + (f" (accepted: {each.accepted})" if each.accepted else "")
    return f"| {MARKS[each.severity]} | {code(each.id)} | {code(what)} | {code(each.fix) if each.fix else ''} |"


def _unfolds(each: Finding) -> bool:
    """Whether there is more to tell than its line in the table."""
    step, result = each.step, each.result
    return step is not None and bool(step.diff or step.action == "update" or (result is not None and result.detail))


def _details(each: Finding) -> Iterator[str]:
    """What differs in one resource, folded."""
    assert each.step is not None
    yield from ("<details><summary>" + _text(each.resource) + "</summary>", "")
    if each.step.action == "update" and each.step.changes:
        yield from ("| key | found | declared |", "|---|---|---|")
        for key in each.step.changes:
            before, after = (_value(each.step, side, key) for side in ("before", "after"))
            yield f"| {code(key)} | {code(before)} | {code(after)} |"
        yield ""
    if each.step.diff:
        lines = safe(each.step.diff).splitlines()
        more = [f"… {len(lines) - DIFF_LINES} more lines"] if len(lines) > DIFF_LINES else []
        text = "\n".join([*lines[:DIFF_LINES], *more])
        fence = "`" * max(3, _longest(text) + 1)
        yield from (f"{fence}diff", text, fence, "")
    if each.result is not None and each.result.detail:
        text = safe(each.result.detail)
        fence = "`" * max(3, _longest(text) + 1)
        yield from (fence, text, fence, "")
    yield from ("</details>", "")


def _value(step: Step, side: str, key: str) -> str:
    state = (step.before if side == "before" else step.after) or {}
    found = state.get(key)
    return "(none)" if found is None else brief(value(key, found)) or "(empty)"


def code(text: object) -> str:
    """A code span that any text fits into, also within a table."""
    words = " ".join(safe(text).split())
    if len(words) > LONG:
        words = words[:LONG] + "…"
    if not words:
        return ""
    ticks = "`" * (_longest(words) + 1)
    space = " " if words[0] == "`" or words[-1] == "`" else ""
    return f"{ticks}{space}{words}{space}{ticks}".replace("|", "\\|")


def _longest(text: str) -> int:
    """The longest run of backticks in a text."""
    return max((len(each) for each in re.findall("`+", text)), default=0)


def _text(text: str) -> str:
    """Within HTML: every character that has a meaning in HTML or Markdown as a reference."""
    words = " ".join(safe(text).split())[:LONG]
    return re.sub(r"[^\w /.,-]", lambda match: f"&#{ord(match[0])};", words)
