"""A mount on a node: its line in `/etc/fstab`, and whether it is mounted now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sparkops.core.errors import InventoryError
from sparkops.core.kind_messages import MountAsk
from sparkops.core.states import State
from sparkops.resources import validators
from sparkops.resources.resource import Resource


@dataclass(frozen=True, kw_only=True)
class Mount(Resource):
    """A mount. `name` is the mount point.

    Only the line of this mount point in /etc/fstab is edited. What is in use is not unmounted, and other things that
    are mounted there are not touched.

    source: a device, `UUID=…`, an export, or a word such as `tmpfs`.
    fstype: the type of the file system.
    options: a text as in fstab, or a list.
    passno: the order of file system checks at start; 0 is none.
    mounted: whether it is mounted now, beside its line in fstab.
    state: present or absent.
    """

    kind: ClassVar[str] = "mount"
    at_path: ClassVar[bool] = True
    reads: ClassVar[Mapping[str, str]] = {"options": "list of text"}
    removed_by: ClassVar[str] = "mount-removed-by"
    removed_with: ClassVar[str] = "--mounts"
    exclusive: ClassVar[str] = "fstab"
    interrupts: ClassVar[frozenset[str]] = frozenset({"source", "fstype"})

    source: str = ""
    fstype: str = ""
    options: str | Sequence[str] = "defaults"
    passno: int = 0
    mounted: bool = True
    state: str = "present"

    def __post_init__(self) -> None:
        put = object.__setattr__
        if validators.path(self.name, "the name of a mount", self.where) == "/":
            raise InventoryError.of("path-is-system-folder", where=self.where, what="the name of a mount", path="/")
        validators.one_of(self.state, "state", ("present", "absent"), self.where)
        given = self.options.split(",") if isinstance(self.options, str) else self.options
        put(self, "options", validators.words(given, "options", self.where) or ("defaults",))
        if self.state == "absent":
            return
        for name, value in (("source", self.source), ("fstype", self.fstype)):
            if not isinstance(value, str) or not value or (name == "fstype" and len(value.split()) != 1):
                raise InventoryError.of(
                    "mount-field-invalid", where=self.where, name=self.name, field=name, value=value
                )
        for option in self.options:
            if not option or any(char in option for char in " \t\n,"):
                raise InventoryError.of("mount-option-invalid", where=self.where, name=self.name, option=option)
        if isinstance(self.passno, bool) or not isinstance(self.passno, int) or not 0 <= self.passno <= 9:
            raise InventoryError.of("mount-passno-invalid", where=self.where, name=self.name, passno=self.passno)

    @property
    def interrupting(self) -> frozenset[str]:
        return self.interrupts if self.mounted else self.interrupts | {"mounted"}

    def ask(self) -> MountAsk:
        asked: MountAsk = {"path": self.name}
        if self.state == "present":
            asked |= {"source": self.source, "fstype": self.fstype, "options": list(self.options)}
        return asked

    def desired(self) -> State:
        if self.state == "absent":
            return None
        wanted = {
            "source": self.source,
            "fstype": self.fstype,
            "options": list(self.options),
            "passno": self.passno,
            "mounted": self.mounted,
        }
        return {**wanted, "without": []} if self.mounted else wanted

    def same(self, key: str, wanted: object, found: object) -> bool:
        if key == "options" and isinstance(wanted, list) and isinstance(found, (list, tuple)):
            return sorted(wanted) == sorted(found)
        return bool(wanted == found and type(wanted) is type(found))
