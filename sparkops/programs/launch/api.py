"""The served interface, and whether tokens move behind it. Launcher and probe ask by this one module.

Standard library only; it must not know systemd, Docker or the worker.
"""

import contextlib
import http.client
import json
import math
import re
import socket
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from sparkops.core.deadline import within
from sparkops.programs.connections import hang_up
from sparkops.programs.launch.listening import Unseen

ROUTES = ("/v1/completions", "/v1/chat/completions")
ANSWER_LIMIT = 16 << 20
HEALTH_SECONDS = 2.0
MALFORMED = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError)
"""What reading an answer raises that is not what was asked for."""
ENDED_BADLY = ("error", "abort")
"""What vLLM gives as `finish_reason` of a completion that its engine did not make."""
REFUSED = frozenset({*range(400, 500)} - {408, 409, 425, 429})
"""Statuses by which an engine says that this request is wrong (the key, the model's name), not that it is ill."""


class Place(Protocol):
    """Where a service answers. `fault` says why an answer there would not be its own; "" where it would be."""

    host: str
    port: int

    def fault(self) -> str: ...


class Question(NamedTuple):
    """What is asked. `model` is "" for the first that is served, `expect` a regular expression, "" for any answer."""

    model: str
    prompt: str
    max_tokens: int = 1
    expect: str = ""


class Asked(NamedTuple):
    """What came of asking for a completion. `why` is "" where a good one came.

    `refused`: it could not be asked (a wrong key or name), which says nothing about its health. `busy`: it sent the
    request away because it has enough to do, which is a sign of life.
    """

    why: str
    refused: bool = False
    busy: bool = False


class Api:
    """The served OpenAI-compatible interface, asked from this node. Each request ends within its deadline.

    Nothing that comes from a foreign process counts, and none is given the key: `place` proves whose socket takes the
    connection. `/health` is told and never believed: it answers 200 during a deadlock (vLLM #37729, #39863).
    """

    def __init__(self, place: Place, key: str, question: Question) -> None:
        self.place, self.key, self.question = place, key, question
        self.link: http.client.HTTPConnection | None = None
        self.abandoned = False

    def request(self, method: str, path: str, body: object, seconds: float) -> tuple[int, bytes]:
        """Status and body. Raises TimeoutError past the deadline, however slowly bytes may trickle; else OSError or
        HTTPException."""
        if self.abandoned:
            raise ConnectionAbortedError("no more is asked")
        self.link = link = http.client.HTTPConnection(self.place.host, self.place.port, timeout=seconds)
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {self.key}"} if self.key else {})}

        def whole() -> tuple[int, bytes]:
            link.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            answer = link.getresponse()
            return answer.status, answer.read(ANSWER_LIMIT)

        try:
            return within(seconds, whole)
        finally:
            self.link = None
            hang_up(link)

    def cut(self) -> None:
        """End the request that is under way, and ask no more: there is something else to do."""
        self.abandoned = True
        if (link := self.link) is not None:
            with contextlib.suppress(OSError, AttributeError):
                link.sock.shutdown(socket.SHUT_RDWR)

    def foreign(self) -> str:
        """Why an answer would not be the service's own; "" where it would be."""
        try:
            return self.place.fault()
        except Unseen as error:
            return f"which process listens on port {self.place.port} is unknown: {error}"

    def completion(self, seconds: float) -> Asked:
        """Ask the service, and only it, for a completion; never longer than `seconds` and a breath."""
        why = self.foreign()
        if why:
            return Asked(why)
        asked = self._completion(seconds)
        return Asked(why) if (why := self.foreign()) else asked

    def _completion(self, seconds: float) -> Asked:
        deadline, data = time.monotonic() + seconds, b""
        try:
            route, status, data = self.ask(self.question, deadline)
            if status != 200:
                why = f"{route} answers {status}: {data[:300].decode(errors='replace').strip()}"
                return Asked(why, refused=status in REFUSED, busy=self.busy(status))
            return Asked(_judge(json.loads(data), self.question.expect))
        except TimeoutError:
            return Asked(f"no completion within {seconds:g} s{self._aside()}")
        except ConnectionRefusedError:
            return Asked(f"nothing listens on {self.place.host}:{self.place.port}")
        except (OSError, http.client.HTTPException) as error:
            if self.abandoned:
                return Asked(f"no completion for {seconds - deadline + time.monotonic():.0f} s")
            return Asked(f"the connection broke: {error or type(error).__name__}")
        except MALFORMED:
            said = " ".join(data[:200].decode(errors="replace").split())
            return Asked(f"what came is no completion{said and ': '}{said}")

    def ask(
        self, question: Question, deadline: float, routes: Sequence[str] = ROUTES, **more: object
    ) -> tuple[str, int, bytes]:
        """Path, status and body of the first of `routes` that it has; of /v1/models where the model is not known.

        `deadline` as of time.monotonic(); `more` are further fields of the request. Raises as `request`, and
        one of MALFORMED for a /v1/models that is none.
        """

        def left() -> float:
            return max(0.01, deadline - time.monotonic())

        model = question.model
        if not model:
            status, data = self.request("GET", "/v1/models", None, left())
            if status != 200:
                return "/v1/models", status, data
            model = str(json.loads(data)["data"][0]["id"])
        for path in routes:
            status, data = self.request("POST", path, {**_body(question, model, path), **more}, left())
            if status not in (404, 405):
                break
        return path, status, data

    def busy(self, status: int) -> bool:
        """Whether it sent a request away because it has enough to do."""
        return status == 429 or (status == 503 and self._health() == "200")

    def _health(self) -> str:
        """The status of /health, "" for none. vLLM answers by 503 once its engine is dead."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return str(self.request("GET", "/health", None, HEALTH_SECONDS)[0])
        return ""

    def _aside(self) -> str:
        health = self._health()
        return f", though /health answers {health}" if health else "; /health does not answer either"

    def metrics(self, seconds: float) -> dict[str, float] | None:
        """The engine's counters, summed over their labels; None where it has no /metrics."""
        status, data = self.request("GET", "/metrics", None, seconds)
        if status != 200:
            return None
        return counters(data.decode(errors="replace"))

    def counted(self, seconds: float) -> dict[str, float] | None:
        """`metrics`; None also where it does not answer."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.metrics(seconds)
        return None


def _body(question: Question, model: str, route: str) -> dict[str, object]:
    body: dict[str, object] = {"model": model, "max_tokens": question.max_tokens, "temperature": 0}
    if route.endswith("/chat/completions"):
        return {**body, "messages": [{"role": "user", "content": question.prompt}]}
    return {**body, "prompt": question.prompt}


def said(answer: Any) -> tuple[str, int]:
    """The text of a completion by either route, with what it thought before, and its tokens; 1 where it tells none.

    Raises one of MALFORMED for what is none, also for an error that came with the status 200.
    """
    choice = answer["choices"][0]
    if answer.get("error") or choice.get("finish_reason") in ENDED_BADLY:
        raise ValueError(answer)
    tokens = int((answer.get("usage") or {}).get("completion_tokens", 1))
    if "text" in choice:
        return "" + choice["text"], tokens
    message = choice["message"]
    thought = message.get("reasoning") or message.get("reasoning_content") or ""
    return thought + (message.get("content") or ""), tokens


def _judge(answer: object, expect: str) -> str:
    """ "" for a good completion. Raises as `said`."""
    text, tokens = said(answer)
    if tokens == 0:
        return "the completion has no token"
    if not expect or re.search(expect, text):
        return ""
    return f"it answers {text[:200]!r}, in which nothing matches {expect!r}"


_SAMPLE = re.compile(r"(vllm:[A-Za-z0-9_:]+)(?:\{[^}]*\})?\s+([0-9.eE+-]+|NaN|[+-]?Inf)")
RUNNING, WAITING, CACHE_SHARE = "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"
GENERATED, READ = "vllm:generation_tokens_total", "vllm:prompt_tokens_total"
DRAFTS, DRAFTED = "vllm:spec_decode_num_drafts_total", "vllm:spec_decode_num_draft_tokens_total"
ACCEPTED = "vllm:spec_decode_num_accepted_tokens_total"
BUSY = (RUNNING, WAITING)
MOVING = (GENERATED, READ, "vllm:iteration_tokens_total_sum", CACHE_SHARE)


def counters(text: str) -> dict[str, float]:
    """The `vllm:` samples of Prometheus' text format, summed over their labels; of a share (`_perc`) the greatest.

    What is no finite number counts for nothing: it would differ from itself at the next look, and so pass for movement.
    """
    found: dict[str, float] = {}
    for line in text.splitlines():
        sample = _SAMPLE.match(line)
        value = _number(sample[2]) if sample else None
        if sample and value is not None:
            before = found.get(sample[1], 0.0)
            found[sample[1]] = max(before, value) if sample[1].endswith("_perc") else before + value
    return found


def _number(text: str) -> float | None:
    """None for what is no finite number."""
    with contextlib.suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    return None


LOOK_SECONDS = 30.0


class TokenActivity:
    """Whether the engine lives: tokens move, or it completes what it is asked.

    The gauges of vLLM come with the result of a step: a worker that stops between two steps leaves them as they are for
    ever. So where nothing moved for a third of `patience` (seconds) it is asked for a token. A long prefill generates
    nothing for minutes; so what is read and cached counts as movement too. To be sent away is a sign of life of an
    engine that is at work, not of one in which requests are open and no token moves.
    """

    def __init__(self, api: Api, seconds: float, patience: float) -> None:
        """`seconds` is the limit of a completion."""
        self.api, self.seconds = api, seconds
        self.interval = min(max(1.0, patience / 6), LOOK_SECONDS)
        self.idle_seconds = patience / 3
        self.last: dict[str, float] = {}
        self.generated = 0.0
        """When tokens were last seen to be generated, by time.time(); 0.0 for not yet."""
        self.proved = time.monotonic()
        self.failures = 0
        self.why = ""

    def found(self) -> bool:
        """Whether a sign of life was found now. `why` says what was found instead; "" where nothing was to be asked.

        `failures` counts the looks that found none after it was due.
        """
        due = time.monotonic() - self.proved >= self.idle_seconds
        found = self._found()
        self.failures = 0 if found else self.failures + due
        return found

    def _found(self) -> bool:
        self.why = self.api.foreign()
        if self.why:
            return False
        now: dict[str, float] | None = None
        try:
            now = self.api.metrics(max(1.0, self.interval))
        except (OSError, http.client.HTTPException) as error:  # a completion may come all the same
            self.why = f"/metrics: {error or type(error).__name__}"
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
        if self.last and now[MOVING[0]] > self.last[MOVING[0]]:
            self.generated = time.time()
        asked = sum(found.get(key, 0.0) for key in BUSY) if self.last else 0.0
        self.last = now
        self.why = "" if moved or not asked else f"{asked:g} requests are open and no token moves"
        return moved

    def _completes(self) -> bool:
        stuck = self.why
        asked = self.api.completion(self.seconds)
        if asked.why and not asked.refused and not (asked.busy and not stuck):
            self.why = "; ".join(filter(None, (stuck, asked.why)))
            return False
        if not asked.why:
            self.generated = time.time()
        self._moved(self.api.counted(self.interval) or {})  # what this completion moved is no later sign of life
        self.why = ""
        return True
