"""The two halves of the worker's work: observe everything in one call, and bring one thing into its state.

A kind's module offers `observe(ask) -> dict | None` (or `observe_many(asks) -> {id: dict | None | Unknown}`, where one
observation answers for all), and `converge(call, ask, found, want, act)`. Observing never changes the node.
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Mapping
from queue import Empty, SimpleQueue
from typing import Any

from sparkops.core.messages import (
    UNKNOWN,
    ConvergeAnswer,
    ConvergeRequest,
    Observation,
    ObserveAnswer,
    ObserveRequest,
    reason_of,
)
from sparkops.worker.calls import Call, Refused, Unknown, kind

THREADS = 16
"""Observers that run at the same time."""


def observe(call: Call, args: ObserveRequest) -> ObserveAnswer:
    """Answers `{id: {"found": state or None} | {UNKNOWN: Reason}}` for `asks`: `[[id, kind, ask], …]`.

    Kinds are asked side by side; what has not answered after `limit` seconds is unknown, the rest is not held up.
    `machine` is the same for two names of one machine, "" where it can't be told.
    """
    limit = float(args.get("limit", 30.0))
    many: dict[str, dict[str, Mapping[str, object]]] = {}
    jobs: list[tuple[list[str], object]] = []
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
            jobs.append(([identity], lambda module=module, ask=ask, i=identity: {i: module.observe(ask)}))
    for name, asks in many.items():
        module = kind(name)
        jobs.append((list(asks), lambda module=module, asks=asks: module.observe_many(asks)))
    answers.update(_side_by_side(jobs, limit))
    return {"answers": answers, "machine": _machine(), "clock": time.time(), "monotonic": time.monotonic()}


def _machine() -> str:
    try:
        with open("/etc/machine-id", encoding="ascii", errors="replace") as file:
            return file.read(64).strip()
    except OSError:
        return ""


def _side_by_side(jobs: list[tuple[list[str], object]], limit: float) -> dict[str, Observation]:
    """Up to THREADS observers at a time; what has no answer after `limit` seconds is unknown.

    The threads are daemons, so that an observer that hangs does not delay the worker's exit.
    """
    pending: SimpleQueue[tuple[list[str], object]] = SimpleQueue()
    finished: SimpleQueue[dict[str, Observation]] = SimpleQueue()
    over = threading.Event()
    for job in jobs:
        pending.put(job)

    def work() -> None:
        with contextlib.suppress(Empty):
            while not over.is_set():
                finished.put(_guarded(*pending.get_nowait()))

    for _ in range(min(THREADS, len(jobs))):
        threading.Thread(target=work, daemon=True).start()
    late: Observation = {UNKNOWN: {"id": "observation-late", "args": {"seconds": limit}}}
    answers = {identity: late for ids, _ in jobs for identity in ids}
    deadline = time.monotonic() + limit
    with contextlib.suppress(Empty):
        for _ in jobs:
            answers.update(finished.get(timeout=max(0.0, deadline - time.monotonic())))
    over.set()
    return answers


def _guarded(ids: list[str], look: Any) -> dict[str, Observation]:
    try:
        found = look()
    except Exception as error:  # noqa: BLE001 - a defect of an observer makes its answer unknown, never the run's end
        return dict.fromkeys(ids, {UNKNOWN: reason_of(error)})
    return {
        identity: {UNKNOWN: each.reason} if isinstance(each, Unknown) else {"found": each}
        for identity, each in found.items()
    }


def look(name: str, identity: str, ask: Mapping[str, object]) -> Observation:
    """The observation of one resource, as `observe` gives it."""
    module = kind(name)
    if hasattr(module, "observe_many"):
        return _guarded([identity], lambda: module.observe_many({identity: ask}))[identity]
    return _guarded([identity], lambda: {identity: module.observe(ask)})[identity]


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
        module.converge(call, ask, found, args["want"], args.get("act") or {})
    after = look(name, identity, ask)
    return {UNKNOWN: after[UNKNOWN]} if UNKNOWN in after else {"found": after["found"]}


def differing(before: Any, found: Any, volatile: Iterable[str]) -> list[str]:
    """The keys in which two looks at one thing differ; ["existence"] where it came or went."""
    if before is None or found is None:
        return [] if before is found else ["existence"]
    keys = (before.keys() | found.keys()).difference(volatile)
    return sorted(key for key in keys if before.get(key) != found.get(key))
