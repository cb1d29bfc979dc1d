"""The kind `rank`: what one rank of an engine over several nodes stands on, to be compared with the other ranks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import ClassVar

from sparkops.core.kind_messages import RankAsk
from sparkops.core.plan import Violation
from sparkops.core.states import Observed, State
from sparkops.core.wording import Message
from sparkops.models import platform
from sparkops.models.fabric.figures import moved
from sparkops.resources.resource import Peers, Resource

VERSIONS = {"nccl": ("nccl", r"libnccl\.so\.(\d+\.\d+\.\d+)"), "connectx_firmware": ("connectx", r"(\d[\d.]+) \(")}
"""The facts that hold versions: the component of knowledge/platform.yml, and where they stand in the text."""

LAST = 1 << 36
"""Seconds since the epoch that are still a date."""


@dataclass(frozen=True, kw_only=True)
class Rank(Resource):
    """A rank, looked at and never changed. `name` is its service.

    container: the container that it runs in.
    state_dir: sparkops' folder on the node, where the launcher keeps what was there when the engine began to serve.
    """

    kind: ClassVar[str] = "rank"
    claimed: ClassVar[bool] = False
    volatile: ClassVar[frozenset[str]] = frozenset({"rdma"})
    reads: ClassVar[Mapping[str, str]] = {"rdma": "mapping"}

    container: str
    state_dir: str = "/var/lib/sparkops"

    @property
    def essential(self) -> bool:
        """What is only compared holds nothing up."""
        return False

    def ask(self) -> RankAsk:
        return {"container": self.container, "kept": f"{self.state_dir}/services/{self.name}"}

    def desired(self) -> State:
        return {}

    def violations(self, found: Observed, peers: Peers) -> tuple[Violation, ...]:
        """Warnings of versions that knowledge/platform.yml speaks ill of, and of what moved below the running engine;
        of what is not told, nothing."""
        if not isinstance(found, Mapping):
            return ()
        rdma = found.get("rdma")
        return (*self._doubts(found), *(self._moved(rdma) if isinstance(rdma, Mapping) else ()))

    def _moved(self, rdma: Mapping[str, object]) -> Iterator[Violation]:
        then, now = _devices(rdma.get("then")), _devices(rdma.get("now"))
        gids, lost = [], []
        for name, before in then.items():
            after = now.get(name, _Device())
            gids += [f"{name} {index}: {address}" for index, address in before.gids - after.gids]
            lost += [
                f"{name} {counter} by {count}" for counter, count in moved(before.counters, after.counters).items()
            ]
        at = rdma.get("at")
        began = (
            f"{datetime.fromtimestamp(at, timezone.utc):%Y-%m-%d %H:%M} UTC"
            if isinstance(at, int) and 0 <= at < LAST
            else "time not known"
        )
        args = {"service": self.name, "began": began}
        for id, what in (("rank-gid-moved", sorted(gids)), ("rank-packets-lost", lost)):
            if what:
                message = Message.of(id, what=what, **args)
                yield self.violation(message, "warning")

    def _doubts(self, found: Mapping[str, object]) -> Iterator[Violation]:
        for fact, (name, pattern) in VERSIONS.items():
            told, component = found.get(fact), platform.load().component(name)
            for version in dict.fromkeys(re.findall(pattern, told) if isinstance(told, str) else ()):
                verdict = component.verdict(version)
                if verdict.word == "accept":
                    continue
                certainty = "" if verdict.certainty == "verified" else f" ({verdict.certainty})"
                words = f"{component.title} {version}: {verdict.reason}{certainty}"
                id = "fact-denied-version" if verdict.word == "deny" else "fact-doubtful-version"
                args = {"fact": f"{self.name} on {self.node}", "verdict": words, "remedy": component.remedy}
                yield self.violation(Message.of(id, **args, reason=""), "warning", source=verdict.source)


@dataclass(frozen=True)
class _Device:
    """What of an RDMA device must not move: the entries of its GID table that NCCL can choose, and error counters."""

    gids: frozenset[tuple[int, str]] = frozenset()
    counters: Mapping[str, int] = field(default_factory=dict)


def _devices(told: object) -> dict[str, _Device]:
    """The devices as a node told them; what has another form is left out."""
    return {str(name): _device(each) for name, each in _mapping(told).items()}


def _device(told: object) -> _Device:
    gids, counters = _mapping(told).get("gids"), _mapping(_mapping(told).get("counters"))
    rows = [_mapping(each) for each in gids] if isinstance(gids, list) else []
    v2 = [(row.get("index"), row.get("address")) for row in rows if row.get("type") == "RoCE v2"]
    return _Device(
        frozenset((index, address) for index, address in v2 if isinstance(index, int) and isinstance(address, str)),
        {str(name): value for name, value in counters.items() if isinstance(value, int)},
    )


def _mapping(told: object) -> Mapping[object, object]:
    return told if isinstance(told, Mapping) else {}
