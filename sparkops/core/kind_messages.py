"""What the control half of a kind asks of its node half (`ask`), and what an act needs beside the states (`act`).

Both halves read these types, so that mypy checks what crosses between them. Standard library only: nodes run it.
"""

from collections.abc import Mapping
from typing import TypedDict


class PathAsk(TypedDict):
    """A link."""

    path: str


class GroupKeyAsk(PathAsk):
    """The key of a group of ranks, by the fingerprint that it has to have."""

    fingerprint: str


class GroupKeyAct(TypedDict):
    """The key itself."""

    content: bytes


class DirectoryAsk(PathAsk, total=False):
    """A directory; owner and group as they are declared, so that the answer is in the same form."""

    owner: str
    group: str


class DirectoryAct(TypedDict):
    """`parents`: make missing folders above it."""

    parents: bool


class CommandAsk(TypedDict):
    """`check` is an argument list or empty; `timeout` seconds; `stdout` and `matches` are what it has to print."""

    check: list[str]
    creates: str | None
    stdout: str | None
    matches: str | None
    timeout: float


class CommandAct(TypedDict):
    """`run` is an argument list or empty; `timeout` seconds."""

    run: list[str]
    timeout: float
    env: Mapping[str, str]


class MountAsk(PathAsk, total=False):
    """A mount point, and what is declared to be mounted there."""

    source: str
    fstype: str
    options: list[str]


class _SysctlAsk(TypedDict):
    key: str
    file: str


class SysctlAsk(_SysctlAsk, total=False):
    """A kernel parameter and our file in /etc/sysctl.d; with `absent` only that file counts."""

    absent: bool


class PackageAsk(TypedDict):
    """A package, or all whose names match a `pattern`."""

    name: str
    pattern: bool


class PackageAct(TypedDict):
    """`update` the package lists first; `holds`: that it is held, or not, is declared."""

    update: bool
    holds: bool


class UserAsk(TypedDict):
    """An account; `keys` are the lines of authorized_keys that are looked for."""

    name: str
    keys: list[str]


class UserAct(TypedDict):
    """`system`: a new one is a system account; `exact_groups`: other groups are taken away."""

    system: bool
    exact_groups: bool
