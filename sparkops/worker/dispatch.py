"""The two halves of the worker's work: observe everything in one call, and bring one thing into its state.

A kind's module offers `observe(ask) -> dict | None` (or `observe_many(asks) -> {id: dict | None | Unknown}`, where one
observation answers for all), and `converge(call, ask, found, want, act)`. Observing never changes the node.
"""

import contextlib
import time
from collections.abc import Iterable, Mapping
from functools import partial

from sparkops.core.messages import (
    UNKNOWN,
    ConvergeAnswer,
    ConvergeRequest,
    Observation,
    ObserveAnswer,
    ObserveRequest,
    State,
    reason_of,
)
from sparkops.worker.calls import Call, Refused, Unknown, kind
from sparkops.worker.system.side_by_side import side_by_side

Asks = dict[str, Mapping[str, object]]
"""What is asked of one kind, by the ids of its resources."""
THREADS = 16
"""Observers that run at the same time."""
DOWN_SECONDS = 120.0
"""For a machine that goes down to end this very process."""
KNOWN = ("busy", "cancelled", "gone", "stale", "unknown")
"""Types of a refusal that is no failure of the act."""


def observe(call: Call, args: ObserveRequest) -> ObserveAnswer:
    """Answers `{id: {"found": state or None} | {UNKNOWN: Reason}}` for `asks`: `[[id, kind, ask], …]`.

    Kinds are asked side by side; what has not answered after `limit` seconds is unknown, the rest is not held up.
    `machine` is the same for two names of one machine, "" where it can't be told.
    """
    limit = float(args.get("limit", 30.0))
    many: dict[str, Asks] = {}
    looks: list[tuple[str, Asks]] = []
    answers: dict[str, Observation] = {}
    for identity, name, ask in args["asks"]:
        try:
            module = kind(name)
        except Refused as error:
            answers[identity] = {UNKNOWN: error.reason}
            continue
        if hasattr(module, "observe_many"):
            many.setdefault(name, {})[identity] = ask
        else:
            looks.append((name, {identity: ask}))
    looks += many.items()
    late: Observation = {UNKNOWN: {"id": "observation-late", "args": {"seconds": limit}}}
    answers.update({identity: late for _, asks in looks for identity in asks})
    for found in side_by_side([partial(_observed, *each) for each in looks], THREADS, limit):
        answers.update(found)
    return {"answers": answers, "machine": _machine(), "clock": time.time(), "monotonic": time.monotonic()}


def _machine() -> str:
    try:
        with open("/etc/machine-id", encoding="ascii", errors="replace") as file:
            return file.read(64).strip()
    except OSError:
        return ""


def _observed(name: str, asks: Asks) -> dict[str, Observation]:
    module = kind(name)
    try:
        if hasattr(module, "observe_many"):
            found = module.observe_many(asks)
        else:
            found = {identity: module.observe(ask) for identity, ask in asks.items()}
    except Exception as error:  # noqa: BLE001 - a defect of an observer makes its answer unknown, never the run's end
        return dict.fromkeys(asks, {UNKNOWN: reason_of(error)})
    return {
        identity: {UNKNOWN: each.reason} if isinstance(each, Unknown) else {"found": each}
        for identity, each in found.items()
    }


def look(name: str, identity: str, ask: Mapping[str, object]) -> Observation:
    """The observation of one resource, as `observe` gives it."""
    return _observed(name, {identity: ask})[identity]


def converge(call: Call, args: ConvergeRequest) -> ConvergeAnswer:
    """Act on one resource: observe it, do nothing if it is not as `before` says, claim, act, observe it again.

    Answers the last observation; with the keys that have `changed` since `before` where nothing was done. Where what
    stood there before sparkops was put back, there is nothing left of the thing.
    """
    from sparkops.worker.record import claims  # see processes.py for what it costs

    name, identity, ask = args["kind"], args["id"], args["ask"]
    module = kind(name)
    now = look(name, identity, ask)
    if UNKNOWN in now:
        raise Refused.of("state-unknown", type="unknown", reason=now[UNKNOWN])
    found = now["found"]
    changed = differing(args["before"], found, args.get("volatile", ()))
    if changed:
        return {"found": found, "changed": changed}
    with claims.acting(args.get("claim"), identity, args["action"]) as put_back:
        if put_back is not None:
            put_back()
            return {"found": None}
        try:
            module.converge(call, ask, found, args["want"], args.get("act") or {})
        except Refused as error:
            _await_shutdown(call, error)
            raise
    after = look(name, identity, ask)
    return {UNKNOWN: after[UNKNOWN]} if UNKNOWN in after else {"found": after["found"]}


def _await_shutdown(call: Call, error: Refused) -> None:
    """Where the machine goes down, the failure of an act is no verdict on it: the end of this process says so."""
    from sparkops.worker.system import processes

    if error.type in KNOWN:
        return
    with contextlib.suppress(Unknown):
        if processes.ask(["systemctl", "is-system-running"])[1].strip() == "stopping":
            call.stopping.wait(DOWN_SECONDS)
            raise Refused.of("machine-goes-down", type="unknown", reason=error.reason) from error


def differing(before: State, found: State, volatile: Iterable[str]) -> list[str]:
    """The keys in which two looks at one thing differ; ["existence"] where it came or went."""
    if before is None or found is None:
        return [] if before is found else ["existence"]
    keys = (before.keys() | found.keys()).difference(volatile)
    return sorted(key for key in keys if before.get(key) != found.get(key))
