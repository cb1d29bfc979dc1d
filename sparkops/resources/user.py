"""An account on a node: its ids, groups, home, shell, keys, and whether its services may run without a login."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from sparkops.core.errors import InventoryError
from sparkops.core.kind_messages import UserAct, UserAsk
from sparkops.core.plan import Step
from sparkops.core.states import State
from sparkops.resources import validators
from sparkops.resources.resource import Resource

_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_KEY = re.compile(r"(.* )?(ssh|ecdsa|sk)-[^ ]+ AAAA[A-Za-z0-9+/=]+( [^\n]*)?")


@dataclass(frozen=True, kw_only=True)
class User(Resource):
    """An account. Only what is declared is compared; its removal leaves its home.

    uid: the number of the account.
    group: the primary group, a name or a number.
    groups: further groups. They are added, and others stay unless `exact_groups` is set.
    exact_groups: whether the account is in no other groups.
    home: the home directory.
    shell: the login shell.
    system: whether a new account is a system account, which has no home unless a `directory` makes it.
    linger: whether the user manager of systemd runs without a login.
    authorized_keys: public SSH keys. They are added, never removed.
    state: present or absent.
    """

    kind: ClassVar[str] = "user"
    reads: ClassVar[Mapping[str, str]] = {"groups": "list of text"}
    removed_by: ClassVar[str] = "user-removed-by"
    removed_with: ClassVar[str] = "--users"
    exclusive: ClassVar[str] = "accounts"

    uid: int | None = None
    group: str | int | None = None
    groups: tuple[str, ...] | None = None
    exact_groups: bool = False
    home: str | None = None
    shell: str | None = None
    system: bool = False
    linger: bool | None = None
    authorized_keys: tuple[str, ...] = ()
    state: str = "present"

    def __post_init__(self) -> None:
        put = object.__setattr__
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InventoryError.of("user-name-invalid", where=self.where, name=self.name)
        validators.one_of(self.state, "state", ("present", "absent"), self.where)
        put(self, "group", validators.account(self.group, "group", self.where))
        if self.groups is not None:
            named = (validators.account(each, "groups", self.where) for each in _listed(self, "groups"))
            put(self, "groups", tuple(sorted({*named})))
        for name in ("home", "shell"):
            if (value := getattr(self, name)) is not None:
                validators.path(value, name, self.where)
        if self.uid is not None and (isinstance(self.uid, bool) or not isinstance(self.uid, int) or self.uid < 1):
            raise InventoryError.of("user-id-invalid", where=self.where, uid=self.uid)
        put(self, "authorized_keys", _listed(self, "authorized_keys"))
        for key in self.authorized_keys:
            if not _KEY.fullmatch(key.strip()):
                raise InventoryError.of("public-key-invalid", where=self.where, key=key[:40])
        put(self, "authorized_keys", tuple(key.strip() for key in self.authorized_keys))

    def ask(self) -> UserAsk:
        return {"name": self.name, "keys": list(self.authorized_keys)}

    def desired(self) -> State:
        if self.state == "absent":
            return None
        wanted: dict[str, object] = {}
        for key in ("uid", "group", "home", "shell", "linger"):
            if (value := getattr(self, key)) is not None:
                wanted[key] = value
        if self.groups is not None:
            wanted["groups"] = list(self.groups)
        if self.authorized_keys:
            wanted["authorized_keys"] = list(self.authorized_keys)
        return wanted

    def same(self, key: str, wanted: object, found: object) -> bool:
        if key == "groups" and not self.exact_groups and isinstance(wanted, list):
            return set(wanted) <= set(found if isinstance(found, (list, tuple)) else ())
        return bool(wanted == found)

    def act(self, step: Step) -> UserAct:
        return {"system": self.system, "exact_groups": self.exact_groups}


def _listed(user: User, name: str) -> tuple[str, ...]:
    return validators.words(getattr(user, name), name, user.where)
