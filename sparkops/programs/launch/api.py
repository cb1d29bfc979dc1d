"""The served interface, and whether tokens move behind it."""

import contextlib
import http.client
import json
import re
import socket
import threading
import time
from typing import Any, NamedTuple

from sparkops.programs.launch.listening import Listener, Unseen

ROUTES = ("/v1/completions", "/v1/chat/completions")


REFUSED = frozenset({*range(400, 500)} - {408, 409, 425, 429})
"""Statuses by which an engine says that this request is wrong (the key, the model's name), not that it is ill."""


class Asked(NamedTuple):
    """What came of asking for a token. `why` is "" where one came.

    `refused`: it could not be asked (a wrong key or name), which says nothing about its health. `busy`: it sent the
    request away because it has enough to do, which is a sign of life.
    """

    why: str
    refused: bool = False
    busy: bool = False


class Api:
    """The served OpenAI-compatible interface, asked from this node. Each request ends within its deadline.

    Nothing that comes from a foreign process counts: `listener` proves whose socket takes the connection.
    """

    def __init__(self, spec: dict[str, Any], secret: dict[str, str], listener: Listener) -> None:
        self.listener = listener
        self.probe = spec["probe"]
        self.key = {**spec["environment"], **secret}.get("VLLM_API_KEY", "")
        self.link: http.client.HTTPConnection | None = None

    def request(self, method: str, path: str, body: Any, seconds: float) -> tuple[int, bytes]:
        """Status and body. Raises OSError (TimeoutError past the deadline) or HTTPException."""
        self.link = link = http.client.HTTPConnection(self.listener.host, self.listener.port, timeout=seconds)
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
            self.link = None
            link.close()

    def cut(self) -> None:
        """End the request that is under way: there is something else to do."""
        if self.link is not None:
            _cut(self.link, threading.Event())

    def foreign(self) -> str:
        """Why an answer would not be the container's own; "" where it would be."""
        try:
            return self.listener.fault()
        except Unseen as error:
            return f"whose socket listens on port {self.listener.port} is not known: {error}"

    def completion(self, seconds: float) -> Asked:
        """Ask the container, and only it, for one token."""
        why = self.foreign()
        if why:
            return Asked(why)
        asked = self._completion(seconds)
        return Asked(why) if (why := self.foreign()) else asked

    def _completion(self, seconds: float) -> Asked:
        deadline = time.monotonic() + seconds
        try:
            status, data = self._ask(deadline)
            if status != 200:
                why = f"a completion is answered by {status}: {data[:200].decode(errors='replace').strip()}"
                busy = status == 429 or (status == 503 and self._healthy(deadline))
                return Asked(why, refused=status in REFUSED, busy=busy)
            return Asked(_judge(json.loads(data)))
        except TimeoutError:
            return Asked(f"no completion within {seconds:g} s")
        except (OSError, http.client.HTTPException) as error:
            listens = not isinstance(error, ConnectionRefusedError)
            return Asked((str(error) or type(error).__name__) if listens else f"it does not listen: {error}")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return Asked("the answer is no completion")

    def _ask(self, deadline: float) -> tuple[int, bytes]:
        """Status and body of the first route that it has; those of /v1/models where the model's name is not known."""

        def left() -> float:
            return max(0.1, deadline - time.monotonic())

        model = self.probe["model"]
        if not model:
            status, data = self.request("GET", "/v1/models", None, left())
            if status != 200:
                return status, data
            model = str(json.loads(data)["data"][0]["id"])
        for path in ROUTES:
            body: dict[str, Any] = {"model": model, "max_tokens": 1, "temperature": 0}
            prompt = self.probe["prompt"]
            chat = path.endswith("/chat/completions")
            body |= {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
            status, data = self.request("POST", path, body, left())
            if status not in (404, 405):
                break
        return status, data

    def _healthy(self, deadline: float) -> bool:
        """vLLM answers /health by 503 once its engine is dead."""
        return self.request("GET", "/health", None, max(0.1, deadline - time.monotonic()))[0] == 200

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


LOOK_SECONDS = 30.0


class TokenActivity:
    """Whether the engine lives: tokens move, or it completes what it is asked.

    The gauges of vLLM come with the result of a step: a worker that stops between two steps leaves them as they are for
    ever. So where nothing moved for a third of `patience` (seconds) it is asked for a token. A long prefill generates
    nothing for minutes; so what is read and cached counts as movement too.
    """

    def __init__(self, api: Api, patience: float) -> None:
        self.api = api
        self.interval = min(max(1.0, patience / 6), LOOK_SECONDS)
        self.idle_seconds = patience / 3
        self.last: dict[str, float] = {}
        self.proved = time.monotonic()
        self.why = ""

    def found(self) -> bool:
        """Whether a sign of life was found now. `why` says what was found instead; "" where nothing was to be asked."""
        self.why = self.api.foreign()
        if self.why:
            return False
        try:
            now = self.api.metrics(max(1.0, self.interval))
        except (OSError, http.client.HTTPException) as error:
            self.why = f"/metrics: {error or type(error).__name__}"
            return False
        alive = self._moved(now or {})
        if not alive and time.monotonic() - self.proved >= self.idle_seconds:
            alive = self._completes()
        if alive:
            self.proved = time.monotonic()
        return alive

    def _moved(self, found: dict[str, float]) -> bool:
        if BUSY[0] not in found:
            return False
        now = {key: found.get(key, 0.0) for key in MOVING}
        moved = bool(self.last) and now != self.last
        asked = sum(found.get(key, 0.0) for key in BUSY) if self.last else 0.0
        self.last = now
        self.why = "" if moved or not asked else f"{asked:g} requests are open and no token moves"
        return moved

    def _completes(self) -> bool:
        stuck = self.why
        asked = self.api.completion(self.api.probe["seconds"])
        if asked.why and not asked.refused and not asked.busy:
            self.why = "; ".join(filter(None, (stuck, asked.why)))
            return False
        with contextlib.suppress(OSError, http.client.HTTPException):
            self._moved(self.api.metrics(self.interval) or {})  # what this completion moved is no later sign of life
        self.why = ""
        return True
