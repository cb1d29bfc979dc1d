"""A kernel parameter on a node, now and after the next start.

Each parameter has a file of its own, `/etc/sysctl.d/60-sparkops-KEY.conf`. Another file that is read later and sets
something else is not touched: it is said.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from sparkops.core.errors import InventoryError
from sparkops.core.kind_messages import SysctlAsk
from sparkops.core.plan import Violation
from sparkops.core.states import FromFact, Observed, State
from sparkops.core.wording import Message
from sparkops.resources import validators
from sparkops.resources.resource import Peers, Resource

_KEY = re.compile(r"[A-Za-z0-9_-]+([./][A-Za-z0-9_:@-]+)+")


@dataclass(frozen=True, kw_only=True)
class Sysctl(Resource):
    """A kernel parameter. `name` is its key (`vm.swappiness`).

    value: a number or a text; white space does not matter.
    state: absent removes the file of sparkops; the running value stays until the next start.
    """

    kind: ClassVar[str] = "sysctl"
    reads: ClassVar[Mapping[str, str]] = {"overridden_by": "mapping"}
    removed_by: ClassVar[str] = "sysctl-removed-by"
    removed_with: ClassVar[str] = "--sysctl"

    value: str | int | FromFact | None = None
    state: str = "present"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _KEY.fullmatch(self.name):
            raise InventoryError.of("sysctl-name-invalid", where=self.where, name=self.name)
        validators.one_of(self.state, "state", ("present", "absent"), self.where)
        value = self.value
        if self.state == "absent" or isinstance(value, FromFact):
            return
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip() or "\n" in str(value):
            raise InventoryError.of("sysctl-value-invalid", where=self.where, name=self.name, value=value)

    @classmethod
    def brought(cls, name: str, claim: Mapping[str, object]) -> bool:
        """The file for this key is sparkops' own, whatever the value was before."""
        return True

    @property
    def file(self) -> str:
        """The name of our file for this key in /etc/sysctl.d."""
        return f"60-sparkops-{self.name.replace('/', '-')}.conf"

    def ask(self) -> SysctlAsk:
        return {"key": self.name, "file": self.file, "absent": self.state == "absent"}

    def desired(self) -> State:
        if self.state == "absent":
            return None
        value = self.value if isinstance(self.value, FromFact) else " ".join(str(self.value).split())
        return {"value": value, "persisted": value}

    def same(self, key: str, wanted: object, found: object) -> bool:
        return found is not None and str(wanted).split() == str(found).split()

    def felt(self, changes: Collection[str]) -> bool:
        return "value" in changes

    def violations(self, found: Observed, peers: Peers) -> tuple[Violation, ...]:
        """A warning where another file undoes ours at the next start."""
        other = found.get("overridden_by") if isinstance(found, dict) else None
        if not isinstance(other, dict) or self.same("value", self.value, other.get("value")):
            return ()
        message = Message.of("sysctl-overridden", path=other.get("path"), key=self.name, value=other.get("value"))
        return (self.violation(message, "warning", key=f"sysctl-overridden:{self.name}", source="sysctl.d(5)"),)

    def explain(self, found: Observed) -> Message | None:
        return Message.of("sysctl-value-changed", key=self.name) if isinstance(found, dict) else None
