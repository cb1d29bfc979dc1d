"""`sparkops.status/3`, and nodes and services on one screen."""

from __future__ import annotations

from collections.abc import Mapping

from sparkops.core.events import StepProgress
from sparkops.core.messages import Fields
from sparkops.core.states import Unknown
from sparkops.core.wording import duration, size
from sparkops.operate.status import NodeStatus, RankStatus, Status, serve
from sparkops.reports import schemas
from sparkops.reports.plain_progress import amount
from sparkops.reports.printer import Cell, Printer, table


def as_json(status: Status) -> dict[str, object]:
    """`sparkops.status/3`; documented in docs/formats.md."""
    return {
        "schema": schemas.STATUS,
        "cluster": status.cluster,
        "time": status.time,
        "exit_status": status.exit_status,
        "nodes": [_node_json(node) for node in status.nodes],
        "services": [
            {
                "name": name,
                "endpoints": [url for of, url in status.endpoints.items() if of.partition(" @")[0] == name],
                "serving": serve([rank for rank in status.ranks if rank.service == name]),
                "ranks": [_rank_json(rank) for rank in status.ranks if rank.service == name],
            }
            for name in dict.fromkeys(rank.service for rank in status.ranks)
        ],
    }


def _node_json(node: NodeStatus) -> dict[str, object]:
    holder = node.holder and {key: node.holder.get(key) for key in ("who", "from", "command", "since")}
    return {
        "name": node.name,
        "reachable": not node.reason,
        "reason": node.reason.as_json() if node.reason else None,
        "memory_total_bytes": node.memory_total,
        "memory_available_bytes": node.memory_available,
        "gpu": node.gpu,
        "driver": node.driver,
        "load": node.load,
        "booted": node.booted,
        "jobs": [
            {"key": job.get("key"), "since": job.get("since"), "progress": job.get("progress")} for job in node.jobs
        ],
        "lock": holder,
        "readings": _values_json(node.readings),
    }


def _rank_json(rank: RankStatus) -> dict[str, object]:
    return {
        "node": rank.node,
        "unit": rank.unit,
        "state": rank.state,
        "since": rank.since,
        "phase": rank.phase,
        "restarts": rank.restarts,
        "answers": rank.answers,
        "seconds": rank.seconds,
        "reason": rank.reason.as_json() if rank.reason else None,
        "model": rank.model,
        "last_hang": {"path": rank.hang, "time": rank.hung} if rank.hang else None,
        "rank": rank.rank,
        "last_start": {"port_seconds": rank.start[0], "token_seconds": rank.start[1]} if rank.start else None,
        "last_token": rank.token,
        "figures": _values_json(rank.figures),
    }


def _values_json(values: Mapping[str, float | Unknown]) -> dict[str, object]:
    return {
        name: {"value": None, "reason": value.as_json()}
        if isinstance(value, Unknown)
        else {"value": value, "reason": None}
        for name, value in values.items()
    }


def render(found: Status, printer: Printer) -> None:
    """Nodes and services as two tables."""
    rows: list[list[Cell] | str] = []
    for node in found.nodes:
        rows.append(_node(node, found.time))
        rows += [f"✗ {node.reason.full}"] if node.reason else []
        rows += [f"job: {_job(job, found.time)}" for job in node.jobs]
        rows += [f"locked by {_holder(node.holder, found.time)}"] if node.holder is not None else []
    table(printer, ("NODE", "", "MEMORY FREE", "LOAD", "GPU", "DRIVER", "GPU POWER", "SM CLOCK", "UP"), rows)
    if not found.ranks:
        return
    printer.line("")
    rows = []
    for rank in found.ranks:
        rows.append(_rank(rank, found))
        why = rank.reason.text if rank.reason else ""
        rows += [f"{'–' if rank.stopped else '✗'} {why}"] if why and rank.answers is not True else []
        rows += [rank.phase] if rank.phase and not rank.serving and rank.phase not in why else []
        rows += [f"it hung {_ago(rank.hung, found.time)} ago: {rank.hang}"] if rank.hang and rank.restarts else []
    table(printer, ("SERVICE", "NODE", "STATE", "SINCE", "HEALTH", "RESTARTS", "MODEL", "ENDPOINT"), rows)
    printer.line("")
    table(printer, ("SERVICE", "NODE", "RANK", *FIGURES, "LAST TOKEN", "LAST START"), _figures(found))


FIGURES = {
    "TOKENS/S": ("generation_tokens_per_second", "{:.1f}"),
    "PROMPT/S": ("prompt_tokens_per_second", "{:.1f}"),
    "RUNNING": ("running", "{:.0f}"),
    "WAITING": ("waiting", "{:.0f}"),
    "KV USED": ("kv_cache_share", "{:.1%}"),
    "ACCEPTED": ("acceptance", "{:.1%}"),
}


def _figures(found: Status) -> list[list[Cell] | str]:
    """Of each rank what its engine counts; where all of it is unknown for one reason, that too."""
    rows: list[list[Cell] | str] = []
    for rank in found.ranks:
        values = [_value(rank.figures.get(name), form) for name, form in FIGURES.values()]
        token = f"{_ago(rank.token, found.time)} ago" if rank.token else "-"
        start = f"{duration(rank.start[1])} (port {duration(rank.start[0])})" if rank.start else "-"
        rows.append([(rank.service, "bold"), rank.node, str(rank.rank), *values, token, start])
        reasons = {each.text if isinstance(each, Unknown) else "" for each in rank.figures.values()}
        rows += [
            f"– {reason}" for reason in reasons if len(reasons) == 1 and reason and not rank.stopped and rank.state
        ]
    return rows


def _value(value: float | Unknown | None, form: str) -> str:
    return "-" if value is None or isinstance(value, Unknown) else form.format(value)


def _node(node: NodeStatus, now: float) -> list[Cell]:
    memory = "?"
    if node.memory_total is not None and node.memory_available is not None:
        memory = f"{size(node.memory_available)} of {size(node.memory_total)}"
    if node.reason:
        return [(node.name, "bold"), ("unreachable", "magenta"), "", "", "", "", "", "", ""]
    return [
        (node.name, "bold"),
        ("up", "green"),
        memory,
        "?" if node.load is None else f"{node.load:.2f}",
        node.gpu or "none seen",
        node.driver or "",
        _value(node.readings.get("gpu_power_watts"), "{:.0f} W"),
        _value(node.readings.get("sm_clock_mhz"), "{:.0f} MHz"),
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
        found.endpoints.get(rank.service) or found.endpoints.get(f"{rank.service} @{rank.node}", ""),
    ]


def _job(job: Fields, now: float) -> str:
    text = amount(StepProgress.from_mapping("", "", job.get("progress") or {})) or "running"
    return f"{job.get('key')}: {text} (for {_ago(job.get('since'), now)})"


def _holder(holder: Mapping[str, object], now: float) -> str:
    if "who" not in holder:
        return "an unknown process (no holder recorded)"
    return f"{holder['who']} from {holder.get('from')} for {_ago(holder.get('since'), now)} ({holder.get('command')})"


def _ago(since: object, now: float) -> str:
    return duration(now - since) if isinstance(since, (int, float)) else ""
