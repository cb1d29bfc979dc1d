"""The main process of a service's unit: runs the engine's container in the foreground, and tells systemd the truth.

    launcher.py SPEC            wait for memory, start the container, READY on the first real completion, then watch
    launcher.py --remove SPEC   what ExecStopPost calls: no container of this service is left

SPEC is the canonical JSON of a ServiceSpec (`sparkops/models/service_spec.py` describes its keys). The container
carries the SHA-256 of that file as label `sparkops.spec`, and an HMAC of the secret environment by the node's key as
`sparkops.secret`. systemd's watchdog is fed only while tokens move or nothing is asked of the engine.

Standard library and Python 3.10 only: this one file is copied to the node. It must not know sparkops' worker.

Exit status: the container's own when it ends by itself; else one of the constants below.
"""

import contextlib
import hashlib
import hmac
import http.client
import json
import os
import re
import signal
import socket
import struct
import sys
import threading
import time
import urllib.parse
from typing import Any

ENGINE_UNAVAILABLE = 69  # EX_UNAVAILABLE: Docker does not answer, or the image is not on the node
LAUNCHER_DEFECT = 70  # EX_SOFTWARE
START_REFUSED = 71  # EX_OSERR: Docker would not create or start the container
NO_COMPLETION = 74  # EX_IOERR: the engine ran and never answered
NO_MEMORY = 75  # EX_TEMPFAIL: too little memory became free
WRONG_SPEC = 78  # EX_CONFIG: the spec can't be read, the engine refuses it, or a foreign container has the name

DOCKER = "/var/run/docker.sock"
MEMINFO = "/proc/meminfo"
PERMANENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "permanent-errors.json")
KNOWN = (1, 48)
TICK = 1.0
GIB = 1 << 30
LABEL = "sparkops.service"
ROUTES = ("/v1/completions", "/v1/chat/completions")


class Failed(Exception):
    """An end with a reason: `status` is the exit status."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


class Systemd:
    """sd_notify(3) without libsystemd."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.address = environ.get("NOTIFY_SOCKET", "")
        self.watchdog = int(environ.get("WATCHDOG_USEC") or 0) / 1e6
        self.status = ""

    def tell(self, **fields: object) -> None:
        """Send these fields; where nobody listens, nothing happens."""
        if not self.address:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        text = "\n".join(f"{key}={value}" for key, value in fields.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.sendto(text.encode(), address)

    def phase(self, text: str) -> None:
        """The status line, sent when it differs; a single line."""
        text = " ".join(text.split())[:400]
        if text != self.status:
            self.status = text
            self.tell(STATUS=text)


def say(text: str) -> None:
    """A line of ours in the journal, told apart from the engine's."""
    print(f"sparkops: {text}", flush=True)


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


def body_of(spec: dict[str, Any], digest: str, secret: dict[str, str], label: str, cache: str) -> dict[str, Any]:
    """What POST /containers/create takes. `cache` is a folder of the node, or "" for none."""
    limits, port = spec["limits"], f"{spec['port']}/tcp"
    environment = {**(CACHES if cache else {}), **spec["environment"], **secret}
    mounts = [
        {"Type": "bind", "Source": each["source"], "Target": each["target"], "ReadOnly": each["read_only"]}
        for each in spec["mounts"]
    ]
    if cache:
        mounts.append({"Type": "bind", "Source": cache, "Target": CACHE_TARGET, "ReadOnly": False})
    host: dict[str, Any] = {
        "Init": True,
        "NetworkMode": spec["network"],
        "Mounts": mounts,
        "CapAdd": spec["cap_add"],
        "Devices": [{"PathOnHost": d, "PathInContainer": d, "CgroupPermissions": "rwm"} for d in spec["devices"]],
        "Ulimits": [{"Name": k, "Soft": v, "Hard": v} for k, v in sorted(limits["ulimits"].items())],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "50m", "max-file": "3"}},
        "RestartPolicy": {"Name": "no"},
    }
    if spec["network"] != "host":
        host["PortBindings"] = {port: [{"HostIp": spec["host"], "HostPort": str(spec["port"])}]}
    if limits["shm_size_bytes"]:
        host["ShmSize"] = limits["shm_size_bytes"]
    if limits["memory_bytes"]:
        host["Memory"] = host["MemorySwap"] = limits["memory_bytes"]
    if spec["ipc"]:
        host["IpcMode"] = spec["ipc"]
    if spec["gpus"]:
        chosen: dict[str, Any] = {"Count": -1} if spec["gpus"] == "all" else {"DeviceIDs": spec["gpus"]}
        host["DeviceRequests"] = [{"Driver": "", "Capabilities": [["gpu"]], **chosen}]
    labels = {LABEL: spec["name"], "sparkops.spec": digest}
    if spec["manifest"] is not None:
        labels["sparkops.checkpoint"] = record_digest(spec["mounts"][0]["source"])
    if label:
        labels["sparkops.secret"] = label
    body = {
        "Image": spec["image"],
        "Cmd": spec["argv"],
        "Env": [f"{key}={value}" for key, value in sorted(environment.items())],
        "Labels": labels,
        "ExposedPorts": {port: {}},
        "HostConfig": host,
    }
    if spec["entrypoint"] is not None:
        body["Entrypoint"] = spec["entrypoint"]
    return body


def record_digest(folder: str) -> str:
    """SHA-256 of the record that says what a checkpoint's folder holds; "" without one."""
    try:
        with open(os.path.join(folder, ".sparkops", "manifest.json"), "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""


CACHE_TARGET = "/var/cache/sparkops"
CACHES = {
    "VLLM_CACHE_ROOT": f"{CACHE_TARGET}/vllm",
    "TRITON_CACHE_DIR": f"{CACHE_TARGET}/triton",
    "TORCHINDUCTOR_CACHE_DIR": f"{CACHE_TARGET}/inductor",
    "FLASHINFER_WORKSPACE_BASE": f"{CACHE_TARGET}/flashinfer",
}
STAMP = ".served"


def cache_folder(spec: dict[str, Any], image_id: str) -> str:
    """The folder of compiled kernels for exactly this image, argument list and rank; made where it is missing.

    vLLM's own key ignores some arguments (vLLM #53366), Triton's the image (#41871): another one gets another folder.
    """
    if not spec["cache"]:
        return ""
    key = json.dumps([image_id, spec["argv"], spec["environment"], spec["rank"]], sort_keys=True)
    above = os.path.join(spec["cache"], spec["name"])
    os.makedirs(above, mode=0o700, exist_ok=True)
    os.chmod(spec["cache"], 0o700)
    folder = os.path.join(above, hashlib.sha256(key.encode()).hexdigest()[:16])
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
        os.chmod(folder, 0o777)
    return folder


class Api:
    """The served OpenAI-compatible interface, asked from this node. Each request ends within its deadline."""

    def __init__(self, spec: dict[str, Any], secret: dict[str, str]) -> None:
        self.address = "127.0.0.1" if spec["host"] in ("0.0.0.0", "::", "") else spec["host"]
        self.port = spec["port"]
        self.probe = spec["probe"]
        self.key = {**spec["environment"], **secret}.get("VLLM_API_KEY", "")

    def request(self, method: str, path: str, body: Any, seconds: float) -> tuple[int, bytes]:
        """Status and body. Raises OSError (TimeoutError past the deadline) or HTTPException."""
        link = http.client.HTTPConnection(self.address, self.port, timeout=seconds)
        late = threading.Event()
        link.connect()
        timer = threading.Timer(seconds, _cut, (link, late))
        timer.daemon = True
        timer.start()
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            link.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            answer = link.getresponse()
            return answer.status, answer.read(16 << 20)
        except (OSError, http.client.HTTPException):
            if late.is_set():
                raise TimeoutError(f"no answer within {seconds:g} s") from None
            raise
        finally:
            timer.cancel()
            link.close()

    def completion(self, seconds: float) -> str:
        """Ask for one token; "" when one came, else what went wrong."""
        deadline = time.monotonic() + seconds
        try:
            model = self.probe["model"] or self._model(deadline)
            for path in ROUTES:
                body: dict[str, Any] = {"model": model, "max_tokens": 1, "temperature": 0}
                prompt = self.probe["prompt"]
                chat = path.endswith("/chat/completions")
                body |= {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
                status, data = self.request("POST", path, body, max(0.1, deadline - time.monotonic()))
                if status not in (404, 405):
                    break
            if status != 200:
                return f"{path} answers {status}: {data[:200].decode(errors='replace')}"
            return _judge(json.loads(data))
        except TimeoutError:
            return f"no completion within {seconds:g} s"
        except (OSError, http.client.HTTPException) as error:
            return f"it does not listen: {error}" if isinstance(error, ConnectionRefusedError) else str(error)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return "the answer is no completion"

    def _model(self, deadline: float) -> str:
        status, data = self.request("GET", "/v1/models", None, max(0.1, deadline - time.monotonic()))
        if status != 200:
            raise OSError(f"/v1/models answers {status}")
        return str(json.loads(data)["data"][0]["id"])

    def metrics(self, seconds: float) -> dict[str, float] | None:
        """The engine's counters, summed over their labels; None where it has no /metrics."""
        status, data = self.request("GET", "/metrics", None, seconds)
        if status != 200:
            return None
        return counters(data.decode(errors="replace"))


def _judge(answer: Any) -> str:
    """ "" for a completion with a token in it. Raises KeyError or TypeError for what is none."""
    made = (answer.get("usage") or {}).get("completion_tokens", 1)
    return "" if answer["choices"] and made else "the completion has no token"


def _cut(link: http.client.HTTPConnection, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError, AttributeError):
        link.sock.shutdown(socket.SHUT_RDWR)


_SAMPLE = re.compile(r"(vllm:[A-Za-z0-9_:]+)(?:\{[^}]*\})?\s+([0-9.eE+-]+|NaN|[+-]?Inf)")
BUSY = ("vllm:num_requests_running", "vllm:num_requests_waiting")
MOVING = (
    "vllm:generation_tokens_total",
    "vllm:prompt_tokens_total",
    "vllm:iteration_tokens_total_sum",
    "vllm:kv_cache_usage_perc",
)


def counters(text: str) -> dict[str, float]:
    """The `vllm:` samples of Prometheus' text format, summed over their labels."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        sample = _SAMPLE.match(line)
        if sample:
            found[sample[1]] = found.get(sample[1], 0.0) + float(sample[2])
    return found


class Pulse:
    """Whether the engine lives: tokens move, or nothing is asked of it; without metrics, a completion now and then.

    A long prefill generates nothing for minutes; so what is read and cached counts as movement too.
    """

    def __init__(self, api: Api, interval: float) -> None:
        self.api = api
        self.interval = interval
        self.last: dict[str, float] = {}
        self.why = ""

    def beats(self) -> bool:
        """One look; `why` holds the words for a look that found no life."""
        try:
            found = self.api.metrics(self.interval)
        except (OSError, http.client.HTTPException) as error:
            self.why = f"/metrics: {error or type(error).__name__}"
            return False
        if not found or BUSY[0] not in found:
            self.why = self.api.completion(max(self.interval, self.api.probe["seconds"]))
            return not self.why
        now = {key: found.get(key, 0.0) for key in MOVING}
        moved, self.last = now != self.last, now
        asked = sum(found.get(key, 0.0) for key in BUSY)
        self.why = "" if moved or not asked else f"{asked:g} requests are open and no token moves"
        return not self.why


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
        pulse = Pulse(self.api, interval)
        serving = self.systemd.status
        due = 0.0
        while not self.stopping.is_set():
            if self.container.ended.is_set():
                raise self.container.verdict()
            if self.systemd.watchdog and time.monotonic() >= due:
                alive = self.headless or pulse.beats()
                due = time.monotonic() + interval
                if alive:
                    self.systemd.tell(WATCHDOG=1)
                elif pulse.why not in self.systemd.status:
                    say(f"no sign of life: {pulse.why}")
                self.systemd.phase(serving if alive else f"no sign of life: {pulse.why}")
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


def available(path: str) -> int:
    """MemAvailable in bytes."""
    with open(path, encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    raise Failed(LAUNCHER_DEFECT, f"{path} has no MemAvailable")


def permanent_errors(path: str) -> "re.Pattern[str] | None":
    """What engines say that refuse their arguments for good, out of a JSON list; None without one that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return re.compile("|".join(f"(?:{_unnamed(each)})" for each in json.load(file)) or "(?!)")
    except (OSError, ValueError, TypeError, re.error):
        return None


def _unnamed(pattern: str) -> str:
    """Without the names of its groups, which two patterns may share."""
    return re.sub(r"\(\?P<\w+>", "(", pattern)


def drop_caches() -> None:
    """Free the page cache once: vLLM's check of free memory takes it for used (vLLM #35313)."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("1")


def secrets_of(spec: dict[str, Any]) -> tuple[dict[str, str], str]:
    """The secret environment, and its HMAC-SHA256 by the node's key ("" where there is no key yet)."""
    if not spec["secrets"]:
        return {}, ""
    with open(spec["secrets"], "rb") as file:
        data = file.read()
    label = ""
    with contextlib.suppress(FileNotFoundError), open(spec["key"], "rb") as file:
        label = hmac.new(file.read(), data, hashlib.sha256).hexdigest()
    return json.loads(data), label


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
