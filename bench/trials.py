"""Tools side by side on one fleet: in turn, what each run cost the controller, and what the nodes saw of the first."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.cost import Cost, run
from bench.fleet import STATE, WORK, Host, Watch
from bench.machine import Machine
from bench.peers_work import Tool
from bench.timing import summary


class Failed(Exception):
    """A tool did not do its work, so it has no figures."""


def check(folder: Path) -> Callable[[Tool], Cost]:
    """How a check runs: it must end well and find nothing that differs."""

    def once(tool: Tool) -> Cost:
        cost = run(tool.check, folder, tool.environment)
        if cost.status or not tool.agrees(cost.output):
            raise Failed(f"{tool.name} ended with {cost.status} or saw a difference: {cost.output[-800:]}")
        return cost

    return once


def apply(folder: Path) -> Callable[[Tool], Cost]:
    """How an apply runs: it must end well."""

    def once(tool: Tool) -> Cost:
        cost = run(tool.apply, folder, tool.environment)
        if cost.status:
            raise Failed(f"{tool.name} ended with {cost.status}: {cost.output[-800:]}")
        return cost

    return once


def interleaved(
    tools: Sequence[Tool],
    once: Callable[[Tool], Cost],
    hosts: Sequence[Host],
    rounds: int,
    patience: float = float("inf"),
    before: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Figures by tool, and what failed by tool; whoever has used up `patience` seconds has no further rounds."""
    nodes = list({host.node.name: host.node for host in hosts}.values())
    costs: dict[str, list[Cost]] = {tool.name: [] for tool in tools}
    seen: dict[str, dict[str, float]] = {}
    failed: dict[str, str] = {}
    for number in range(rounds):
        for tool in tools:
            if tool.name in failed or sum(cost.seconds for cost in costs[tool.name]) > patience:
                continue
            before()
            watch = Watch(nodes) if number == 0 else None
            try:
                costs[tool.name].append(once(tool))
            except Failed as failure:
                failed[tool.name] = str(failure)
            if watch:
                seen[tool.name] = watch.counts().per(len(hosts))
    return {name: _figures(each, seen[name]) for name, each in costs.items() if name not in failed}, failed


def _figures(costs: Sequence[Cost], seen: dict[str, float]) -> dict[str, Any]:
    return {
        **summary([cost.seconds for cost in costs]),
        "cpu": round(statistics.median(cost.cpu for cost in costs), 2),
        "memory_mib": round(max(cost.memory for cost in costs)),
        "per_node": seen,
    }


def wipe(nodes: Sequence[Machine], hosts: Sequence[Host]) -> None:
    """Take away all that the work left on the nodes."""
    script = 'rm -rf "$1"/* "$2"/*; shift 2; for name; do userdel "$name" 2>/dev/null; done; true'
    for node in nodes:
        names = [host.name for host in hosts if host.node == node]
        node.exec("sh", "-c", script, "sh", WORK, STATE, *names)
