"""`sparkops report`: kept runs of this machine, shown again; no node is asked."""

from __future__ import annotations

import time
from pathlib import Path

import click

from sparkops.cli import options
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import answer, finish
from sparkops.core.joined import joined
from sparkops.core.report import KeptRun
from sparkops.core.wording import encoded
from sparkops.inventory.limit import select
from sparkops.inventory.load import load
from sparkops.reports import schemas
from sparkops.reports.kept import text as kept_runs
from sparkops.reports.kept.json import of_file
from sparkops.reports.record import shown_again
from sparkops.runs import store


@click.command(
    "report",
    epilog="""\b
Examples:
  sparkops report                          the newest run of this machine
  sparkops report 2026-11-29T10 --format html -o run.html
  sparkops report RUN --events             what happened, as lines of JSON
  sparkops report diff RUN RUN             exit status 2: they differ
  sparkops report merge 1.json 2.json --report html=all.html    reports of shards, as one
  sparkops history --runs                  the names of runs""",
)
@click.argument("words", nargs=-1, metavar="[RUN] | diff RUN RUN | merge FILE…")
@click.option("--events", is_flag=True, help="The events of the run as lines of JSON, instead of its report")
@options.output
@options.common
def command(common: CommonOptions, words: tuple[str, ...], events: bool, output: Path | None, verbose: int) -> int:
    """Show a kept run again, in any format; or what differs between two; or join the reports of shards.

    RUN is a name, or how the only such name begins. drift, apply, rollback and remove are kept on this machine, in
    $XDG_STATE_HOME/sparkops/runs.sqlite, for 30 days. A kept report has no text differences: they are content.

    merge joins files that `--report json=FILE` wrote, of runs of one command with `--shard I/N`, or over other nodes. A
    shard without a file is told as a node that did not answer.

    The exit status is that of the run, or of what was joined; of diff 0 where both found the same, 2 where not, and 3
    where only one of them looked at something.
    """
    if words[:1] == ("merge",) and len(words) > 1 and not events:
        return finish(joined([of_file(Path(word)) for word in words[1:]]), common, output, verbose)
    if words[:1] == ("diff",) and len(words) == 3:
        if common.form not in ("text", "json") or common.reports or output is not None or events:
            raise click.UsageError("report diff has the formats text and json, and writes no file")
        return _diff(common, words[1], words[2])
    if len(words) > 1 or words in (("diff",), ("merge",)):
        raise click.UsageError("give one run, diff and two runs, or merge and files")
    name = words[0] if words else ""
    if events:
        for line in store.events(store.find(name).run.run):
            click.echo(line)
        return 0
    return finish(shown_again(store.find(name)), common, output, verbose)


def _diff(common: CommonOptions, first: str, second: str) -> int:
    """What one run found and the other did not."""
    before, after = shown_again(store.find(first)), shown_again(store.find(second))
    found = kept_runs.between(before, after)
    told = {"schema": schemas.REPORT_DIFF, "first": before.run, "second": after.run, **found.as_json()}
    answer(common, told, lambda printer: kept_runs.show_difference(found, before, after, printer))
    return 2 if found.came or found.went else 3 if found.unseen else 0


def show_since(common: CommonOptions, seconds: float) -> int:
    """`drift --since`: the findings of kept runs, each with the runs that saw it first and last."""
    if common.form not in ("text", "json") or common.reports:
        raise click.UsageError("--since has the formats text and json")
    inventory = load(common.inventory, extra=common.extra, shard=common.shard)
    start = time.time() - seconds
    spans, runs = store.spans(inventory.cluster, since=start), store.latest(inventory.cluster, since=start)
    spans = tuple(each for each in spans if each.last.time >= start or each.node in inventory.nodes)
    if common.limit or common.shard:
        chosen = select(inventory, common.limit)
        spans = tuple(each for each in spans if each.node in chosen)
    told = [kept_runs.span_as_json(each) for each in spans]
    document = {"schema": schemas.SINCE, "runs": len(runs), "findings": told}
    answer(common, document, lambda printer: kept_runs.show_spans(spans, runs, printer))
    if not runs:
        return 3
    return 2 if any(each.about["severity"] != "info" for each in spans) else 0


def show_runs(common: CommonOptions, last: int) -> int:
    """`history --runs`: the newest kept runs of the inventory's cluster."""
    found: tuple[KeptRun, ...] = store.latest(load(common.inventory, extra=common.extra).cluster, last=last)
    document = {"schema": schemas.RUNS, "runs": encoded(found)}
    answer(common, document, lambda printer: kept_runs.show_runs(found, printer))
    return 0
