"""What crosses a process boundary between controller, worker, job and program: one form of each message.

An answer is `{"result": …}` or `{"error": ErrorMessage}`; what could not be found out travels as `{UNKNOWN: Reason}`.
Both carry a stable id and plain arguments; the words are made where a person reads them (`core/wording.py`).
Standard library only: nodes run this module.
"""

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypedDict

ErrorType = Literal["failed", "stale", "busy", "cancelled", "gone", "unknown", "address", "os", "defect"]
"""How the reader has to take an error. `stale`: compared values moved; `busy`: a lock or job of somebody else; `gone`:
the reader itself left; `address`: another address may work; `os`: a system call; `defect`: a fault of sparkops."""

UNKNOWN: Final = "$unknown"
"""The one key of the mapping as which an unknown value travels."""


class Reason(TypedDict):
    """Why something is so: an id of `knowledge/errors/` and its arguments."""

    id: str
    args: Mapping[str, object]


class ErrorMessage(Reason, total=False):
    """An error on the wire. `detail` is longer material, such as the last lines of a log."""

    type: str
    detail: str


class Progress(TypedDict, total=False):
    """How far a piece of work is: `done` of `total` in `unit` (bytes unless given), `rate` of them a second lately.

    `text` is a short line.
    """

    text: str
    done: float | None
    total: float | None
    unit: str
    rate: float


Fields = Mapping[str, Any]
"""What another process, a node or a file says, by key; its shape is that of the call or format, and checked at use."""
State = Fields | None
"""What there is of a thing: a flat mapping of plain values; None is absence."""

Observation = TypedDict("Observation", {"found": State, "$unknown": Reason}, total=False)
"""One of the two: what was found, or why it could not be found out."""


class ObserveRequest(TypedDict):
    """`asks` are `(id, kind, ask)`; what has not answered within `limit` seconds is unknown."""

    asks: Sequence[tuple[str, str, Mapping[str, object]]]
    limit: float


class ObserveAnswer(TypedDict):
    """Observations by id; `machine` is the same for two names of one machine, "" where it can't be told.

    `clock` (seconds since the epoch) and `monotonic` are the node's.
    """

    answers: Mapping[str, Observation]
    machine: str
    clock: float
    monotonic: float


class Claim(TypedDict):
    """Under which claim a thing is acted on: `kept` goes into the record of `cluster` below `state_dir`.

    What is `pruned` is refused where it is no longer what was put there.
    """

    state_dir: str
    cluster: str
    kind: str
    name: str
    kept: Mapping[str, object]
    pruned: bool


class _ConvergeRequest(TypedDict):
    kind: str
    id: str
    ask: Mapping[str, object]
    before: State
    want: State
    action: str
    act: Mapping[str, object]
    volatile: Sequence[str]


class ConvergeRequest(_ConvergeRequest, total=False):
    """Bring a thing from `before` to `want`. `ask` and `act` are its kind's; `volatile` keys of `before` may differ."""

    claim: Claim


class ConvergeAnswer(Observation, total=False):
    """What is there afterwards; `changed` where nothing was done, since these keys are no longer as in `before`."""

    changed: Sequence[str]


class Claimer(TypedDict):
    """Whose claims, and below which folder they are kept.

    `former` is the name that the cluster had before, whose claims are its own; "" for none.
    """

    state_dir: str
    cluster: str
    former: str


class ClaimsRequest(Claimer):
    """Which claims are looked at: of what is not `declared` ("KIND NAME") with `strays`, of the rest with `whole`."""

    declared: Sequence[str]
    strays: bool
    whole: bool


class ClaimsNote(Claimer):
    """What is to be claimed, by key, and what no longer; before that the claims of the `former` name are taken over."""

    claims: Mapping[str, Mapping[str, object]]
    drop: Sequence[str]


class ClaimsAnswer(TypedDict):
    """`strays` are entries with what is there `now`; `foreign` maps keys to clusters and whether they share.

    `renamed`: the node still has claims of the former name. `locked`: why the lock could not be had now, None where it
    could, or is the asker's own.
    """

    renamed: bool
    locked: Reason | None
    strays: Mapping[str, Mapping[str, object]]
    foreign: Mapping[str, Mapping[str, bool]]
    claims: Mapping[str, Mapping[str, object]]


class DiagnoseService(TypedDict):
    """A service as its node has it: the names of its unit and container."""

    name: str
    unit: str
    container: str


class DiagnoseRequest(Claimer):
    """Which services a bug report is about; with `claimed` also those that only the node's claims name."""

    services: Sequence[DiagnoseService]
    claimed: bool


class DiagnosePart(TypedDict):
    """One file of a bug report: its name, its text (UTF-8), or `why` there is none; `cut`: only its end is there."""

    name: str
    text: bytes
    why: Reason | None
    cut: bool


class _Coded(Exception):
    """An exception with an id of `knowledge/errors/` and plain arguments, `values`."""

    def __init__(self, id: str, values: Mapping[str, object]) -> None:
        text = ", ".join(f"{key}={value!r}" for key, value in values.items())
        super().__init__(f"{id}: {text}" if text else id)  # where no catalogue is at hand
        self.id = id
        self.values = dict(values)

    @property
    def reason(self) -> Reason:
        return {"id": self.id, "args": self.values}


class Unknown(_Coded):
    """Something could not be found out, and why."""

    @classmethod
    def of(cls, id: str, /, **args: object) -> "Unknown":
        """What could not be found out, for the reason of this id."""
        return cls(id, args)


class Refused(_Coded):
    """A request that is answered with a reason instead of being done. `detail` is longer material."""

    def __init__(self, id: str, values: Mapping[str, object], type: str = "failed", detail: str = "") -> None:
        super().__init__(id, values)
        self.type = type
        self.detail = detail

    @classmethod
    def of(cls, id: str, /, *, type: ErrorType = "failed", detail: str = "", **args: object) -> "Refused":
        """The error of this id; the words stand in `knowledge/errors/`."""
        return Refused(id, args, type, detail)

    def as_json(self) -> ErrorMessage:
        return {"id": self.id, "args": self.values, "type": self.type, "detail": self.detail}

    @classmethod
    def from_json(cls, message: object) -> "Refused":
        """What a less trusted process answered: anything that is no error becomes `answer-not-understood`."""
        if isinstance(message, Mapping) and (reason := reason_from(message)):
            type, detail = str(message.get("type") or "failed"), str(message.get("detail") or "")
            return Refused(reason["id"], reason["args"], type, detail)
        return Refused.of("answer-not-understood", answer=f"{message!r:.200}")


def reason(id: str, /, **args: object) -> Reason:
    """The reason of an id, with its arguments."""
    return {"id": id, "args": args}


def reason_from(message: object) -> Reason | None:
    """The reason that a less trusted process answered, None for what is none."""
    if isinstance(message, Mapping) and isinstance(message.get("id"), str) and isinstance(message.get("args"), Mapping):
        return {"id": message["id"], "args": {str(key): value for key, value in message["args"].items()}}
    return None


def answer(function: Callable[[], object]) -> dict[str, object]:
    """The message that answers a request: the function's result, or the error it raised."""
    try:
        return {"result": function()}
    except Exception as error:  # noqa: BLE001 - whatever ends a request has to reach the one who asked
        return {"error": error_of(error).as_json()}


def error_of(error: Exception) -> Refused:
    """Any exception as the one that travels."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, Unknown):
        return Refused(error.id, error.values, "unknown")
    if isinstance(error, OSError):
        return os_error(error)
    import traceback  # only for defects: it takes longer to load than a look at ten files

    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return Refused.of("defect", type="defect", error=type(error).__name__, text=str(error), place=place)


def reason_of(error: Exception) -> Reason:
    """Why something is unknown after this exception."""
    return error_of(error).reason


def unknown_of(error: Exception) -> Unknown:
    """What is unknown after this exception, as a value."""
    refused = error_of(error)
    return Unknown(refused.id, refused.values)


_ERRNO_IDS = {
    errno.ENOSPC: "disk-full",
    errno.EDQUOT: "quota-exceeded",
    errno.EROFS: "read-only-file-system",
    errno.EACCES: "permission-denied",
    errno.EPERM: "permission-denied",
    errno.EIO: "disk-input-output-error",
    errno.ELOOP: "path-through-link",
}


def os_error(error: OSError) -> Refused:
    """A failed system call: `path` is the file, or "" where the system names none."""
    path = str(error.filename) if error.filename is not None else ""
    text = error.strerror or str(error)
    return Refused.of(_ERRNO_IDS.get(error.errno or 0, "system-call-failed"), type="os", path=path, text=text)
