"""The engine over its socket, and the service's one container in it."""

import collections
import contextlib
import http.client
import json
import re
import socket
import struct
import sys
import threading
import time
import urllib.parse
from typing import Any

from sparkops.programs.launch.listening import Owner
from sparkops.programs.launch.systemd import ENGINE_ENDED, ENGINE_UNAVAILABLE, START_REFUSED, WRONG_SPEC, Failed, say

DOCKER = "/var/run/docker.sock"
KNOWN = (1, 48)
TICK = 1.0
LABEL = "sparkops.service"
KEPT_LINES = 400
KILLED = (137, 143)
"""Statuses of a container that ended by SIGKILL or SIGTERM: somebody else, or the kernel, ended it."""
GONE_SECONDS = 30.0
"""For a killed container to be gone, and for a removal."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("docker")
        self.path = path
        self.patience = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.patience)
        self.sock.connect(self.path)


class Docker:
    """The engine over its socket. Raises OSError or HTTPException where it does not answer."""

    def __init__(self, path: str = "") -> None:
        self.path = path or DOCKER
        self.prefix = ""

    def open(
        self, method: str, path: str, body: object = None, timeout: float | None = 60.0
    ) -> http.client.HTTPResponse:
        """The head of an answer; its body is still to be read."""
        link = _UnixConnection(self.path, timeout)
        data = None if body is None else json.dumps(body).encode()
        link.request(method, self.prefix + path, body=data, headers={"Content-Type": "application/json"})
        return link.getresponse()

    def ask(self, method: str, path: str, body: object = None, timeout: float | None = 60.0) -> tuple[int, Any]:
        """Status and JSON (None where there is none) of an answer."""
        answer = self.open(method, path, body, timeout)
        data = answer.read()
        try:
            return answer.status, json.loads(data) if data else None
        except ValueError:
            return answer.status, None

    def wait_for(self, seconds: float, stopping: threading.Event) -> None:
        """Until it answers; speaks the newest API version that both know. Raises Failed."""
        deadline = time.monotonic() + seconds
        while not stopping.is_set():
            try:
                status, told = self.ask("GET", "/version", timeout=10.0)
                if status == 200 and isinstance(told, dict):
                    newest, oldest = _version(told.get("ApiVersion")), _version(told.get("MinAPIVersion"))
                    major, minor = max(min(KNOWN, newest), oldest)
                    self.prefix = f"/v{major}.{minor}"
                    return
                why = f"it answered {status}"
            except (OSError, http.client.HTTPException) as error:
                why = str(error) or type(error).__name__
            if time.monotonic() > deadline:
                raise Failed(ENGINE_UNAVAILABLE, f"Docker does not answer at {self.path}: {why}")
            stopping.wait(TICK)


def _version(text: object) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)\.(\d+)", str(text))
    return (int(found[1]), int(found[2])) if found else KNOWN


class Container:
    """The service's one container. Its log goes to our standard output, its last lines into `lines`.

    It is known by its label and its id: a name can be changed while it runs. `refusal` is the first line that
    `permanent` finds: after it another start would end alike.
    """

    def __init__(
        self, docker: Docker, spec: dict[str, Any], digest: str, permanent: "re.Pattern[str] | None" = None
    ) -> None:
        self.permanent = permanent
        self.refusal = ""
        self.docker = docker
        self.spec = spec
        self.digest = digest
        self.name = spec["container"]
        self.lines: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
        self.ended = threading.Event()
        self.told = threading.Event()
        self.id = ""

    @property
    def last_line(self) -> str:
        return self.lines[-1] if self.lines else ""

    def inspect(self, name: str) -> dict[str, Any] | None:
        """A container by its id or name; None where there is none."""
        status, told = self.docker.ask("GET", f"/containers/{name}/json")
        if status == 404:
            return None
        if status != 200 or not isinstance(told, dict):
            raise Failed(ENGINE_UNAVAILABLE, f"Docker answered {status} for the container {name}")
        return told

    def remove_stale(self, grace: float) -> None:
        """Stop and remove what an earlier launcher left, whatever its name. Raises Failed for what is not ours."""
        filters = urllib.parse.quote(json.dumps({"label": [f"{LABEL}={self.spec['name']}"]}))
        status, told = self.docker.ask("GET", f"/containers/json?all=1&filters={filters}")
        if status != 200 or not isinstance(told, list):
            raise Failed(ENGINE_UNAVAILABLE, f"Docker answered {status} when asked for containers")
        for each in told:
            if each.get("State") in ("running", "paused", "restarting"):
                say(f"the container {each['Id'][:12]} still runs; it is stopped")
                self.stop(each["Id"], grace)
            self.remove(each["Id"])
        found = self.inspect(self.name)
        if found is not None and ((found.get("Config") or {}).get("Labels") or {}).get(LABEL) == self.spec["name"]:
            self.remove(found["Id"])  # asked for by an earlier launcher, and made since they were listed
        elif found is not None:
            what = f"a container named {self.name} exists that sparkops did not make; sparkops adopt moves it aside"
            raise Failed(WRONG_SPEC, what)

    def leaves(self, owner: "Owner") -> bool:
        """Whether what listens on the port may go by itself: a container that Docker has removed, or one of another
        service of sparkops, also where Docker listens for it."""
        if owner.container:
            found = self.inspect(owner.container)
            return found is None or LABEL in ((found.get("Config") or {}).get("Labels") or {})
        if not owner.dockers:
            return False
        filters = urllib.parse.quote(json.dumps({"publish": [f"{self.spec['port']}/tcp"], "label": [LABEL]}))
        status, told = self.docker.ask("GET", f"/containers/json?filters={filters}")
        return status == 200 and bool(told)

    def start(self, body: dict[str, object]) -> None:
        """Create and start it. Raises Failed with Docker's own words."""
        status, told = self.docker.ask("POST", f"/containers/create?name={self.name}", body)
        if status != 201:
            raise self._refused("create", status, told)
        self.id = told["Id"]
        status, told = self.docker.ask("POST", f"/containers/{self.id}/start", timeout=300.0)
        if status not in (204, 304):
            refused = self._refused("start", status, told)
            with contextlib.suppress(Failed):
                self.remove(self.id)
            raise refused
        for work in (self._follow_log, self._follow_end):
            threading.Thread(target=work, daemon=True).start()

    def _refused(self, verb: str, status: int, told: object) -> Failed:
        why = _message(status, told)
        for_good = self.permanent is not None and self.permanent.search(why)
        return Failed(WRONG_SPEC if for_good else START_REFUSED, f"Docker would not {verb} the container: {why}")

    def _follow_log(self) -> None:
        since, over = 0, False
        while not over:  # at least once: it may have ended before this thread was begun
            path = f"/containers/{self.id}/logs?follow=1&stdout=1&stderr=1&since={since}"
            with contextlib.suppress(OSError, http.client.HTTPException, struct.error):
                self._copy(self.docker.open("GET", path, timeout=None))
            since = int(time.time())
            over = self.ended.wait(TICK)
        self.told.set()

    def _copy(self, answer: http.client.HTTPResponse) -> None:
        """The log's frames (stream, size, bytes) to standard output."""
        while len(head := answer.read(8)) == 8:
            data = answer.read(struct.unpack(">4xI", head)[0])
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            lines = [line for line in data.decode(errors="replace").splitlines() if line.strip()]
            self.lines.extend(lines)
            if self.permanent is not None and not self.refusal:
                self.refusal = next((line for line in lines if self.permanent.search(line)), "")

    def _follow_end(self) -> None:
        """Sets `ended` when the container runs no more; a Docker that restarts is asked again."""
        while not self.ended.is_set():
            try:
                status, told = self.docker.ask("GET", f"/containers/{self.id}/json", timeout=30.0)
                gone = status == 404 or (status == 200 and not told["State"].get("Running"))
                if gone or self.docker.ask("POST", f"/containers/{self.id}/wait", timeout=None)[0] == 404:
                    self.ended.set()
            except (OSError, http.client.HTTPException, KeyError, TypeError):
                time.sleep(TICK)

    def stop(self, identity: str, grace: float) -> None:
        """SIGTERM, after `grace` seconds SIGKILL. Raises Failed for a container that outlives both."""
        self.docker.ask("POST", f"/containers/{identity}/stop?t={max(0, int(grace))}", timeout=grace + 60.0)
        deadline = time.monotonic() + GONE_SECONDS
        while self._runs(identity):
            if time.monotonic() > deadline:
                what = f"the container {identity[:12]} still runs {GONE_SECONDS:g} s after SIGKILL"
                raise Failed(ENGINE_UNAVAILABLE, what)
            self.docker.ask("POST", f"/containers/{identity}/kill")
            time.sleep(TICK)

    def _runs(self, identity: str) -> bool:
        found = self.inspect(identity)
        return found is not None and bool(found["State"].get("Running"))

    def remove(self, identity: str) -> None:
        """Remove it by force, and wait until it is gone: another removal may be under way (409). Raises Failed."""
        deadline = time.monotonic() + GONE_SECONDS
        self.docker.ask("DELETE", f"/containers/{identity}?force=1&v=1", timeout=120.0)
        while self.inspect(identity) is not None:
            if time.monotonic() > deadline:
                what = f"the container {identity[:12]} is still there {GONE_SECONDS:g} s after Docker was to remove it"
                raise Failed(ENGINE_UNAVAILABLE, what)
            time.sleep(TICK / 4)

    def verdict(self) -> Failed:
        """How it ended, in words, with its own status; after its last words. An end that nobody asked for is a failure.

        vLLM exits with 0 after its engine died of an exception. What was killed or removed did not end of a `refusal`.
        """
        self.told.wait(5.0)
        found = self.inspect(self.id)
        state = (found or {}).get("State") or {}
        code = int(state.get("ExitCode") or 0)
        if found is None or state.get("OOMKilled") or code in KILLED:
            self.refusal = ""
        if found is None:
            what = "the container was removed by somebody else, so how it ended is unknown"
            return Failed(ENGINE_ENDED, f"{what}; its last line: {self.last_line or '(none)'}")
        reason = f"the container ended with {code}"
        if state.get("OOMKilled"):
            reason = f"the container was killed because its memory limit was reached (OOMKilled, {code})"
        if state.get("Error"):
            reason += f": {state['Error']}"
        status = ENGINE_ENDED if code in (0, WRONG_SPEC) else code & 0xFF
        return Failed(status, f"{reason}; its last line: {self.last_line or '(none)'}")


def trouble(error: Exception) -> str:
    """What an exception says that is not ours: a file's has its name, a socket's has none."""
    told = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return f"Docker does not answer: {told}"


def _message(status: int, told: object) -> str:
    return str(told.get("message") or status) if isinstance(told, dict) else str(status)
