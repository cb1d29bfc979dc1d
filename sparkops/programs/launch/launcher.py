"""The main process of a service's unit: runs the engine's container in the foreground, and tells systemd the truth.

    launcher.py SPEC            wait for memory, start the container, READY on the first real completion, then watch
    launcher.py --remove SPEC   what ExecStopPost calls: no container of this service is left

SPEC is the canonical JSON of a ServiceSpec (`sparkops/models/service_spec.py` describes its keys). The container
carries its digest (`digest_of`) as label `sparkops.spec`, and an HMAC of the secret environment by the node's key as
`sparkops.secret`. systemd's watchdog is fed only while tokens move or nothing is asked of the engine.

Standard library and Python 3.10 only: the modules of this folder are copied to the node as one file
(`sparkops/compile/launcher_file.py`). They must not know sparkops' worker.
Exit status: the container's own when it ends by itself; else one of those of systemd.py.
"""

import contextlib
import http.client
import json
import os
import signal
import sys
import threading
import time
import urllib.parse
from typing import Any

from sparkops.programs.checkpoints.proof import record_digest
from sparkops.programs.launch.api import Api, Asked, Question, TokenActivity
from sparkops.programs.launch.container_body import body_of, cache_folder, digest_of, image_content
from sparkops.programs.launch.docker import TICK, Container, Docker, trouble
from sparkops.programs.launch.group import ENGINE, HANG
from sparkops.programs.launch.hang import Progress, describe, dump_python_stacks, processes_of, report
from sparkops.programs.launch.listening import Listener, Unseen, listener_of, listening, owners
from sparkops.programs.launch.node import (
    MEMINFO,
    available,
    drop_caches,
    keep,
    keep_devices,
    mark,
    permanent_errors,
    secrets_of,
)
from sparkops.programs.launch.ranks import GroupEnded, Ranks
from sparkops.programs.launch.systemd import (
    ENGINE_UNAVAILABLE,
    HUNG,
    NO_COMPLETION,
    NO_MEMORY,
    START_REFUSED,
    STOOD_STILL,
    WRONG_SPEC,
    Failed,
    Systemd,
    say,
    take_signals,
)

GIB = 1 << 30
STAMP = ".served"
START_FILE = "last-start.json"
TOKEN_FILE = "last-token.json"
HANG_FILE = "last-hang.txt"
PERMANENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "permanent-errors.json")
PORT_SECONDS = 5.0
"""For a process that may be ending to let go of the port."""
DUMP_SECONDS = 5.0
"""For the engine to write its stacks."""
LOST_SECONDS = 5.0
"""From SIGTERM to SIGKILL for an engine that has lost its other ranks: it waits for them, and would not end."""
KEPT_BACK = GIB
"""Bytes of memory that may be missing after an engine's end without a word."""


class Launcher:
    """One run, from the spec to the exit status."""

    def __init__(self, path: str, environ: dict[str, str], docker: Docker) -> None:
        with open(path, encoding="utf-8") as file:
            self.spec: dict[str, Any] = json.load(file)
        self.systemd = Systemd(environ)
        self.docker = docker
        self.digest = digest_of(self.spec)
        self.container = self._container()
        self.stopping = threading.Event()
        self.asked, self.free, self.hung = 0.0, 0, False
        self.secret, self.label = secrets_of(self.spec)
        self.api: Api | None = None
        self.listener: Listener | None = None
        self.headless = "--headless" in self.spec["argv"]
        self.ranks = Ranks(self.spec, self.systemd, self._cut) if self.spec.get("group") else None

    def on_signal(self, number: int) -> None:
        """SIGABRT is systemd's watchdog, the others ask for a stop; either ends a request that is under way."""
        if number == signal.SIGABRT:
            self.hung = True
            if self.ranks is not None:  # it feeds the watchdog whatever the engine does; and systemd ends it now
                self.ranks.leave(ENGINE, STOOD_STILL)
        elif not self.stopping.is_set():
            self.asked = time.monotonic()
            self.stopping.set()
            if self.ranks is not None:
                self.ranks.leave()
        self._cut()

    def _cut(self) -> None:
        if self.api is not None:
            self.api.cut()

    def _container(self) -> Container:
        return Container(self.docker, self.spec, self.digest, permanent_errors(PERMANENT))

    def run(self) -> int:
        """Returns the exit status of an asked-for stop; raises Failed for every other end.

        A rank of several goes on where a single engine ends: it waits for the others and starts together with them.
        """
        if self.ranks is not None:
            self.ranks.start()
        while True:
            try:
                return self._once()
            except Failed as error:
                if self.stopping.is_set() or self.ranks is None or not self.ranks.ended(error):
                    raise
            self.container = self._container()

    def _once(self) -> int:
        """One container, from the wait for what it needs to its end."""
        limits, timeouts = self.spec["limits"], self.spec["timeouts"]
        self.systemd.phase("waiting for Docker")
        self.docker.wait_for(timeouts["docker_seconds"], self.stopping)
        self.container.remove_stale(timeouts["stop_seconds"])
        image = self._image()
        if limits["memory_free_bytes"]:
            self._wait_for_memory(limits["memory_free_bytes"], timeouts["memory_seconds"])
        if not self.headless:
            self._wait_for_port()
        if self.ranks is not None:
            self._watch_memory(self.ranks)
            self.ranks.hold(self.stopping, self._stands_on)
            image = self._image()
        if self.stopping.is_set() or self.hung:
            return HUNG if self.hung else 0
        cache = cache_folder(self.spec, str(image["Id"]))
        if limits["drop_caches"]:
            drop_caches()
        self.container.start(body_of(self.spec, self.container.digest, self.secret, self.label, cache))
        try:
            self._meet()
            self._wait_for_completion(cache)
            if "--nnodes" in self.spec["argv"]:  # apart: a driver that hangs must not hold up the unit
                threading.Thread(target=keep_devices, args=(self.spec["kept"], self.container.id), daemon=True).start()
            self._watch()
            return self._stop()
        except GroupEnded as end:
            if self.ranks is not None and self.ranks.group.end.cause == HANG:
                self._keep_hang(str(end))
            self.container.stop(self.container.id, min(LOST_SECONDS, timeouts["stop_seconds"]))
            raise
        finally:
            with contextlib.suppress(OSError, http.client.HTTPException, Failed):
                self.container.remove(self.container.id)

    def _meet(self) -> None:
        """Learn where the container answers, and by which key."""
        host = "127.0.0.1" if self.spec["host"] in ("0.0.0.0", "::", "") else self.spec["host"]
        found = self.container.inspect(self.container.id) or {}
        self.listener = listener_of(found, self.spec["port"], host)
        key = {**self.spec["environment"], **self.secret}.get("VLLM_API_KEY", "")
        self.api = Api(self.listener, key, Question(self.spec["probe"]["model"] or "", self.spec["probe"]["prompt"]))

    def _stands_on(self) -> dict[str, str]:
        """What all ranks must have alike beside their declaration, by content."""
        found, manifest = self._image(), self.spec["manifest"]
        layers = list((found.get("RootFS") or {}).get("Layers") or [])
        checkpoint = "" if manifest is None else record_digest(self.spec["mounts"][0]["source"])
        return {"image": image_content(layers, found.get("Config") or {}), "checkpoint": checkpoint}

    def _image(self) -> dict[str, Any]:
        reference = self.spec["image"]
        status, told = self.docker.ask("GET", f"/images/{urllib.parse.quote(reference, safe='/:@')}/json")
        if status == 404:
            raise Failed(ENGINE_UNAVAILABLE, f"the image {reference} is not on this node; sparkops apply brings it")
        if status != 200:
            raise Failed(ENGINE_UNAVAILABLE, f"Docker answered {status} for the image {reference}")
        return dict(told)

    def _wait_for_memory(self, needed: int, seconds: float) -> None:
        """Until MemAvailable is `needed` bytes: memory of a killed engine comes back slowly."""
        deadline = time.monotonic() + seconds
        while (free := available(MEMINFO)) < needed and not self.stopping.is_set():
            told = f"{free / GIB:.1f} of {needed / GIB:.1f} GiB of memory are available"
            if time.monotonic() > deadline:
                raise Failed(NO_MEMORY, f"after {seconds:g} s only {told}")
            self.systemd.phase(f"waiting for memory: {told}")
            self.stopping.wait(TICK)

    def _watch_memory(self, ranks: Ranks) -> None:
        """Before the first container note what memory is available; after each one wait for it to come back."""
        self.free = self.free or available(MEMINFO)
        deadline = time.monotonic() + self.spec["timeouts"]["memory_seconds"]
        while (missing := self.free - available(MEMINFO)) > KEPT_BACK and not self.stopping.is_set():
            if time.monotonic() > deadline:
                break
            self.systemd.phase(f"waiting for {missing / GIB:.1f} GiB of memory that the last engine had")
            self.stopping.wait(TICK)
        told = f"{missing / GIB:.1f} GiB less memory is available than before the first engine; a reboot may be needed"
        ranks.memory = told if missing > KEPT_BACK else ""
        if ranks.memory:
            say(ranks.memory)

    def _wait_for_port(self) -> None:
        """Until nobody listens on the port: a foreign process there would answer in the engine's place."""
        started = time.monotonic()
        while not self.stopping.is_set():
            try:
                inodes = listening(self.spec["port"], self.spec["host"])
                there = [each for pair in owners(inodes).values() for each in pair]
                words, leaving = (there[0].words, self.container.leaves(there[0])) if there else ("", False)
            except Unseen as error:
                words, leaving = f"something ({error})", True
            if not words:
                return
            waits = self.spec["timeouts"]["stop_seconds"] + PORT_SECONDS if leaving else PORT_SECONDS
            if time.monotonic() - started > waits:
                remedy = "sparkops adopt takes over a container or unit; else stop it, or declare another port"
                what = f"the port {self.spec['port']} is taken by {words}; {remedy}"
                raise Failed(START_REFUSED if leaving else WRONG_SPEC, what)
            self.systemd.phase(f"waiting for the port {self.spec['port']}: it is taken by {words}")
            self.stopping.wait(TICK)

    def _wait_for_completion(self, cache: str) -> None:
        if self.headless or self.api is None or self.listener is None:
            self._wait_for_head()
            return
        timeouts = self.spec["timeouts"]
        stamp = os.path.join(cache, STAMP) if cache else ""
        first = not (stamp and os.path.exists(stamp))
        limit = timeouts["first_boot_seconds" if first else "cold_start_seconds"]
        started, listened = time.monotonic(), 0.0
        while not self.stopping.is_set():
            self._check_load()
            seconds = time.monotonic() - started
            line = self.container.last_line or "(nothing said yet)"
            self.systemd.phase(f"loading for {seconds:.0f} s of at most {limit:g}: {line}")
            asked = self.api.completion(self.spec["probe"]["seconds"])
            listened = listened or (time.monotonic() - started if self.listener.proven else 0.0)
            if not asked.why:
                break
            if asked.refused or time.monotonic() - started > limit:
                self._halt()
                raise self._unproven(asked, limit, line)
            self.container.ended.wait(TICK)
        else:
            return
        self._serving(stamp, listened, time.monotonic() - started)

    def _wait_for_head(self) -> None:
        """A rank that has no API serves once its head does; one that is no part of a group can't tell."""
        while self.ranks is not None and not self.ranks.head_serves and not self.stopping.is_set():
            self._check_load()
            self.systemd.phase(f"rank {self.spec['rank']} loads: {self.container.last_line or '(nothing said yet)'}")
            self.container.ended.wait(TICK)
        self._ready(f"rank {self.spec['rank']} of an engine whose head answers on another node")

    def _ready(self, status: str) -> None:
        self.systemd.status = status
        self.systemd.tell(READY=1, STATUS=status)
        if self.ranks is not None:
            self.ranks.served()

    def _check_load(self) -> None:
        """Raises Failed where the engine, or all ranks of it, have ended before they served."""
        if self.ranks is not None:
            self.ranks.check()
        if self.hung:
            raise Failed(HUNG, STOOD_STILL)
        if self.container.ended.is_set():
            raise self._end_of_load()

    def _unproven(self, asked: Asked, limit: float, line: str) -> Failed:
        if asked.refused:
            what = f"the engine listens and refuses the completion that would prove it: {asked.why}"
            return Failed(WRONG_SPEC, what)
        return Failed(NO_COMPLETION, f"no completion within {limit:g} s ({asked.why}); its last line: {line}")

    def _serving(self, stamp: str, listened: float, seconds: float) -> None:
        if stamp:
            mark(stamp)
        times = {"port_seconds": round(listened, 1), "token_seconds": round(seconds, 1), "at": round(time.time())}
        keep(self.spec["kept"], START_FILE, json.dumps(times))
        self._generated(time.time())
        say(f"the first completion came after {seconds:.0f} s")
        self._ready(f"serving on port {self.spec['port']}")

    def _generated(self, at: float) -> None:
        """Keep when the engine was last seen to generate a token, seconds since the epoch."""
        keep(self.spec["kept"], TOKEN_FILE, json.dumps({"at": round(at)}))

    def _end_of_load(self) -> Failed:
        """How the container ended before it answered; what would end alike again has a status that systemd minds."""
        end = self.container.verdict()
        if not self.container.refusal:
            return end
        return Failed(WRONG_SPEC, f"{end}; it would end alike again: {self.container.refusal.strip()}")

    def _watch(self) -> None:
        """Until a stop is asked for; feeds the watchdog. Raises Failed when the container ends or hangs.

        A headless rank has no API to ask: its head tells a hang of the engine, by what all ranks of its group see.
        """
        assert self.api is not None
        activity = TokenActivity(self.api, self.spec["probe"]["seconds"], self.systemd.watchdog)
        progress = Progress()
        serving, due, noted = self.systemd.status, 0.0, 0.0
        while not self.stopping.is_set():
            if self.ranks is not None:
                self.ranks.check()
            if self.container.ended.is_set():
                raise self.container.verdict()
            if self.hung:
                raise self._hung(activity.why or STOOD_STILL) if self.ranks is None else Failed(HUNG, STOOD_STILL)
            if self.systemd.watchdog and time.monotonic() >= due:
                alive = self.headless or activity.found()
                due = time.monotonic() + activity.interval
                if activity.generated != noted:  # also where the clock was set back meanwhile
                    noted = activity.generated
                    self._generated(noted)
                if self.ranks is not None:
                    self.ranks.looked(alive, activity.failures, *progress.look(self.container.id))
                elif alive:
                    self.systemd.tell(WATCHDOG=1)
                if not alive and activity.why and activity.why not in self.systemd.status:
                    say(f"no sign of life: {activity.why}")
                self.systemd.phase(f"no sign of life: {activity.why}" if activity.why else serving)
            self.stopping.wait(TICK)

    def _hung(self, why: str) -> Failed:
        """Keep what can be known of the engine, and end it."""
        path = self._keep_hang(why)
        self.container.stop(self.container.id, 0)
        return Failed(HUNG, f"the engine hung ({why})" + (f"; its stacks and last lines: {path}" if path else ""))

    def _keep_hang(self, why: str) -> str:
        """End the engine by a signal on which it writes its stacks; the path of what was kept, "" for none."""
        processes = processes_of(self.container.id)
        described = [describe(pid) for pid in processes]
        dump_python_stacks(processes)
        self.container.told.wait(DUMP_SECONDS)
        text = report(self.spec["name"], why, described, list(self.container.lines))
        return keep(self.spec["kept"], HANG_FILE, text)

    def _stop(self) -> int:
        self.systemd.tell(STOPPING=1)
        self.systemd.phase("stopping")
        say("asked to stop")
        self._halt()
        self.systemd.phase("stopped")
        return 0

    def _halt(self) -> None:
        """SIGTERM, and SIGKILL `stop_seconds` after the stop was asked for; an engine that loads ignores SIGTERM."""
        passed = time.monotonic() - self.asked if self.asked else 0.0
        self.container.stop(self.container.id, max(0.0, self.spec["timeouts"]["stop_seconds"] - passed))


def main(argv: list[str]) -> int:
    """Run or remove; prints why it ends."""
    remove = argv[:1] == ["--remove"]
    try:
        launcher = Launcher(argv[-1], dict(os.environ), Docker())
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        say(f"the spec can't be used: {type(error).__name__}: {error}")
        return WRONG_SPEC
    if not remove:
        take_signals(launcher.on_signal)
    try:
        if remove:
            launcher.docker.wait_for(10.0, launcher.stopping)
            launcher.container.remove_stale(0)
            return 0
        return launcher.run()
    except Failed as error:
        status, why = error.status, str(error)
    except (OSError, http.client.HTTPException) as error:
        status, why = ENGINE_UNAVAILABLE, trouble(error)
    say(why)
    launcher.systemd.phase(why)
    if launcher.ranks is not None and not remove:
        launcher.ranks.leave(ENGINE, why)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
