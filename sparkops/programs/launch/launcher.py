"""The main process of a service's unit: runs the engine's container in the foreground, and tells systemd the truth.

    launcher.py SPEC            wait for memory, start the container, READY on the first real completion, then watch
    launcher.py --remove SPEC   what ExecStopPost calls: no container of this service is left

SPEC is the canonical JSON of a ServiceSpec (`sparkops/models/service_spec.py` describes its keys). The container
carries the SHA-256 of that file as label `sparkops.spec`, and an HMAC of the secret environment by the node's key as
`sparkops.secret`. systemd's watchdog is fed only while tokens move or nothing is asked of the engine.

Standard library and Python 3.10 only: the modules of this folder are copied to the node as one file
(`sparkops/compile/launcher_file.py`). They must not know sparkops' worker.

Exit status: the container's own when it ends by itself; else one of the constants below.
"""

import hashlib
import http.client
import json
import os
import signal
import sys
import threading
import time
import urllib.parse
from typing import Any

from sparkops.programs.launch.api import Api, TokenActivity
from sparkops.programs.launch.container_body import body_of, cache_folder
from sparkops.programs.launch.docker import TICK, Container, Docker
from sparkops.programs.launch.ending import ENGINE_UNAVAILABLE, NO_COMPLETION, NO_MEMORY, WRONG_SPEC, Failed, say
from sparkops.programs.launch.node import MEMINFO, PERMANENT, available, drop_caches, permanent_errors, secrets_of
from sparkops.programs.launch.systemd import Systemd

GIB = 1 << 30
STAMP = ".served"


class Launcher:
    """One run, from the spec to the exit status."""

    def __init__(self, path: str, environ: dict[str, str], docker: Docker) -> None:
        with open(path, "rb") as file:
            data = file.read()
        self.spec: dict[str, Any] = json.loads(data)
        self.systemd = Systemd(environ)
        self.docker = docker
        self.container = Container(docker, self.spec, hashlib.sha256(data).hexdigest(), permanent_errors(PERMANENT))
        self.stopping = threading.Event()
        self.secret, self.label = secrets_of(self.spec)
        self.api = Api(self.spec, self.secret)
        self.headless = "--headless" in self.spec["argv"]

    def run(self) -> int:
        """Returns the exit status of an asked-for stop; raises Failed for every other end."""
        limits, timeouts = self.spec["limits"], self.spec["timeouts"]
        self.systemd.phase("waiting for Docker")
        self.docker.wait_for(timeouts["docker_seconds"], self.stopping)
        self.container.remove_stale(timeouts["stop_seconds"])
        cache = cache_folder(self.spec, self._image())
        if limits["memory_free_bytes"]:
            self._wait_for_memory(limits["memory_free_bytes"], timeouts["memory_seconds"])
        if self.stopping.is_set():
            return 0
        if limits["drop_caches"]:
            drop_caches()
        self.container.start(body_of(self.spec, self.container.digest, self.secret, self.label, cache))
        try:
            self._wait_for_completion(cache)
            self._watch()
            return self._stop()
        finally:
            self.container.remove()

    def _image(self) -> str:
        reference = self.spec["image"]
        status, told = self.docker.ask("GET", f"/images/{urllib.parse.quote(reference, safe='/:@')}/json")
        if status == 404:
            raise Failed(ENGINE_UNAVAILABLE, f"the image {reference} is not on this node; sparkops apply brings it")
        if status != 200:
            raise Failed(ENGINE_UNAVAILABLE, f"Docker answered {status} for the image {reference}")
        return str(told["Id"])

    def _wait_for_memory(self, needed: int, seconds: float) -> None:
        """Until MemAvailable is `needed` bytes: memory of a killed engine comes back slowly."""
        deadline = time.monotonic() + seconds
        while (free := available(MEMINFO)) < needed and not self.stopping.is_set():
            told = f"{free / GIB:.1f} of {needed / GIB:.1f} GiB of memory are available"
            if time.monotonic() > deadline:
                raise Failed(NO_MEMORY, f"after {seconds:g} s only {told}")
            self.systemd.phase(f"waiting for memory: {told}")
            self.stopping.wait(TICK)

    def _wait_for_completion(self, cache: str) -> None:
        if self.headless:
            self.systemd.status = f"rank {self.spec['rank']} of an engine whose head answers on another node"
            self.systemd.tell(READY=1, STATUS=self.systemd.status)
            return
        timeouts = self.spec["timeouts"]
        stamp = os.path.join(cache, STAMP) if cache else ""
        first = not (stamp and os.path.exists(stamp))
        limit = timeouts["first_boot_seconds" if first else "cold_start_seconds"]
        started = time.monotonic()
        while not self.stopping.is_set():
            if self.container.ended.is_set():
                raise self._end_of_load()
            seconds = time.monotonic() - started
            line = self.container.last_line or "(nothing said yet)"
            self.systemd.phase(f"loading for {seconds:.0f} s of at most {limit:g}: {line}")
            why = self.api.completion(self.spec["probe"]["seconds"])
            if not why:
                break
            if time.monotonic() - started > limit:
                self._halt()
                raise Failed(NO_COMPLETION, f"no completion within {limit:g} s ({why}); its last line: {line}")
            self.container.ended.wait(TICK)
        else:
            return
        if stamp:
            with open(stamp, "w", encoding="utf-8"):
                pass
        say(f"the first completion came after {time.monotonic() - started:.0f} s")
        self.systemd.status = f"serving on port {self.spec['port']}"
        self.systemd.tell(READY=1, STATUS=self.systemd.status)

    def _end_of_load(self) -> Failed:
        """How the container ended before it answered; what would end alike again has a status that systemd minds."""
        end = self.container.verdict()
        if not self.container.refusal:
            return end
        return Failed(WRONG_SPEC, f"{end}; it would end alike again: {self.container.refusal.strip()}")

    def _watch(self) -> None:
        """Until a stop is asked for; feeds the watchdog. Raises Failed when the container ends.

        A headless rank has no API to ask, so nothing but its end is seen here; its head tells a hang of the engine.
        """
        interval = max(TICK, self.systemd.watchdog / 6)
        activity = TokenActivity(self.api, interval)
        serving = self.systemd.status
        due = 0.0
        while not self.stopping.is_set():
            if self.container.ended.is_set():
                raise self.container.verdict()
            if self.systemd.watchdog and time.monotonic() >= due:
                alive = self.headless or activity.found()
                due = time.monotonic() + interval
                if alive:
                    self.systemd.tell(WATCHDOG=1)
                elif activity.why not in self.systemd.status:
                    say(f"no sign of life: {activity.why}")
                self.systemd.phase(serving if alive else f"no sign of life: {activity.why}")
            self.stopping.wait(TICK / 4)

    def _stop(self) -> int:
        self.systemd.tell(STOPPING=1)
        self.systemd.phase("stopping")
        say("asked to stop")
        self._halt()
        return 0

    def _halt(self) -> None:
        self.container.stop(self.spec["timeouts"]["stop_seconds"])
        self.container.ended.wait(10.0)


def main(argv: list[str]) -> int:
    """Run or remove; prints why it ends."""
    remove = argv[:1] == ["--remove"]
    try:
        launcher = Launcher(argv[-1], dict(os.environ), Docker())
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        say(f"the spec can't be used: {type(error).__name__}: {error}")
        return WRONG_SPEC
    if not remove:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: launcher.stopping.set())
    try:
        if remove:
            launcher.docker.wait_for(10.0, launcher.stopping)
            launcher.container.remove_stale(0)
            return 0
        return launcher.run()
    except Failed as error:
        status, why = error.status, str(error)
    except (OSError, http.client.HTTPException) as error:
        status, why = ENGINE_UNAVAILABLE, f"Docker does not answer: {error or type(error).__name__}"
    say(why)
    launcher.systemd.phase(why)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
