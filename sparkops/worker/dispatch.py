"""The two halves of the worker's work: observe everything in one call, and bring one thing into its state.

A kind's module offers `observe(ask) -> dict | None` (or `observe_many(asks) -> {id: dict | None | Unknown}`, where one
observation answers for all), and `converge(call, ask, found, want, act)`. Observing never changes the node.
"""

import errno
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from sparkops.core.messages import UNKNOWN, ConvergeAnswer, ConvergeRequest, Observation, ObserveAnswer, ObserveRequest
from sparkops.worker.calls import Call, Refused, Unknown, kind

THREADS = 16
SOON = 0.005
"""Seconds after which looking at what is left is worth more threads."""


def observe(call: Call, args: ObserveRequest) -> ObserveAnswer:
    """Answers `{id: {"found": state or None} | {UNKNOWN: why}}` for `asks`: `[[id, kind, ask], …]`.

    Kinds are asked side by side; what has not answered after `limit` seconds is unknown, the rest is not held up.
    `machine` is the same for two names of one machine, "" where it can't be told.
    """
    limit = float(args.get("limit", 30.0))
    many: dict[str, dict[str, Mapping[str, Any]]] = {}
    jobs: list[tuple[list[str], Any]] = []
    answers: dict[str, Observation] = {}
    for identity, name, ask in args["asks"]:
        try:
            module = kind(name)
        except Refused as error:
            answers[identity] = {UNKNOWN: str(error)}
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


def _side_by_side(jobs: list[tuple[list[str], Any]], limit: float) -> dict[str, Observation]:
    """Quick looks share one thread; while some take longer than SOON, twice as many look, up to THREADS."""
    answers: dict[str, Observation] = {}
    pending = list(reversed(jobs))
    undone = len(jobs)
    lock = threading.Lock()
    over = threading.Event()

    def work() -> None:
        nonlocal undone
        while True:
            with lock:
                if not pending:
                    return
                ids, look = pending.pop()
            found = _guarded(ids, look)
            with lock:
                answers.update(found)
                undone -= 1
                if undone == 0:
                    over.set()

    deadline = time.monotonic() + limit
    working = 0
    while undone and time.monotonic() < deadline:
        more = min(max(1, working), THREADS - working, len(pending))
        for _ in range(more):
            threading.Thread(target=work, daemon=True).start()
        working += more
        left = max(0.0, deadline - time.monotonic())
        over.wait(min(SOON, left) if pending and working < THREADS else left)
    with lock:
        pending.clear()
        known = dict(answers)
    late: Observation = {UNKNOWN: f"no answer within {limit:g} s"}
    return {identity: known.get(identity, late) for ids, _ in jobs for identity in ids}


def _guarded(ids: list[str], look: Any) -> dict[str, Observation]:
    try:
        found = look()
    except Unknown as error:
        return dict.fromkeys(ids, {UNKNOWN: str(error)})
    except OSError as error:
        return dict.fromkeys(ids, {UNKNOWN: words(error)})
    except Exception as error:  # noqa: BLE001 - a defect of an observer makes its answer unknown, never the run's end
        return dict.fromkeys(ids, {UNKNOWN: "a defect of sparkops: " + place(error)})
    return {
        identity: {UNKNOWN: str(each)} if isinstance(each, Unknown) else {"found": each}
        for identity, each in found.items()
    }


def look(name: str, identity: str, ask: Mapping[str, Any]) -> Observation:
    """The observation of one resource, as `observe` gives it."""
    module = kind(name)
    if hasattr(module, "observe_many"):
        return _guarded([identity], lambda: module.observe_many({identity: ask}))[identity]
    return _guarded([identity], lambda: {identity: module.observe(ask)})[identity]


def converge(call: Call, args: ConvergeRequest) -> ConvergeAnswer:
    """Act on one resource: observe it, do nothing if it is not as `before` says, claim, act, observe it again.

    Answers the last observation; with the keys that have `changed` since `before` where nothing was done.
    """
    from sparkops.worker.record import claims  # acts only: a look does not pay for it

    name, identity, ask = args["kind"], args["id"], args["ask"]
    module = kind(name)
    now = look(name, identity, ask)
    if UNKNOWN in now:
        raise Refused(f"not touched, because its state is unknown: {now[UNKNOWN]}", "unknown")
    found = now["found"]
    changed = differing(args["before"], found, args.get("volatile", ()))
    if changed:
        return {"found": found, "changed": changed}
    with claims.acting(args.get("claim"), identity, args["action"]):
        module.converge(call, ask, found, args["want"], args.get("act") or {})
    after = look(name, identity, ask)
    return {UNKNOWN: after[UNKNOWN]} if UNKNOWN in after else {"found": after["found"]}


def differing(before: Any, found: Any, volatile: Iterable[str]) -> list[str]:
    """The keys in which two looks at one thing differ; ["existence"] where it came or went."""
    if before is None or found is None:
        return [] if before is found else ["existence"]
    keys = (before.keys() | found.keys()).difference(volatile)
    return sorted(key for key in keys if before.get(key) != found.get(key))


def words(error: OSError) -> str:
    """An operating system's error for a person: `/etc/x: Permission denied`."""
    text = error.strerror or str(error)
    return f"{error.filename}: {text}" if error.filename else text


def way_out(number: int | None, path: str) -> str:
    """What a person can do about an operating system's error at `path`; "" where that is not known."""
    return {
        errno.EROFS: "look at `dmesg` for disk errors, then `mount -o remount,rw` it",
        errno.ENOSPC: f"free some; see `df -h {path}`",
        errno.EDQUOT: "raise it, or free some space",
        errno.EACCES: "set `connection: {become: true}` for this node",
    }.get(number or 0, "")


def place(error: BaseException) -> str:
    """A defect with the line that it came from."""
    import traceback  # only for defects: it takes longer to load than a look at ten files

    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{at}"
