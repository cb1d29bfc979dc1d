"""Running one program on several nodes side by side: no shell, no input, as the user that applies too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sparkops.core.errors import NodeError
from sparkops.core.request_messages import ProgramRequest
from sparkops.core.wording import Message
from sparkops.operate.connect import Context, reach
from sparkops.operate.streams import Block, Ended, lines

OUTPUT_LIMIT = 4 << 20
"""Bytes of each stream of a node in the JSON form."""


@dataclass
class Execution:
    """How it went on one node. `status` is the program's, None where it did not end by itself; `reason` says why."""

    status: int | None = None
    timed_out: bool = False
    reachable: bool = True
    reason: Message | None = None
    output: dict[int, bytearray] = field(default_factory=lambda: {1: bytearray(), 2: bytearray()})
    truncated: bool = False

    def add(self, block: Block) -> None:
        """Append lines of output, up to the limit."""
        output = self.output[block.stream]
        data = block.data + b"\n"
        room = OUTPUT_LIMIT - len(output)
        if len(data) > room:
            data = data[: data.rfind(b"\n", 0, room) + 1]
            self.truncated = True
        output += data


def execute(
    context: Context,
    nodes: Sequence[str],
    argv: Sequence[str],
    *,
    timeout: float | None,
    ends: dict[str, Execution],
) -> Iterator[Block]:
    """Run `argv` on these nodes; yields the output in whole lines and fills `ends`, one entry for each node."""
    asks = {node: ProgramRequest(argv=list(argv), timeout=timeout) for node in nodes}
    ends.update({node: Execution() for node in nodes})
    with reach(context, nodes, ["exec"]) as fleet:
        for item in lines(fleet, "exec.program", asks, context.jobs):
            if isinstance(item, Block):
                yield item
            else:
                _note(ends[item.node], item)


def _note(end: Execution, item: Ended) -> None:
    if item.error is not None:
        end.reason = item.error.message
        end.reachable = not isinstance(item.error, NodeError)
        return
    answer = item.answer or {}
    end.timed_out = bool(answer.get("timed_out"))
    end.status = None if end.timed_out else answer.get("status")
    end.reason = Message.of("exec-timeout") if end.timed_out else None


def exit_status(ends: Mapping[str, Execution]) -> int:
    """4 where it failed somewhere, else 3 where a node was not reached, else 0."""
    if any(end.reachable and end.status != 0 for end in ends.values()):
        return 4
    return 0 if all(end.reachable for end in ends.values()) else 3
