"""What a resource is: one thing on one node in its desired state. The kinds stand beside this module.

A kind is a frozen dataclass of declared values and a few pure functions over states. It must not know the network:
`ask` says what the worker's module of the same name shall look at, `act` what it shall do; who carries both is
no business of a kind.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sparkops.core.errors import Changed
from sparkops.core.messages import UNKNOWN, ConvergeRequest
from sparkops.core.plan import Occupied, Step, Violation
from sparkops.core.states import Observed, Pending, State, Unknown
from sparkops.core.wording import Message, Severity

if TYPE_CHECKING:
    from sparkops.nodes.session import Session

TYPES: Mapping[str, type | tuple[type, ...]] = {"text": str, "mapping": Mapping, "list": (list, tuple)}
Peers = Callable[[str], Observed]


@dataclass(frozen=True, kw_only=True)
class Resource:
    """The base of all kinds.

    `name` is what the kind calls its thing (a path, a unit, a package). `after` holds the ids of resources, on this
    node or another, that must be as declared before this one is touched. `peer_nodes` are the nodes of its service:
    while one of them is silent, nothing of the service is touched; `engine_nodes` are those of its engine, the head
    first, where a service has several. `where` is the place of the declaration
    (`file:line:column`), for messages. `pruned` marks what no inventory declares any longer: it is removed, and only
    while it is what was put there. `turn` is the service in whose rollout a thing of the whole node is changed
    (`reconcile/rollout_order.py`), "" for none.
    """

    kind: ClassVar[str]
    interrupts: ClassVar[frozenset[str]] = frozenset()
    """The keys whose change interrupts a service."""
    implied: ClassVar[frozenset[str]] = frozenset()
    """The keys that follow from the creation itself; no reader of a plan needs them there."""
    exclusive: ClassVar[str] = ""
    """Steps of one node with the same word here run one after another (apt holds one lock)."""
    leavable: ClassVar[bool] = False
    """True for a kind whose act only waits, or is a node's job that goes on by itself: an interrupted run leaves it."""
    claimed: ClassVar[bool] = True
    """False for a kind that puts nothing on the node that could be left there one day."""
    reproved: ClassVar[bool] = False
    """True for a kind that has to be proven again whenever something it stands on is changed (`probe`)."""
    guarded: ClassVar[bool] = False
    """True for a kind that is not acted on while it has a violation of its own."""

    volatile: ClassVar[frozenset[str]] = frozenset()
    """Found keys that may differ between two observations without meaning anything."""
    reads: ClassVar[Mapping[str, str]] = {}
    """The types of found keys that the kind does more with than to compare them: names of TYPES, or `list of` one."""
    contained: ClassVar[bool] = False
    """True where acting changes this thing only, and only itself or a foreign program (apt, a command) can move it."""
    prune: ClassVar[Literal["remove", "keep", "collect"]] = "keep"
    """What becomes of it when nothing declares it any more: `--prune` removes it; it is named once and left; or it is
    left for `sparkops gc`, since it holds data that somebody has to decide about."""
    removed_by: ClassVar[str] = ""
    """The id of the words that tell how a person removes what is left; their argument is its `name`."""
    released_by: ClassVar[str] = ""
    """The same of how a person takes back what sparkops did to a thing that was there before."""
    removed_with: ClassVar[str] = ""
    """The option of `sparkops remove` that takes back what otherwise stays."""
    at_path: ClassVar[bool] = False
    """True where the name is the path of what it has for itself."""
    file_type: ClassVar[str] = ""
    """file, link or directory: what stands at the path that it occupies, where that tells whether it is still ours."""

    node: str
    name: str
    role: str = ""
    service: str | None = None
    after: tuple[str, ...] = ()
    peer_nodes: tuple[str, ...] = ()
    engine_nodes: tuple[str, ...] = ()
    where: str = ""
    pruned: bool = False
    turn: str = ""

    @property
    def essential(self) -> bool:
        """Whether what stands on this has to wait while it is unknown."""
        return True

    @property
    def id(self) -> str:
        """Stable, readable and unique within an inventory: `file /etc/motd @spark-01`."""
        return f"{self.kind} {self.name} @{self.node}"

    @property
    def away_seconds(self) -> float | None:
        """How long its act may take the node away; None where it does not."""
        return None

    @property
    def replaceable(self) -> bool:
        """Whether it means something to do this again though it is as declared; `act` sees it by the step's action."""
        return False

    @property
    def common(self) -> bool:
        """Whether several clusters may declare it on one node."""
        return False

    @classmethod
    def occupied(cls, name: str, claim: Mapping[str, object]) -> Occupied:
        """What a thing of this name has for itself, by what is (or was) claimed of it."""
        return Occupied(path=name if cls.at_path else "")

    @classmethod
    def absent(cls, **about: Any) -> Resource:
        """The thing as one that nothing declares any longer and that goes; `about` is what every resource has."""
        return cls(**about, state="absent", pruned=True)  # type: ignore[call-arg]  # each kind that goes has it

    @classmethod
    def brought(cls, name: str, claim: Mapping[str, object]) -> bool:
        """Whether the thing came with sparkops, by its claim, or what stood there before is kept to be put back."""
        return claim.get("action", "create") == "create" or "sparkops" in name or bool(claim.get("original"))

    @property
    def occupies(self) -> Occupied:
        """What this one has for itself."""
        return self.occupied(self.name, self.claim())

    @classmethod
    def retires(cls, parameters: Collection[str]) -> bool:
        """Whether an entry of a role with these parameters is declared absent where its node or service is retired."""
        return False

    @property
    def interrupting(self) -> frozenset[str]:
        """The keys whose change interrupts a service, as this one is declared."""
        return self.interrupts

    def uses(self) -> Mapping[str, Collection[str]]:
        """What it needs on its node of what `gc` removes: `folders`, `images` (names) and `builds` (labels)."""
        return {}

    def stays(self, found: Observed) -> Message | None:
        """Why what is declared absent is left as it is `found`."""
        return None

    def in_place(self, found: Observed) -> bool:
        """Whether it is there although something that is no longer declared occupies the same."""
        return not isinstance(found, Mapping) or found.get("type", "") == self.file_type

    def claim(self) -> dict[str, object]:
        """What the node's record of claims keeps beside the name.

        `content` lists digests, or `secret` is what the node makes its HMAC of; with `path`, `type` and `unit` they
        tell later whether the thing is still what was put there.
        """
        kept: dict[str, object] = {"role": self.role, "service": self.service, "shared": self.common}
        if self.file_type:
            place = self.occupied(self.name, {})
            kept |= {"path": place.path, "type": self.file_type, "unit": place.unit}
        return {key: value for key, value in kept.items() if value}

    def prepare(self) -> Resource:
        """This resource with what has to be learnt outside of the nodes (a hub's manifest), before they are asked.

        May use the network; not called by what works offline. A SparkopsError makes the resource unknown.
        """
        return self

    def sources(self) -> Mapping[str, str]:
        """What it is made from on this machine and no state tells: a name for people and a digest of each."""
        return {}

    def ask(self) -> Mapping[str, object]:
        """What the worker's `observe` of this kind needs: plain values, and bytes where content is compared there."""
        raise NotImplementedError

    def desired(self) -> State:
        """The declared state; `None` is absence. Only the keys that are declared; others are not compared."""
        raise NotImplementedError

    def act(self, step: Step) -> Mapping[str, object]:
        """What the worker's `converge` of this kind needs beside `ask` and the two states."""
        return {}

    def same(self, key: str, wanted: object, found: object) -> bool:
        """Whether `found` satisfies `wanted` for this key; equality unless the kind knows better."""
        return bool(wanted == found)

    def pending(self, steps: Mapping[str, Step], found: Observed) -> Mapping[str, Pending | None]:
        """The values that are known only after steps of the same plan, by key; `steps` are those planned so far, by id.

        A pending value differs from every found one; when the step's turn comes, the resource is compared anew. None is
        for a key that will be as declared once the steps are done.
        """
        return {}

    def outdated(self, found: Observed, peers: Peers) -> bool:
        """Whether it has to be done again though it is as declared, by what another node tells of its own thing.

        `peers` gives the observation of another resource by id.
        """
        return False

    def disrupts(self, before: State, after: State, changes: tuple[str, ...]) -> bool:
        """Whether going from `before` to `after` interrupts a service that runs now."""
        if before is None:
            return False
        return bool(self.interrupting) if after is None else bool(self.interrupting & set(changes))

    def felt(self, changes: Collection[str]) -> bool:
        """Whether the engines on its node may feel these keys changed: nodes are changed one by one then."""
        return False

    def outage_seconds(self, found: Observed) -> float | None:
        """How long the service that this one runs took at its last start, where that is known."""
        return None

    def text_diff(self, found: State) -> str:
        """A unified diff of what would change inside, where the kind has text; else empty."""
        return ""

    def violations(self, found: Observed, peers: Peers) -> tuple[Violation, ...]:
        """What is wrong and must not be repaired: something of another type at its path, unless the kind knows more.

        `peers` gives the observation of another resource by id.
        """
        type = found.get("type") if isinstance(found, Mapping) and self.file_type else None
        if not type or type == self.file_type or self.desired() is None:
            return ()
        return (self.violation(Message.of("path-occupied", path=self.name, found=type, declared=self.file_type)),)

    def violation(
        self, message: Message, severity: Severity = "error", *, key: str = "", source: str = ""
    ) -> Violation:
        """A violation of this resource."""
        return Violation(message=message, resource=self.id, node=self.node, severity=severity, key=key, source=source)

    def notices(self, found: Observed) -> tuple[Message, ...]:
        """What is seen and left alone, to be said."""
        return ()

    def converge(self, session: Session, step: Step) -> Generator[Mapping[str, object], None, Observed]:
        """Bring the thing from `step.before` to `step.after` on its node; yields progress, returns what was then seen.

        The worker compares `before` once more before it acts and observes again after. Progress mappings have the
        fields of `StepProgress`: text, done, total, unit; or `notice`, `{id, args}`.
        """
        return self.converged_to((yield from session.stream("converge", self.order(session, step))))

    def converged_to(self, answer: object) -> Observed:
        """What the worker's `converge` answered. Raises Changed where it did nothing, since the thing had changed."""
        found = self.observed(answer)
        if isinstance(answer, Mapping) and (keys := answer.get("changed")):
            error = Changed.of("state-changed", where=self.node, keys=list(keys) if isinstance(keys, list) else [])
            error.found = found
            raise error
        return found

    def observed(self, answer: object) -> Observed:
        """An observation of this kind as a value; unknown where it has not the types that the kind reads."""
        found = unpack(answer)
        if isinstance(found, Mapping):
            for key, type in self.reads.items():
                if (value := found.get(key)) is not None and not _is(value, type):
                    return Unknown.of("answer-type-wrong", key=key, value=f"{value!r:.80}", expected=type)
        return found

    def order(self, session: Session, step: Step) -> ConvergeRequest:
        """The arguments of the worker's call `converge`, with the claim that the session acts under."""
        order: ConvergeRequest = {
            "kind": self.kind,
            "id": self.id,
            "ask": self.ask(),
            "before": step.before,
            "want": step.after,
            "action": step.action,
            "volatile": sorted(self.volatile),
            "act": self.act(step),
        }
        if session.claims is not None and self.claimed:
            order["claim"] = {
                "state_dir": session.claims["state_dir"],
                "cluster": session.claims["cluster"],
                "kind": self.kind,
                "name": self.name,
                "kept": self.claim(),
                "pruned": self.pruned,
            }
        return order

    def explain(self, found: Observed) -> Message | None:
        """Why a state stayed wrong after converge, where the kind knows a likely cause."""
        return None

    def last_words(self, found: Observed) -> str:
        """Longer material to that, such as the last lines of a log."""
        return ""


def _is(value: object, type: str) -> bool:
    """Whether a value that came from a node is of a type of TYPES, or a `list of` such."""
    if type.startswith("list of "):
        return isinstance(value, (list, tuple)) and all(_is(each, type.removeprefix("list of ")) for each in value)
    return isinstance(value, TYPES[type])


def unpack(answer: object) -> Observed:
    """A worker's observation `{"found": {...} | None}` or `{UNKNOWN: Reason}` as a value; anything else is unknown."""
    fields = answer if isinstance(answer, Mapping) else {}
    if UNKNOWN in fields:
        return Unknown.from_json(fields[UNKNOWN])
    found = fields.get("found", fields)
    if found is None or (isinstance(found, Mapping) and found is not fields):
        return found
    return Unknown.of("answer-not-understood", answer=f"{answer!r:.200}")
