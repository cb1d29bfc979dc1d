"""Running one program on several nodes side by side: no shell, no input, as the user that applies too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparkops.core.errors import NodeError
from sparkops.inventory.inventory import Inventory
from sparkops.nodes.connect import Connections
from sparkops.operate.connect import reach
from sparkops.operate.streams import Ended, Line, listen

KEPT = 4 << 20
"""Bytes of each stream of a node that are kept for the JSON form."""


@dataclass
class Execution:
    """How it went on one node. `status` is the program's, None where it did not run to its end; `why` says why not."""

    status: int | None = None
    timed_out: bool = False
    reachable: bool = True
    why: str = ""
    output: dict[int, bytearray] = field(default_factory=lambda: {1: bytearray(), 2: bytearray()})
    truncated: bool = False

    def keep(self, line: Line) -> None:
        """Remember a line, up to the limit."""
        kept = self.output[line.stream]
        if len(kept) + len(line.data) < KEPT:
            kept += line.data + b"\n"
        else:
            self.truncated = True

    def as_json(self) -> dict[str, Any]:
        """One node of `sparkops.exec/1`; documented in docs/formats.md."""
        return {
            "status": self.status,
            "timed_out": self.timed_out,
            "reachable": self.reachable,
            "why": self.why,
            "stdout": self.output[1].decode(errors="replace"),
            "stderr": self.output[2].decode(errors="replace"),
            "truncated": self.truncated,
        }


def execute(
    inventory: Inventory,
    nodes: Sequence[str],
    argv: Sequence[str],
    connections: Connections,
    *,
    timeout: float | None,
    jobs: int,
    ends: dict[str, Execution],
) -> Iterator[Line]:
    """Run `argv` on these nodes; yields what is said as it comes and fills `ends`, which has an entry for each node."""
    asks = {node: {"argv": list(argv), "timeout": timeout} for node in nodes}
    ends.update({node: Execution() for node in nodes})
    with reach(inventory, nodes, ["exec"], connections, jobs=jobs) as fleet:
        for item in listen(fleet, "exec.program", asks, jobs):
            if isinstance(item, Line):
                yield item
            else:
                _note(ends[item.node], item)


def _note(end: Execution, item: Ended) -> None:
    if item.error is not None:
        end.why = str(item.error)
        end.reachable = not isinstance(item.error, NodeError)
        return
    answer = item.answer or {}
    end.timed_out = bool(answer.get("timed_out"))
    end.status = None if end.timed_out else answer.get("status")
    end.why = "it did not end in time and was ended" if end.timed_out else ""


def exit_status(ends: dict[str, Execution]) -> int:
    """4 where it failed somewhere, else 3 where a node was not reached, else 0."""
    if any(end.reachable and end.status != 0 for end in ends.values()):
        return 4
    return 0 if all(end.reachable for end in ends.values()) else 3
