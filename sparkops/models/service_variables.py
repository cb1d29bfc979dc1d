"""The variables of the roles `service`, `image` and `checkpoint` that a spec is made of, as their schemas have them.

What the compiler adds to those of a service is there where it runs on several nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict


class ContainerVariables(TypedDict):
    """How the container is made."""

    name: str | None
    entrypoint: Sequence[str] | None
    network: str
    ipc: str | None
    model_path: str
    cache: bool
    mounts: Sequence[Mapping[str, object]]
    devices: Sequence[str]
    cap_add: Sequence[str]


class LimitVariables(TypedDict):
    """Sizes in GiB."""

    memory_free_gib: float | None
    memory_gib: float | None
    shm_size_gib: float | None
    drop_caches: bool
    ulimits: Mapping[str, int | None]


class ServiceVariables(TypedDict, total=False):
    """A rank of a service, its engine, and what the compiler adds: its `rank` among `nodes`, their addresses, …"""

    name: str
    host: str
    port: int
    model: str | None
    command: Sequence[str]
    serve: Mapping[str, object]
    environment: Mapping[str, object]
    gpus: Literal["all"] | Sequence[str | int] | None
    prompt: str
    container: ContainerVariables
    limits: LimitVariables
    timeouts: Mapping[str, float]
    rank: int
    ranks: Sequence[RankVariables]
    nodes: Sequence[str]
    addresses: Sequence[str | None]
    fabric: Mapping[str, object] | None
    group: Mapping[str, float]


class ImageVariables(TypedDict):
    """Where the image comes from."""

    pull: str | None
    build: Mapping[str, str | None]


class CheckpointVariables(TypedDict, total=False):
    """What is served; built where it has steps."""

    repository: str | None
    revision: str
    folder: str | None
    steps: Sequence[Mapping[str, object]]


class RankVariables(TypedDict):
    """What is declared for one rank."""

    service: ServiceVariables
    checkpoint: CheckpointVariables
