"""`sparkops.exec/2`: what a program did on each node."""

from __future__ import annotations

from collections.abc import Mapping

from sparkops.operate.exec import Execution, exit_status
from sparkops.reports import schemas


def as_json(ends: Mapping[str, Execution]) -> dict[str, object]:
    """Each node's exit status and output."""
    nodes = {node: _node(end) for node, end in ends.items()}
    return {"schema": schemas.EXEC, "exit_status": exit_status(ends), "nodes": nodes}


def _node(end: Execution) -> dict[str, object]:
    return {
        "status": end.status,
        "timed_out": end.timed_out,
        "reachable": end.reachable,
        "reason": end.reason.as_json() if end.reason else None,
        "stdout": end.output[1].decode(errors="replace"),
        "stderr": end.output[2].decode(errors="replace"),
        "truncated": end.truncated,
    }
