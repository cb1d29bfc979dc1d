"""The node half of `gate`: questions to a service's own engine after a change, and what passed them last.

Four ends: it passed; it failed (`Refused`); it could not be asked or the answer proves nothing (`Refused` of the type
`unknown`: only what failed is brought back); the run was left.
"""

import http.client
import json
import re
import time
from typing import Any

from sparkops.programs.launch.api import Api, Question
from sparkops.worker.calls import Call, Refused
from sparkops.worker.kinds import probe
from sparkops.worker.record import generations

EVERY = 5.0
"""Seconds between two completions while an engine has to stay healthy."""
COULD_NOT_ASK = (401, 403, 404, 429, 503)
"""Answers that say nothing about the engine's health: no access, no such name, too busy. Source: vLLM's API server."""
TOOL = {
    "type": "function",
    "function": {
        "name": "get_forecast",
        "description": "The weather of the next days",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}
TOOL_PROMPT = "Use the tool get_forecast to find out the weather in Paris for the next 3 days."
TOOL_TOKENS = 1024
SPEED_PROMPT = "Count from one to one hundred in words, separated by commas."
SPEED_TOKENS = (16, 80)
SPEED_TRIES = 3


def observe(ask: dict[str, Any], *, root: str = "/") -> dict[str, object]:
    """`passed`: whether the present state of the service is the one that passed last."""
    now = generations.present(ask["files"], root=root)
    noted = generations.passed(ask["folder"]).get("fingerprint")
    return {"passed": noted == now["fingerprint"]}


def converge(
    call: Call,
    ask: dict[str, Any],
    found: dict[str, object] | None,
    want: dict[str, object] | None,
    act: dict[str, Any],
    *,
    root: str = "/",
) -> None:
    """Ask everything that is declared; note what passed. Raises Refused."""
    before = generations.present(ask["files"], root=root)
    engine = _Engine(ask)
    _stays_healthy(call, engine, act["min_healthy_seconds"])
    for canary in act["canaries"]:
        engine.canary(canary["prompt"], canary["expect"])
    if act["tool_call"]:
        engine.tool_call()
    speed = None
    if act["min_speed_ratio"] is not None:
        call.progress("measuring the decode speed")
        speed = engine.speed()
        _fast_enough(speed, _baseline(ask), act["min_speed_ratio"])
    if generations.present(ask["files"], root=root)["fingerprint"] != before["fingerprint"]:
        raise Refused.of("gate-changed-meanwhile", service=ask["service"], type="unknown")
    generations.note_passed(ask["folder"], before["fingerprint"], speed)
    _wait(call, act["pause_seconds"], "passed; waiting before the next engine")


def _stays_healthy(call: Call, engine: "_Engine", seconds: float) -> None:
    started = time.monotonic()
    while True:
        engine.complete()
        gone = time.monotonic() - started
        if gone >= seconds:
            return
        _wait(call, min(EVERY, seconds - gone), f"healthy for {gone:.0f} of {seconds:.0f} s")


def _wait(call: Call, seconds: float, text: str) -> None:
    if seconds > 0:
        call.progress(text)
        if call.stopping.wait(seconds) or call.session_over.is_set():
            raise Refused.of("probe-wait-cancelled", type="cancelled")


def _baseline(ask: dict[str, Any]) -> float | None:
    """The speed of the newest stable generation that has one."""
    speeds = [each.get("speed") for each in generations.kept(ask["folder"])]
    return next((each for each in reversed(speeds) if each), None)


def _fast_enough(speed: float, baseline: float | None, ratio: float) -> None:
    if baseline is not None and speed < ratio * baseline:
        raise Refused.of("gate-too-slow", speed=round(speed, 1), before=round(baseline, 1), ratio=ratio)


class _Engine:
    """The engine of the service on this node, asked as a client asks it."""

    def __init__(self, ask: dict[str, Any]) -> None:
        self.ask = ask
        self.model = ""
        self.api = Api(probe.Service(ask), probe.api_key(ask.get("spec")), Question("", ask["prompt"]))

    def _post(self, route: str, body: dict[str, object], seconds: float) -> dict[str, Any]:
        """The answer to a request that has to be 200. Raises Refused."""
        if not self.model:
            self.model = self.ask["model"] or self._name()
        return self._request("POST", route, {"model": self.model, "temperature": 0, **body}, seconds)

    def _name(self) -> str:
        try:
            return str(self._request("GET", "/v1/models", None, self.ask["limit_seconds"])["data"][0]["id"])
        except (KeyError, IndexError, TypeError):
            raise Refused.of("gate-answer-malformed", route="/v1/models") from None

    def _request(self, method: str, route: str, body: object, seconds: float) -> dict[str, Any]:
        if foreign := self.api.foreign():
            raise Refused.of("gate-foreign-answer", text=foreign)
        try:
            status, data = self.api.request(method, route, body, seconds)
        except TimeoutError:
            raise Refused.of("gate-no-answer", route=route, seconds=seconds) from None
        except (OSError, http.client.HTTPException) as error:
            raise Refused.of("gate-connection-failed", route=route, text=str(error) or type(error).__name__) from None
        if status in COULD_NOT_ASK:
            raise Refused.of("gate-could-not-ask", route=route, status=status, type="unknown")
        if status != 200:
            text = data[:300].decode(errors="replace").strip()
            raise Refused.of("gate-answer-status", route=route, status=status, text=text)
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Refused.of("gate-answer-malformed", route=route)
        return answer

    def complete(self, prompt: str | None = None, tokens: int = 16, **more: object) -> tuple[str, int]:
        """The text of a completion and its number of tokens. Raises Refused."""
        route, body = "/v1/completions", {"prompt": prompt or self.ask["prompt"], "max_tokens": tokens, **more}
        answer = self._post(route, body, self.ask["limit_seconds"] + tokens)
        try:
            text, count = answer["choices"][0]["text"], answer["usage"]["completion_tokens"]
        except (KeyError, IndexError, TypeError):
            raise Refused.of("gate-answer-malformed", route=route) from None
        if not isinstance(text, str) or not isinstance(count, int) or count < 1:
            raise Refused.of("gate-answer-malformed", route=route)
        return text, count

    def canary(self, prompt: str, expect: str) -> None:
        """Raises Refused where the answer does not match."""
        text, _ = self.complete(prompt, 64)
        if not re.search(expect, text):
            raise Refused.of("gate-canary-wrong", prompt=prompt, expect=expect, text=text[:200])

    def tool_call(self) -> None:
        """A tool call whose arguments have the declared types. Raises Refused."""
        route = "/v1/chat/completions"
        messages = [{"role": "user", "content": TOOL_PROMPT}]
        body = {"messages": messages, "tools": [TOOL], "tool_choice": "auto", "max_tokens": TOOL_TOKENS}
        answer = self._post(route, body, self.ask["limit_seconds"] + TOOL_TOKENS / 4)
        try:
            message = answer["choices"][0]["message"]
            calls, content = message.get("tool_calls") or [], str(message.get("content") or "")
            made = [(str(each["function"]["name"]), str(each["function"]["arguments"])) for each in calls]
        except (KeyError, IndexError, TypeError, AttributeError):
            raise Refused.of("gate-answer-malformed", route=route) from None
        judge_tool_call(made, content)

    def speed(self) -> float:
        """Tokens a second of one request, without its prefill: the median of a few tries. Raises Refused."""
        speeds = []
        for _ in range(SPEED_TRIES):
            points = []
            for tokens in SPEED_TOKENS:
                started = time.monotonic()
                _, count = self.complete(SPEED_PROMPT, tokens, ignore_eos=True)
                points.append((count, time.monotonic() - started))
            (few, short), (many, long) = points
            if many > few and long > short:
                speeds.append((many - few) / (long - short))
        if not speeds:
            raise Refused.of("gate-speed-unmeasured", type="unknown")
        return sorted(speeds)[len(speeds) // 2]


def judge_tool_call(made: list[tuple[str, str]], content: str) -> None:
    """Raises Refused where the calls are not the one that was asked for. A model that called nothing proves nothing.

    `made` are name and arguments of each call. A call that is in the text instead was not understood by the parser.
    """
    name = TOOL["function"]["name"]  # type: ignore[index]
    if not made:
        if str(name) in content and re.search(r"[{<\[]", content):
            raise Refused.of("gate-tool-call-in-text", text=content[:200])
        raise Refused.of("gate-tool-not-called", text=content[:200], type="unknown")
    for called, text in made:
        try:
            arguments = json.loads(text)
        except ValueError:
            arguments = None
        right = isinstance(arguments, dict) and isinstance(arguments.get("city"), str)
        if called != name or not right or type(arguments.get("days")) is not int:
            raise Refused.of("gate-tool-call-wrong", called=called, arguments=text[:200])
