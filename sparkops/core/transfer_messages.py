"""What passes when one node serves content to another: orders to the server, and to the programs of both sides.

Standard library only: nodes run this module.
"""

from collections.abc import Sequence
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


class FolderServe(TypedDict):
    """A checkpoint of this node, as `owner` of its files."""

    folder: str
    state_dir: str
    owner: str
    serve: ServeOrder


class FilesServe(FolderServe):
    """Its files: path, bytes and oid of each."""

    files: Sequence[tuple[str, int, str]]


class BuiltServe(FolderServe):
    """It was built of the inputs of this identity; only its node knows its files."""

    identity: str


class ImageServe(TypedDict):
    """An image by the engine's id, which no other image can get; `size` in bytes, `at` the engine's socket."""

    name: str
    image: str
    size: int
    at: str | None
    serve: ServeOrder


class Served(TypedDict):
    """The port of a server that listens."""

    port: int


class BuiltServed(Served):
    """With the files."""

    files: Sequence[tuple[str, int, str]]


class ImageServed(Served):
    """With what the source says of the image."""

    content: str
    size: int
