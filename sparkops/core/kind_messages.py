"""What the control half of a kind asks of its node half (`ask`), and what an act needs beside the states (`act`).

Both halves read these types, so that mypy checks what crosses between them. Standard library only: nodes run it.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict


class Nothing(TypedDict):
    """What an act needs that goes by the states alone."""


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


class SysctlAsk(TypedDict):
    """A kernel parameter and our file in /etc/sysctl.d; with `absent` only that file counts."""

    key: str
    file: str
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


class FileAsk(DirectoryAsk, total=False):
    """A file with what is declared of its content: digest and bytes, or a `secret` itself."""

    sha256: str
    size: int
    secret: bytes


class FileAct(TypedDict, total=False):
    """`validate` is an argument list or empty; `again`: write it although it is as declared."""

    validate: list[str]
    again: bool
    content: bytes


class EnginePlace(TypedDict):
    """Where a service's engine answers, and what runs it; `spec` is the path of the launcher's spec."""

    host: str
    port: int
    service: str | None
    unit: str | None
    container: str | None
    spec: str | None


class EngineAsk(EnginePlace):
    """The place, and what is asked there within `limit_seconds`; `model` None is the first one that it serves."""

    model: str | None
    prompt: str
    limit_seconds: float


class ProbeAsk(EngineAsk):
    """A completion; `expect` is a regular expression that the answer must contain."""

    max_tokens: int
    expect: str | None


class ProbeAct(TypedDict):
    """How long an engine that loads is waited for."""

    wait_seconds: float


class GateAsk(EngineAsk):
    """The files that the service is rendered to, and the folder of its generations."""

    files: list[str]
    folder: str


class GateAct(TypedDict):
    """What has to be proven, see `resources.gate.Gate`."""

    min_healthy_seconds: float
    pause_seconds: float
    tool_call: bool
    canaries: list[dict[str, str]]
    min_speed_ratio: float | None
    restored: bool


class DrainAct(TypedDict):
    """For how many seconds an engine's requests are waited for."""

    seconds: float


class GenerationAsk(TypedDict):
    """The folder of a service's generations, its files and unit; `restore` a number, "newest", or None to keep."""

    folder: str
    present: bool
    unit: str
    files: list[str]
    restore: int | str | None


class GenerationAct(TypedDict):
    """`keep` so many; `image` identifies what a return takes back, "" where that is not known."""

    keep: int
    image: str


class StateAsk(TypedDict):
    """The folder of sparkops' own state."""

    state_dir: str


class FabricLink(TypedDict):
    """One link: its slot (`p0/0`), port (or `cable`), twin and declared address."""

    slot: str
    port: str
    twin: int
    address: str


class FabricAsk(TypedDict):
    """The links; `interfaces` by port, empty for what is found; `adopt`: other netplan files may be set aside."""

    links: list[FabricLink]
    interfaces: dict[str, list[str]]
    port: str | None
    mtu: int | None
    adopt: bool


class RankAsk(TypedDict):
    """A rank by its container, and the folder in which its launcher keeps what it learns."""

    container: str
    kept: str


class UnitAsk(TypedDict):
    """A unit with what is declared of it, see `resources.unit.Unit`; `content` is the digest of its text."""

    name: str
    present: bool
    content: str | None
    inputs: bool
    properties: list[str]
    container: str | None
    image: str | None
    model: str | None
    secret: bytes | None
    state_dir: str
    service: str | None
    port: int | None
    host: str
    displaces: list[str]
    main_process: bool


class UnitAct(TypedDict, total=False):
    """Whether a start is waited for, whether what runs is started `again`, and the unit's text."""

    wait: bool
    again: bool
    content: bytes


class Credentials(TypedDict):
    """PEM texts."""

    authority: str
    certificate: str
    key: str


class Place(TypedDict):
    """Where a node serves content."""

    node: str
    address: str
    port: int


class PeerOrder(Place):
    """By which credentials it is asked."""

    credentials: Credentials


class ServeOrder(TypedDict):
    """At which `address` and to whom content is served: `receivers` are names; `fingerprint` is the authority's.

    It ends after `seconds`, or `idle` seconds without a request; `quiet` is that of `programs.transfer.ServedFiles`.
    """

    address: str
    credentials: Credentials
    fingerprint: str
    receivers: list[str]
    seconds: float
    idle: float
    quiet: float


class FilesServe(TypedDict, total=False):
    """A checkpoint of this node: path, bytes and oid of its files; or the identity of what it was built of, where only
    this node knows the files.
    """

    folder: str
    state_dir: str
    owner: str
    files: Sequence[tuple[str, int, str]]
    identity: str
    serve: ServeOrder


class RunningRequest(TypedDict):
    """The job of a thing that is acted on so, which may run already."""

    ask: Mapping[str, object]
    act: Mapping[str, object]


class _ImageName(TypedDict):
    name: str
    repository: str
    tag: str | None
    digest: str | None


class ImageAsk(_ImageName, total=False):
    """A reference in parts (`digest`: of the index), and what is declared of it; `auth` is Docker's form of a login.

    With `like`, the layers and configuration of an archive, it is told whether that one is there. `at` is the engine's
    socket where it is not the usual one.
    """

    platform: str | None
    manifest: str | None
    auth: Mapping[str, str] | None
    like: tuple[list[str], Mapping[str, object]]
    at: str | None


class ImagePeer(PeerOrder):
    """Who serves the image, by its `content` and its `size` in bytes."""

    content: str
    size: int


class ImageAct(TypedDict, total=False):
    """How it comes; `attach` is what a running job must be for, to be followed. `auth` is of a pull, `size` of what is
    sent, `build` the label of what a `peer` serves; the others are the inputs of a build.
    """

    how: Literal["pull", "build", "load", "receive"]
    attach: str
    attached: bool
    auth: Mapping[str, str] | None
    dockerfile: str
    files: dict[str, bytes]
    args: dict[str, str]
    labels: dict[str, str]
    checks: list[list[str]]
    bases: list[ImageAsk]
    size: int
    build: str
    peer: ImagePeer


class ImageOrder(ImageAsk, ImageAct, total=False):
    """The image and how it comes: what a job gets, and the node that serves it, with the engine's id of the image."""

    image: str
    serve: ServeOrder


class FabricLine(TypedDict):
    """One link of a cable: the twin's number, and the address at either end."""

    twin: int
    address: str
    peer: str


class FabricPathAsk(TypedDict):
    """The peer's name, the lines to it, and the folder of what was measured."""

    peer: str
    lines: list[FabricLine]
    folder: str


class FabricPathAct(TypedDict):
    """What was measured: the worst figure as a reason, None where all is good; `gbits` of all lines together.

    `far` are the other ends as they were then, as that node tells them of its own; None where it was silent. `broken`:
    no engine may be started over it, whatever was measured before; None where nothing was found out of that.
    """

    why: Mapping[str, object] | None
    gbits: float | None
    method: str
    far: list[list[object]] | None
    broken: bool | None
