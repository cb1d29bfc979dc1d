"""The kind `rank`: what one rank of an engine over several nodes stands on, to be compared with the other ranks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from sparkops.core.plan import Violation
from sparkops.core.states import Observed, State
from sparkops.core.wording import Message
from sparkops.models import platform
from sparkops.resources.resource import Peers, Resource

VERSIONS = {"nccl": ("nccl", r"libnccl\.so\.(\d+\.\d+\.\d+)"), "connectx_firmware": ("connectx", r"(\d[\d.]+) \(")}
"""The facts that hold versions: the component of knowledge/platform.yml, and where they stand in the text."""


@dataclass(frozen=True, kw_only=True)
class Rank(Resource):
    """A rank, looked at and never changed. `name` is its service.

    container: the container that it runs in.
    """

    kind: ClassVar[str] = "rank"
    claimed: ClassVar[bool] = False

    container: str

    @property
    def essential(self) -> bool:
        """What is only compared holds nothing up."""
        return False

    def ask(self) -> Mapping[str, object]:
        return {"container": self.container}

    def desired(self) -> State:
        return {}

    def violations(self, found: Observed, peers: Peers) -> tuple[Violation, ...]:
        """Warnings of versions that knowledge/platform.yml speaks ill of; of those that are not told, nothing."""
        return tuple(self._doubts(found)) if isinstance(found, Mapping) else ()

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
