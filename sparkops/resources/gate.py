"""The kind `gate`: a changed engine has to prove itself before the next one is changed, and before it is stable.

What passed is noted on the node with a fingerprint of the rendered files, the image and the checkpoint, so a run that
was cut off before its gate is made up for by the next one. It must not know HTTP: that is the worker's half.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sparkops.core.kind_messages import GateAct, GateAsk
from sparkops.core.plan import Step
from sparkops.core.states import Observed, Pending, State
from sparkops.resources.probe import AskedEngine


@dataclass(frozen=True, kw_only=True)
class Gate(AskedEngine):
    """The gate of a service's engine, asked on its head. `name` is the service's.

    port, host, model, prompt, limit_seconds, unit, container, spec: as of the kind `probe`.
    min_healthy_seconds: seconds for which completions have to go on being answered.
    pause_seconds: seconds to wait after it passed.
    tool_call: whether a tool call has to come back with the declared types.
    canaries: `{prompt, expect}`, where `expect` is a regular expression that the answer must contain.
    min_speed_ratio: the least decode speed, as a share of that of the last stable generation; None measures nothing.
    files: what the service is rendered to on the node.
    folder: where its generations are kept there.
    restored: whether a generation was brought back: it is asked what it passed then, not what is declared now.
    """

    kind: ClassVar[str] = "gate"
    volatile: ClassVar[frozenset[str]] = frozenset(
        {
            "passed",  # a gate that is planned is asked, though the same state passed before
            *("speed", "speed_why", "sm_clock_mhz", "power_watts", "hardware_why", "before"),
            *("acceptance_length", "acceptance_why", "canaries", "tool_call"),
        }
    )
    reads: ClassVar[Mapping[str, str]] = {"before": "mapping"}

    prompt: str = "Hello"
    unit: str
    min_healthy_seconds: float = 0.0
    pause_seconds: float = 0.0
    tool_call: bool = False
    canaries: Sequence[Mapping[str, str]] = ()
    min_speed_ratio: float | None = None
    files: Sequence[str] = ()
    folder: str
    restored: bool = False

    def __post_init__(self) -> None:
        for each in self.canaries:
            self.check_expected(each["expect"])

    def ask(self) -> GateAsk:
        return {**self.endpoint(), "service": self.name, "files": list(self.files), "folder": self.folder}

    def desired(self) -> State:
        return {"passed": True}

    def pending(self, steps: Mapping[str, Step], found: Observed) -> Mapping[str, Pending | None]:
        nodes = self.engine_nodes or (self.node,)
        again = (changing(node, self.unit, (*self.files, self.folder), steps) for node in nodes)
        changed = next(filter(None, again), None)
        return {"passed": Pending(changed)} if changed else {}

    def act(self, step: Step) -> GateAct:
        return {
            "min_healthy_seconds": float(self.min_healthy_seconds),
            "pause_seconds": float(self.pause_seconds),
            "tool_call": self.tool_call,
            "canaries": [dict(each) for each in self.canaries],
            "min_speed_ratio": self.min_speed_ratio,
            "restored": self.restored,
        }


def changing(node: str, unit: str, paths: Sequence[str], steps: Collection[str]) -> str | None:
    """The id of a planned step that changes a service on its node: its unit, one of its files, or a return of it."""
    ids = [f"unit {unit} @{node}", *(f"{kind} {path} @{node}" for path in paths for kind in ("file", "generation"))]
    return next((each for each in ids if each in steps), None)
