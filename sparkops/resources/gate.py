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
from sparkops.resources.probe import check_expected, endpoint
from sparkops.resources.reboot import NAME, Reboot
from sparkops.resources.resource import Resource


@dataclass(frozen=True, kw_only=True)
class Gate(Resource):
    """The gate of a service's engine, asked on its head. `name` is the service's.

    port, host, model, prompt, limit_seconds, unit, container, spec: as of the kind `probe`.
    min_healthy_seconds: seconds for which completions have to go on being answered.
    pause_seconds: seconds to wait after it passed.
    tool_call: whether a tool call has to come back with the declared types.
    canaries: `{prompt, expect}`, where `expect` is a regular expression that the answer must contain.
    min_speed_ratio: the least decode speed, as a share of that of the last stable generation; None measures nothing.
    files: what the service is rendered to on the node.
    folder: where its generations are kept there.
    """

    kind: ClassVar[str] = "gate"
    claimed: ClassVar[bool] = False
    leavable: ClassVar[bool] = True
    volatile: ClassVar[frozenset[str]] = frozenset(
        {"speed", "speed_why", "sm_clock_mhz", "power_watts", "hardware_why", "acceptance_length", "acceptance_why"}
    )

    port: int
    host: str = "127.0.0.1"
    model: str | list[str] | None = None
    prompt: str = "Hello"
    limit_seconds: float = 20.0
    unit: str
    container: str | None = None
    spec: str | None = None
    min_healthy_seconds: float = 0.0
    pause_seconds: float = 0.0
    tool_call: bool = False
    canaries: Sequence[Mapping[str, str]] = ()
    min_speed_ratio: float | None = None
    files: Sequence[str] = ()
    folder: str

    def __post_init__(self) -> None:
        for each in self.canaries:
            check_expected(self, each["expect"])

    def ask(self) -> GateAsk:
        return {**endpoint(self), "service": self.name, "files": list(self.files), "folder": self.folder}

    def desired(self) -> State:
        return {"passed": True}

    def pending(self, steps: Mapping[str, Step], found: Observed) -> Mapping[str, Pending | None]:
        booted = (f"{Reboot.kind} {NAME} @{node}" for node in self.engine_nodes or (self.node,))
        changed = changing(self.node, self.unit, self.files, steps) or next((id for id in booted if id in steps), None)
        return {"passed": Pending(changed)} if changed else {}

    def act(self, step: Step) -> GateAct:
        return {
            "min_healthy_seconds": float(self.min_healthy_seconds),
            "pause_seconds": float(self.pause_seconds),
            "tool_call": self.tool_call,
            "canaries": [dict(each) for each in self.canaries],
            "min_speed_ratio": self.min_speed_ratio,
        }


def changing(node: str, unit: str, files: Sequence[str], steps: Collection[str]) -> str | None:
    """The id of a planned step that changes a service on its node: its unit, or one of its files."""
    ids = [f"unit {unit} @{node}", *(f"file {path} @{node}" for path in files)]
    return next((each for each in ids if each in steps), None)
