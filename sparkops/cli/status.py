"""`sparkops status`: nodes and services on one screen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sparkops.cli import options

if TYPE_CHECKING:
    from sparkops.operate.status import NodeStatus, RankStatus, Status
    from sparkops.reports.table import Cell
    from sparkops.reports.text import Printer


@click.command(
    "status",
    epilog="""\b
Examples:
  sparkops status
  sparkops status spark-01 qwen            nodes, groups, services; globs and !x work
  sparkops status --format json            exit status 0: all serve, 2: a service does not, 3: something is unknown""",
)
@options.nodes
@options.extra
@options.text_or_json
def command(
    nodes: tuple[str, ...],
    inventory: Path,
    limit: tuple[str, ...],
    extra: tuple[tuple[str, str], ...],
    jobs: int,
    form: str,
    no_color: bool,
) -> int:
    """Show how nodes and services are: reachable, memory, GPU, running jobs; state, health by a real completion."""
    from sparkops.cli.printing import console, passwords_for
    from sparkops.inventory.limit import named
    from sparkops.inventory.load import load
    from sparkops.nodes.connect import Connections
    from sparkops.operate.status import status
    from sparkops.reports.text import Printer

    loaded = load(inventory, extra=extra)
    found = status(loaded, named(loaded, (*nodes, *limit)), Connections(passwords_for(loaded)), jobs=jobs)
    if form == "json":
        click.echo(json.dumps(found.as_json(), indent=1))
    else:
        _show(found, Printer(console(no_color)))
    return found.exit_status


def _show(found: Status, printer: Printer) -> None:
    from sparkops.reports.table import table

    rows: list[list[Cell] | str] = []
    for node in found.nodes:
        rows.append(_node(node, found.time))
        rows += [f"✗ {node.why}"] if node.why else []
        rows += [f"job: {_job(job, found.time)}" for job in node.jobs]
        rows += [f"locked by {_holder(node.holder, found.time)}"] if node.holder is not None else []
    table(printer, ("NODE", "", "MEMORY FREE", "LOAD", "GPU", "DRIVER", "UP"), rows)
    if not found.ranks:
        return
    printer.line("")
    rows = []
    for rank in found.ranks:
        rows.append(_rank(rank, found))
        rows += [f"✗ {rank.why}"] if rank.why and rank.answers is not True else []
        rows += [rank.phase] if rank.phase and not rank.serving and rank.phase not in rank.why else []
    table(printer, ("SERVICE", "NODE", "STATE", "SINCE", "HEALTH", "RESTARTS", "MODEL", "ENDPOINT"), rows)


def _node(node: NodeStatus, now: float) -> list[Cell]:
    from sparkops.reports.formatting import size

    memory = "?"
    if node.memory_total is not None and node.memory_available is not None:
        memory = f"{size(node.memory_available)} of {size(node.memory_total)}"
    if node.why:
        return [(node.name, "bold"), ("unreachable", "magenta"), "", "", "", "", ""]
    return [
        (node.name, "bold"),
        ("up", "green"),
        memory,
        "?" if node.load is None else f"{node.load:.2f}",
        node.gpu or "none seen",
        node.driver or "",
        _ago(node.booted, now),
    ]


def _rank(rank: RankStatus, found: Status) -> list[Cell]:
    style = {"active": "green", "activating": "yellow", "": "magenta"}.get(rank.state.partition(" ")[0], "red")
    health: Cell = "not asked"
    if rank.answers is not None:
        health = (f"answers in {rank.seconds:.1f} s", "green") if rank.answers else ("no answer", "red")
    return [
        (rank.service, "bold"),
        rank.node,
        (rank.state or "unknown", style),
        _ago(rank.since, found.time),
        health,
        "?" if rank.restarts is None else (str(rank.restarts), "yellow" if rank.restarts else ""),
        rank.model,
        found.endpoints.get(rank.service, ""),
    ]


def _job(job: Mapping[str, Any], now: float) -> str:
    from sparkops.core.events import StepProgress
    from sparkops.reports.plain_progress import amount

    progress = job.get("progress") or {}
    known = {key: progress[key] for key in ("text", "done", "total", "unit") if progress.get(key) is not None}
    words = amount(StepProgress(node="", id="", **known)) or "running"
    return f"{job.get('key')}: {words} (for {_ago(job.get('since'), now)})"


def _holder(holder: Mapping[str, Any], now: float) -> str:
    if "who" not in holder:
        return "someone who has not yet said who"
    return f"{holder['who']} from {holder.get('from')} for {_ago(holder.get('since'), now)} ({holder.get('command')})"


def _ago(since: Any, now: float) -> str:
    from sparkops.reports.formatting import duration

    return duration(now - since) if isinstance(since, (int, float)) else ""
