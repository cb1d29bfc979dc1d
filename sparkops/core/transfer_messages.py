"""What passes when one node serves content to another: orders to the server, and to the programs of both sides.

Standard library only: nodes run this module.
"""

from collections.abc import Mapping, Sequence
from typing import TypedDict


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
