"""A Debian package on a node: installed, its version, held; or its absence. Or a pattern of packages to be held."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from sparkops.core.errors import InventoryError
from sparkops.core.kind_messages import PackageAct, PackageAsk
from sparkops.core.plan import Step
from sparkops.core.states import Observed, State
from sparkops.core.wording import Message
from sparkops.resources import validators
from sparkops.resources.resource import Resource

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?")
_PATTERN = re.compile(r"[a-z0-9+.*?\[\]!-]+")
_VERSION = re.compile(r"[A-Za-z0-9.+:~*?\[\]-]+")


@dataclass(frozen=True, kw_only=True)
class Package(Resource):
    """A package of apt.

    `name` may be a pattern (`nvidia-driver-*`) where only `hold` is declared: installed packages that match are held,
    and nothing is installed.

    version: exact, or a pattern (`580.95.*`, with the epoch where it has one). Only a declared version may lead to a
        downgrade.
    hold: whether it is protected from upgrades by others.
    hold_installed: whether a plain name is treated like a pattern: held if it is installed, never installed.
    update_cache: false uses the package lists as they are.
    disruptive: whether a change of its version interrupts a service.
    state: present or absent.
    """

    kind: ClassVar[str] = "package"
    removed_by: ClassVar[str] = "package-removed-by"
    released_by: ClassVar[str] = "package-released-by"
    removed_with: ClassVar[str] = "--packages"
    exclusive: ClassVar[str] = "apt"

    version: str | None = None
    hold: bool | None = None
    hold_installed: bool = False
    update_cache: bool = True
    disruptive: bool = False
    state: str = "present"

    def __post_init__(self) -> None:
        validators.one_of(self.state, "state", ("present", "absent"), self.where)
        if not isinstance(self.name, str) or not (_PATTERN if self.pattern else _NAME).fullmatch(self.name):
            raise InventoryError.of("package-name-invalid", where=self.where, name=self.name)
        if self.version is not None and (not isinstance(self.version, str) or not _VERSION.fullmatch(self.version)):
            raise InventoryError.of("package-version-invalid", where=self.where, name=self.name, version=self.version)
        if self.hold is not None and not isinstance(self.hold, bool):
            raise InventoryError.of("package-hold-invalid", where=self.where, hold=self.hold)
        if self.hold_installed and self.hold is None:
            object.__setattr__(self, "hold", True)
        if self.pattern and (self.version is not None or self.state == "absent" or self.hold is None):
            raise InventoryError.of("package-pattern-only-held", where=self.where, name=self.name)

    @classmethod
    def absent(cls, **about: Any) -> Resource:
        """Also where it is held."""
        return cls(**about, state="absent", hold=True, pruned=True)

    @property
    def interrupting(self) -> frozenset[str]:
        return frozenset({"status", "version"}) if self.disruptive else self.interrupts

    @property
    def pattern(self) -> bool:
        """Whether the name stands for whatever matches it and is installed."""
        return self.hold_installed or (isinstance(self.name, str) and any(char in self.name for char in "*?["))

    @property
    def common(self) -> bool:
        """A package serves all."""
        return True

    def ask(self) -> PackageAsk:
        return {"name": self.name, "pattern": self.pattern}

    def desired(self) -> State:
        if self.state == "absent":
            return None
        if self.pattern:
            return {"unheld": []} if self.hold else {"held": []}
        wanted: dict[str, object] = {"status": "installed"}
        if self.version is not None:
            wanted["version"] = self.version
        if self.hold is not None:
            wanted["hold"] = self.hold
        return wanted

    def same(self, key: str, wanted: object, found: object) -> bool:
        if key == "version":
            return isinstance(found, str) and (found == wanted or fnmatch.fnmatchcase(found, str(wanted)))
        return bool(wanted == found)

    def felt(self, changes: Collection[str]) -> bool:
        return bool({"status", "version"} & set(changes))

    def act(self, step: Step) -> PackageAct:
        return {"update": self.update_cache, "holds": self.hold is not None}

    def explain(self, found: Observed) -> Message | None:
        return Message.of("package-not-installed", name=self.name) if found is None else None
