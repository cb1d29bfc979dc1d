"""Kept runs for people and programs: their list, the findings over a time, and what two of them do not share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sparkops.core.errors import SparkopsError
from sparkops.core.report import KeptRun, Report
from sparkops.core.wording import encoded
from sparkops.reports.formatting import count, local
from sparkops.reports.printer import Printer, table
from sparkops.reports.run.findings import Finding, findings, looked_at, standings
from sparkops.reports.text import SEVERITY
from sparkops.runs.store import Span


@dataclass(frozen=True, slots=True)
class Difference:
    """What the second run found and the first did not, and the other way; `unseen`: resources only one looked at."""

    came: tuple[Finding, ...]
    went: tuple[Finding, ...]
    unseen: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """Keys in the documented order."""
        return {
            "came": [_finding(each) for each in self.came],
            "went": [_finding(each) for each in self.went],
            "unseen": list(self.unseen),
        }


def between(first: Report, second: Report) -> Difference:
    """Compare two reports of one cluster. What one of them could not observe, or did not look at, neither came nor
    went. Raises SparkopsError for reports of two clusters.
    """
    if first.cluster != second.cluster:
        raise SparkopsError.of("runs-of-two-clusters", clusters=[first.cluster, second.cluster])
    reports = (first, second)
    found = [{each.sign: each for each in findings(report)} for report in reports]
    states = [standings(report, each.values()) for report, each in zip(reports, found, strict=True)]
    seen = [{id for id, state in each.items() if state != "unknown"} for each in states]
    unseen = tuple(sorted(seen[0] ^ seen[1]))

    def only(here: int, there: int) -> tuple[Finding, ...]:
        other = reports[there]
        return tuple(
            each
            for sign, each in found[here].items()
            if sign not in found[there]
            and each.severity != "info"
            and each.resource not in unseen
            and (each.resource in states[there] or other.whole or not each.resource)
            and looked_at(other, states[there], each.node, each.resource)
        )

    return Difference(only(1, 0), only(0, 1), unseen)


def _finding(each: Finding) -> dict[str, str]:
    return {
        "id": each.id,
        "state": each.standing,
        "severity": each.severity,
        "resource": each.resource,
        "node": each.node,
    }


def span_as_json(span: Span) -> dict[str, object]:
    """One finding over several runs; `closed` is null while it stands."""
    place = {"resource": span.resource, "node": span.node}
    return {**span.about, **place, "first": encoded(span.first), "last": encoded(span.last), "closed": span.closed}


def show_runs(runs: Sequence[KeptRun], printer: Printer) -> None:
    """A line for each run."""
    if not runs:
        printer.line("no run of this cluster is kept on this machine")
        return
    rows = [[_time(each.time), each.run, each.command, _status(each), _counts(each)] for each in runs]
    table(printer, ["ended", "run", "command", "status", "resources"], rows)


def show_spans(spans: Sequence[Span], runs: Sequence[KeptRun], printer: Printer) -> None:
    """Each finding with since when it stands, or until when it did."""
    if not runs:
        printer.line(("? ", "magenta"), "no run in this time is kept on this machine: nothing is known of it")
        return
    for span in spans:
        symbol, style = SEVERITY.get(span.about["severity"], SEVERITY["error"])
        printer.line((f"{symbol} ", style), span.about["text"], (f" [{span.about['id']}]", "dim"))
        stands = f"last seen {_time(span.last.time)}, {span.last.run}"
        end = f"gone by {_time(span.closed)}" if span.closed is not None else stands
        printer.line((f"since {_time(span.first.time)}, {span.first.run}; {end}", "dim"), indent=4)
    standing = sum(each.closed is None for each in spans)
    told = f"{count(len(spans), 'finding')}, {standing} of them when last looked at" if spans else "nothing was found"
    printer.line(f"{count(len(runs), 'run')}: {told}")


def show_difference(found: Difference, first: Report, second: Report, printer: Printer) -> None:
    """What came and what went between two runs."""
    for title, each, style in (("+ ", found.came, "yellow"), ("- ", found.went, "green")):
        _list(title, each, style, printer)
    if found.unseen:
        printer.line(("? ", "magenta"), f"{count(len(found.unseen), 'resource')} observed by only one of the runs:")
        for id in found.unseen:
            printer.line((id, "dim"), indent=4)
    printer.line(
        f"{first.run} → {second.run}: {count(len(found.came), 'finding')} came, {len(found.went)} went",
    )


def _list(title: str, found: Iterable[Finding], style: str, printer: Printer) -> None:
    for each in found:
        printer.line((title, style), each.text, (f" [{each.id}]", "dim"))


def _time(time: float) -> str:
    return local(time)


def _status(run: KeptRun) -> str:
    return "did not end" if run.exit_status is None else str(run.exit_status)


def _counts(run: KeptRun) -> str:
    return ", ".join(f"{number} {state.replace('-', ' ')}" for state, number in run.counts.items() if number)
