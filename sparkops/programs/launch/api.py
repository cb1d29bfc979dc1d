"""The served interface, and whether tokens move behind it."""

import contextlib
import http.client
import json
import re
import socket
import threading
import time
from typing import Any

ROUTES = ("/v1/completions", "/v1/chat/completions")


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


class TokenActivity:
    """Whether the engine lives: tokens move, or nothing is asked of it; without metrics, a completion now and then.

    A long prefill generates nothing for minutes; so what is read and cached counts as movement too.
    """

    def __init__(self, api: Api, interval: float) -> None:
        self.api = api
        self.interval = interval
        self.last: dict[str, float] = {}
        self.why = ""

    def found(self) -> bool:
        """Whether it was found now; `why` says what was found instead."""
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
