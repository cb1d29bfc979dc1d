"""Node jobs: long steps (fetch, pull, build) in a process of their own, so that they outlive the session.

A job is a `setsid` child that calls `FUNCTION(job=…, **args)` of a module. Its folder under RUN has `job.json` (its
description), `lock` (the child holds a flock on it as long as it lives), `progress.json` and at the end `result.json`,
an answer of `core.messages`. A session follows a job or attaches to a running one; `cancel` ends it.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from sparkops.core import atomic, frames
from sparkops.core.descriptors import closing, names
from sparkops.core.messages import Refused, answer
from sparkops.programs import bundle
from sparkops.programs.progress import Reporter
from sparkops.programs.runner import boot
from sparkops.worker.calls import Call

OWN = os.environ.get("XDG_RUNTIME_DIR") or os.path.expanduser("~/.cache")
RUN = os.path.join("/run" if os.geteuid() == 0 else OWN, "sparkops", "jobs")
"""Where the jobs' folders are: root's own place, or the user's."""
POLL = 0.2
BEGINNING = 10
"""Tries to begin a job, each waiting for its lock for a moment."""
REPLACING = 15.0
"""Seconds for a job to end that another one takes the place of."""


class Job(Reporter):
    """What a job's function gets: reports progress, and is told when to stop."""

    def __init__(self, folder: str) -> None:
        super().__init__(self._write)
        self.folder = folder
        self.always: dict[str, object] = {}
        """What each progress tells besides, such as the port of a server."""

    def _write(self, state: dict[str, object]) -> None:
        try:
            _note(self.folder, "progress.json", {**state, **self.always})
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise  # a full /run only hides how far the work is

    def beside(self, key: str) -> str:
        """The folder of another key's job."""
        return os.path.join(os.path.dirname(self.folder), os.path.basename(folder_of(key)))


def folder_of(key: str) -> str:
    """The folder of the job of this key (`checkpoint /models/x`)."""
    return os.path.join(RUN, hashlib.sha256(key.encode()).hexdigest()[:16])


def run(
    call: Call, key: str, module: str, function: str, args: Mapping[str, object], attach: str = "", source: str = ""
) -> Any:
    """Start the job of `key`, or attach to it where it runs already, and follow it to its result.

    Callers that want different work under one key pass different `attach` words; a running job of another word is
    refused. One of the same work out of another `source` is ended, and what it has brought is gone on with. Raises
    Refused with the job's own reason, or `job-busy`.
    """
    return follow(call, begin(key, module, function, args, attach, source), attach)


def begin(key: str, module: str, function: str, args: Mapping[str, object], attach: str = "", source: str = "") -> str:
    """`run` without following; returns the job's folder. Raises Refused `job-busy`."""
    folder = folder_of(key)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    description = {"key": key, "module": module, "function": function, "attach": attach, "source": source}
    for _ in range(BEGINNING):
        running = _read(folder, "job.json") if alive(folder) else {}
        if running and running.get("attach") != attach:
            raise Refused.of("job-busy", type="busy", key=key)
        if running and source and running.get("source") not in ("", source):
            _replace(folder, key)
            running = {}
        if running:
            return folder
        with contextlib.suppress(BlockingIOError):  # somebody else begins or ends it at this moment
            _start(folder, description, args)
            return folder
    raise Refused.of("job-busy", type="busy", key=key)


def _replace(folder: str, key: str) -> None:
    """End a job, so that another can take its place. Raises Refused `job-busy` where it does not end."""
    cancel_folder(folder)
    deadline = time.monotonic() + REPLACING
    while alive(folder):
        if time.monotonic() > deadline:
            raise Refused.of("job-busy", type="busy", key=key)
        time.sleep(POLL / 4)


def attachable(key: str, attach: str) -> bool:
    """Whether the job of this key and word runs."""
    folder = folder_of(key)
    return alive(folder) and _read(folder, "job.json").get("attach") == attach


def last_progress(folder: str) -> dict[str, Any]:
    return _read(folder, "progress.json")


def failure(folder: str) -> dict[str, object] | None:
    """The error (`messages.ErrorMessage`) of a job that is over; None where it did not fail, or never ran."""
    error = _read(folder, "result.json").get("error")
    return error if isinstance(error, dict) else None


def follow(call: Call, folder: str, attach: str) -> object:
    """Pass the progress of the job of this word on until it ends; a session that goes away leaves the job running.

    Raises Refused with the job's own reason, or `job-busy` where other work has taken its place before its result was
    read.
    """
    last: object = None
    while True:
        over = not alive(folder)
        if (job := _read(folder, "job.json")) and job.get("attach") != attach:
            raise Refused.of("job-busy", type="busy", key=job.get("key", ""))
        state = _read(folder, "progress.json")
        if state and state != last:
            last = state
            call.progress(**state)
        if over and not (alive(folder) and not _read(folder, "result.json")):  # else it was begun anew just now
            return outcome(folder)
        stopping = call.stopping.wait(POLL)
        if call.session_over.is_set():
            raise Refused.of("session-over", type="gone")
        if stopping:
            cancel_folder(folder)
            raise Refused.of("cancelled", type="cancelled")


def alive(folder: str) -> bool:
    """Whether the job's process holds its lock."""
    try:
        handle = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _start(folder: str, description: Mapping[str, object], args: Mapping[str, object]) -> None:
    with closing(os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o600)) as handle:
        _lock(handle)
        for name in ("job.json", "progress.json", "result.json"):
            atomic.remove(os.path.join(folder, name))
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until the child can hear it
        try:
            with open(os.open(os.path.join(folder, "log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
                child = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", boot("sparkops-job")],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=[handle],
                    cwd="/",
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _note(folder, "job.json", {**description, "pid": child.pid, "since": time.time()})
        program = bundle.program("sparkops.worker.system.jobs", "main")
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError), child.stdin as stdin:  # one that was killed already has no outcome
            stdin.write(b"%d\n" % len(program) + program)
            stdin.write(frames.encode({"folder": folder, **description, "args": args}))
        threading.Thread(target=child.wait, daemon=True).start()


def _lock(handle: int) -> None:
    """Take the job's lock; who just looks whether it is alive holds it for a moment too. Raises BlockingIOError."""
    for _ in range(20):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.02)
    return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def main() -> None:
    """The child's side: read what to do, do it, leave the result."""
    order = frames.read(sys.stdin.buffer)
    if order is None:
        return
    job = Job(order["folder"])
    signal.signal(signal.SIGTERM, lambda *_: job.stopping.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o022)
    result = answer(lambda: getattr(import_module(order["module"]), order["function"])(job=job, **order["args"]))
    _note(job.folder, "result.json", result)
    os._exit(0)


def outcome(folder: str) -> object:
    """The result of a job that is over. Raises Refused with its reason."""
    result = _read(folder, "result.json")
    if not result:
        with open(os.path.join(folder, "log"), errors="replace", encoding="utf-8") as file:
            log = file.read()[-4000:]
        key, text = _read(folder, "job.json").get("key", ""), last_progress(folder).get("text")
        raise Refused.of("job-killed", key=key, last=str(text or "no progress was reported"), detail=log)
    if "error" in result:
        raise Refused.from_json(result["error"])
    return result["result"]


def _note(folder: str, name: str, value: Mapping[str, object]) -> None:
    atomic.write(os.path.join(folder, name), json.dumps(value).encode(), 0o600)


def _read(folder: str, name: str) -> dict[str, Any]:
    return atomic.mapping(os.path.join(folder, name))


def running() -> list[dict[str, object]]:
    """The jobs that run on this node: their descriptions with the latest progress."""
    found = []
    for entry in names(RUN):
        folder = os.path.join(RUN, entry)
        if alive(folder) and (job := _read(folder, "job.json")):
            found.append({**job, "progress": _read(folder, "progress.json") or None})
    return found


def cancel_folder(folder: str) -> bool:
    """Ask a job to stop: SIGTERM to its process group; True where one was running."""
    job = _read(folder, "job.json") if alive(folder) else {}
    if not job:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(job["pid"], signal.SIGTERM)
    return True
