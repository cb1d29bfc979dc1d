"""The kind `reboot`: no reboot is due on a machine. Where one is, it is rebooted, and has to be reached again in time.

The rollout (`reconcile/rollout.py`) orders it among the engines. What makes a reboot due is the facts' knowledge.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from sparkops.core.kind_messages import StateAsk
from sparkops.core.plan import Step
from sparkops.core.states import Observed, Pending, State
from sparkops.resources.package import Package
from sparkops.resources.resource import Resource

NAME = "when-needed"


@dataclass(frozen=True, kw_only=True)
class Reboot(Resource):
    """A machine without a due reboot. `name` is `when-needed`.

    seconds: within which the machine has to be reached again.
    state_dir: sparkops' folder on the node, which keeps what it was rebooted for: never twice for the same.
    """

    kind: ClassVar[str] = "reboot"
    claimed: ClassVar[bool] = False
    volatile: ClassVar[frozenset[str]] = frozenset({"reasons", "boot"})
    interrupts: ClassVar[frozenset[str]] = frozenset({"due"})

    seconds: float = 900.0
    state_dir: str = "/var/lib/sparkops"

    @property
    def away_seconds(self) -> float:
        return float(self.seconds)

    def ask(self) -> StateAsk:
        return {"state_dir": self.state_dir}

    def desired(self) -> State:
        return {"due": False}

    def pending(self, steps: Mapping[str, Step], found: Observed) -> Mapping[str, Pending | None]:
        """A package may ask for it, or bring another kernel."""
        end = f" @{self.node}"
        changed = next((id for id in steps if id.startswith(f"{Package.kind} ") and id.endswith(end)), None)
        return {"due": Pending(changed)} if changed else {}

    def felt(self, changes: Collection[str]) -> bool:
        return True
