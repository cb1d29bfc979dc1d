"""The engine over its socket, and the service's one container in it."""

import contextlib
import http.client
import json
import re
import socket
import struct
import sys
import threading
import time
from typing import Any

from sparkops.programs.launch.ending import ENGINE_UNAVAILABLE, START_REFUSED, WRONG_SPEC, Failed, say

DOCKER = "/var/run/docker.sock"
KNOWN = (1, 48)
TICK = 1.0
LABEL = "sparkops.service"


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

    def open(self, method: str, path: str, body: Any = None, timeout: float | None = 60.0) -> http.client.HTTPResponse:
        """The head of an answer; its body is still to be read."""
        link = _UnixConnection(self.path, timeout)
        data = None if body is None else json.dumps(body).encode()
        link.request(method, self.prefix + path, body=data, headers={"Content-Type": "application/json"})
        return link.getresponse()

    def ask(self, method: str, path: str, body: Any = None, timeout: float | None = 60.0) -> tuple[int, Any]:
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
    """The service's one container. Its log goes to our standard output, its last line into `last_line`.

    `refusal` is the first line that `permanent` finds: after it another start would end alike.
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
        self.last_line = ""
        self.ended = threading.Event()
        self.told = threading.Event()
        self.id = ""

    def inspect(self) -> dict[str, Any] | None:
        status, told = self.docker.ask("GET", f"/containers/{self.name}/json")
        if status == 404:
            return None
        if status != 200 or not isinstance(told, dict):
            raise Failed(ENGINE_UNAVAILABLE, f"Docker answered {status} for the container {self.name}")
        return told

    def remove_stale(self, grace: float) -> None:
        """Stop and remove what an earlier launcher left. Raises Failed for a container that is not ours."""
        found = self.inspect()
        if found is None:
            return
        labels = (found.get("Config") or {}).get("Labels") or {}
        if labels.get(LABEL) != self.spec["name"]:
            raise Failed(
                WRONG_SPEC,
                f"a container named {self.name} exists that sparkops did not make; sparkops adopt moves it aside",
            )
        if (found.get("State") or {}).get("Running"):
            say(f"a container {self.name} still runs; it is stopped")
            self.stop(grace)
        self.docker.ask("DELETE", f"/containers/{self.name}?force=1&v=1", timeout=120.0)

    def start(self, body: dict[str, Any]) -> None:
        """Create and start it. Raises Failed with Docker's own words."""
        status, told = self.docker.ask("POST", f"/containers/create?name={self.name}", body)
        if status != 201:
            raise Failed(START_REFUSED, f"Docker would not create the container: {_message(status, told)}")
        self.id = told["Id"]
        status, told = self.docker.ask("POST", f"/containers/{self.id}/start", timeout=300.0)
        if status not in (204, 304):
            raise Failed(START_REFUSED, f"Docker would not start the container: {_message(status, told)}")
        for work in (self._follow_log, self._follow_end):
            threading.Thread(target=work, daemon=True).start()

    def _follow_log(self) -> None:
        since = 0
        while not self.ended.is_set():
            path = f"/containers/{self.id}/logs?follow=1&stdout=1&stderr=1&since={since}"
            with contextlib.suppress(OSError, http.client.HTTPException, struct.error):
                self._copy(self.docker.open("GET", path, timeout=None))
            since = int(time.time())
            self.ended.wait(TICK)
        self.told.set()

    def _copy(self, answer: http.client.HTTPResponse) -> None:
        """The log's frames (stream, size, bytes) to standard output."""
        while len(head := answer.read(8)) == 8:
            data = answer.read(struct.unpack(">4xI", head)[0])
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            lines = [line for line in data.decode(errors="replace").splitlines() if line.strip()]
            self.last_line = lines[-1] if lines else self.last_line
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

    def stop(self, grace: float) -> None:
        """SIGTERM, after `grace` seconds SIGKILL."""
        path = f"/containers/{self.name}/stop?t={int(grace)}"
        self.docker.ask("POST", path, timeout=grace + 60.0)

    def remove(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.docker.ask("DELETE", f"/containers/{self.name}?force=1&v=1", timeout=120.0)

    def verdict(self) -> Failed:
        """How it ended, in words, with its own status; after its last words."""
        self.told.wait(5.0)
        found = self.inspect() or {}
        state = found.get("State") or {}
        code = int(state.get("ExitCode") or 0)
        reason = f"the container ended with {code}"
        if state.get("OOMKilled"):
            reason = f"the container was killed because its memory limit was reached (OOMKilled, {code})"
        if state.get("Error"):
            reason += f": {state['Error']}"
        return Failed(code & 0xFF, f"{reason}; its last line: {self.last_line or '(none)'}")


def _message(status: int, told: Any) -> str:
    return str(told.get("message") or status) if isinstance(told, dict) else str(status)
