"""The kind `generation`: the state of a service that was stable is kept on its node, to return to.

What passed its gate (the role puts this after it) becomes the newest generation. The same kind brings one back: with
`restore` its act writes the kept files and gives the image its name again; the unit is restarted behind it. A spec that
was taken back is held: it is not brought again until it changes, or until a person asks for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from sparkops.core.kind_messages import GenerationAct, GenerationAsk
from sparkops.core.plan import Step, Violation
from sparkops.core.states import Observed, Pending, State
from sparkops.core.wording import Message
from sparkops.resources import validators
from sparkops.resources.gate import changing
from sparkops.resources.resource import Resource


@dataclass(frozen=True, kw_only=True)
class Generation(Resource):
    """The generations of a service on one of its nodes. `name` is their folder, `STATE_DIR/generations/SERVICE`.

    unit: the service's unit.
    files: what the service is rendered to on the node.
    inputs: the SHA-256 of the declared spec; None for one that is only to be brought back.
    keep: how many stable generations are kept.
    restore: the number of the one to bring back, or "newest" for the last one that was stable and was not taken back.
    image: with `restore`, what identifies the image that is there: held where the spec is the same in both.
    """

    kind: ClassVar[str] = "generation"
    prune: ClassVar[Literal["remove"]] = "remove"
    at_path: ClassVar[bool] = True
    volatile: ClassVar[frozenset[str]] = frozenset({"at", "inputs", "rejected", "generations", "outdated"})
    reads: ClassVar[Mapping[str, str]] = {"rejected": "list of text", "generations": "list of mapping"}

    unit: str = ""
    files: Sequence[str] = ()
    inputs: str | None = None
    keep: int = 3
    restore: int | str | None = None
    image: str = ""
    state: str = "present"

    def __post_init__(self) -> None:
        validators.path(self.name, "the folder of generations", self.where)

    def claim(self) -> dict[str, object]:
        """A folder that goes with what is in it: all of it is sparkops' own."""
        return {**super().claim(), "path": self.name, "type": "directory"}

    @classmethod
    def retires(cls, parameters: Collection[str]) -> bool:
        return True

    def ask(self) -> GenerationAsk:
        return {
            "folder": self.name,
            "present": self.state == "present",
            "unit": self.unit,
            "files": list(self.files),
            "restore": self.restore,
        }

    def desired(self) -> State:
        if self.state == "absent":
            return None
        return {"restored": True} if self.restore is not None else {"stable": True}

    def pending(self, steps: Mapping[str, Step], found: Observed) -> Mapping[str, Pending | None]:
        changed = changing(self.node, self.unit, self.files, steps) if self.restore is None else None
        return {"stable": Pending(changed)} if changed else {}

    def act(self, step: Step) -> GenerationAct:
        return {"keep": self.keep, "image": self.image}

    def held(self, found: Observed, image: str = "") -> Violation | None:
        """Whether the declared spec was taken back here, and is not what is there now; or the declared `image` was, by
        what identifies it, with the spec that both have."""
        rejected = found.get("rejected", ()) if isinstance(found, Mapping) else ()
        spec = isinstance(found, Mapping) and self.inputs in rejected and found.get("inputs") != self.inputs
        if spec or (image and f"{self.inputs}+{image}" in rejected):
            return self.violation(Message.of("generation-held", service=self.service))
        return None
