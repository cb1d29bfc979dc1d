"""The node half of `gate`: questions to a service's own engine after a change, and what passed them last.

Four ends: it passed; it failed (`Refused`); it could not be asked or the answer proves nothing (`Refused` of the type
`unknown`: only what failed is brought back); the run was left.
"""

import contextlib
import http.client
import json
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from sparkops.core.kind_messages import GateAct, GateAsk
from sparkops.core.messages import Fields, State
from sparkops.programs.launch.api import MALFORMED, ROUTES, Question, said
from sparkops.worker.calls import Call, Refused, Unknown
from sparkops.worker.facts import gpu
from sparkops.worker.kinds import unit
from sparkops.worker.record import generations
from sparkops.worker.system import serving
from sparkops.worker.system.speed import acceptance, hardware

POLL = 1.0
LOOKS = 3
"""Questions that systemd may leave unanswered."""
EVERY = 5.0
"""Seconds between two completions while an engine has to stay healthy."""
COULD_NOT_ASK = (401, 403, 404)
"""Answers that say nothing about the engine's health: no access, no such name. Source: vLLM's API server."""
LANGUAGE_TOKENS = 8
"""Of an answer of so many tokens at least one letter or digit is expected: broken numerics give "!!!!!!!!"."""
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
BASELINE = ("speed", "sm_clock_mhz", "power_watts")
ASKED = ("canaries", "tool_call", "min_speed_ratio")
"""What of a gate belongs to the state that it is asked of."""


def observe(ask: GateAsk, *, root: str = "/") -> dict[str, object]:
    """`passed`: whether the present state of the service is the one that passed last; and what was measured then.

    speed: tokens a second of one request; sm_clock_mhz and power_watts: of the GPU meanwhile; acceptance_length: tokens
    that one step of the engine gave with speculation, over all requests of that time. Where one is None, speed_why,
    hardware_why or acceptance_why says why. before: what the speed was held against, with clock and power, None for
    nothing. canaries: how many were answered as expected; tool_call: whether one came back with the right types.
    """
    now = generations.present(ask["files"], root=root)
    noted = generations.passed(ask["folder"])
    passed = noted.get("fingerprint") == now["fingerprint"]
    return {"passed": passed, **(noted.get("measured") or {} if passed else {})}


def converge(call: Call, ask: GateAsk, found: State, want: State, act: GateAct, *, root: str = "/") -> None:
    """Ask everything that is declared; note what passed. Raises Refused."""
    before = generations.present(ask["files"], root=root)
    if act["restored"]:
        act = cast("GateAct", {**dict(act), **_asked_then(ask, before["fingerprint"])})
    _booted(call, str(ask["unit"]))
    engine = _Engine(ask)
    service = serving.Service(ask)
    ran, counted = service.run(), engine.counters()
    _stays_healthy(call, engine, act["min_healthy_seconds"])
    for canary in act["canaries"]:
        engine.canary(canary["prompt"], canary["expect"])
    if act["tool_call"]:
        engine.tool_call()
    measured: dict[str, object] = {"speed": None, "speed_why": "rollout.min_speed_ratio is not set", "before": None}
    measured |= {"canaries": len(act["canaries"]), "tool_call": bool(act["tool_call"])}
    if act["min_speed_ratio"] is not None:
        call.progress("measuring the decode speed")
        before_it = _baseline(ask)
        measured |= {**engine.speed(), "speed_why": None}
        measured["before"] = {key: before_it.get(key) for key in BASELINE} if before_it else None
        fast_enough(measured, before_it, act["min_speed_ratio"])
    measured |= acceptance(counted, engine.counters())
    if generations.present(ask["files"], root=root)["fingerprint"] != before["fingerprint"]:
        raise Refused.of("gate-changed-meanwhile", service=ask["service"], type="unknown")
    if service.run() != ran:  # up at each question, and down between two of them
        raise Refused.of("gate-engine-restarted", service=ask["service"])
    asked = {key: value for key, value in act.items() if key in ASKED}
    generations.note_passed(ask["folder"], before["fingerprint"], measured, asked)
    _wait(call, act["pause_seconds"], "passed; waiting before the next engine")


def _booted(call: Call, name: str) -> None:
    """Wait while the unit loads for the first time since it was started: its machine came back meanwhile.

    One that systemd restarted has failed and is not waited for. The unit's own limit of its start ends the wait.
    Raises Unknown: of a unit of which it is not known whether it loads, silence is no fault.
    """
    silent = 0
    while True:
        try:
            shown = unit.show([name])[name]
        except Unknown:
            silent += 1
            if silent == LOOKS:
                raise
            _wait(call, POLL, "systemd does not answer")
            continue
        loads = shown.get("ActiveState") == "activating" or (
            shown.get("ActiveState") == "inactive" and shown.get("Job")
        )
        if not loads or shown.get("NRestarts") not in ("0", None):
            return
        _wait(call, POLL, shown.get("StatusText") or "the unit starts")


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


def _asked_then(ask: GateAsk, fingerprint: str) -> dict[str, object]:
    """What the kept generation of this state was asked; {} where there is none."""
    same = [each.get("asked") or {} for each in generations.kept(ask["folder"]) if each["fingerprint"] == fingerprint]
    return {key: value for key, value in (same[-1] if same else {}).items() if key in ASKED}


def _baseline(ask: GateAsk) -> Fields:
    """What was measured of the newest stable generation that has a speed; {} for none."""
    measured = [each.get("measured") or {} for each in generations.kept(ask["folder"])]
    return next((each for each in reversed(measured) if each.get("speed")), {})


def fast_enough(now: Fields, before: Fields, ratio: float) -> None:
    """Raises Refused for a speed below `ratio` of that before.

    Where the GPU's clock fell as far, the node is slow and not the change (a GB10 can be stuck at 799 MHz until its
    power cord is drawn; minefield PR 55), so that proves nothing.
    """
    if not before or now["speed"] >= ratio * before["speed"]:
        return
    speeds = {"speed": round(now["speed"], 1), "before": round(before["speed"], 1), "ratio": ratio}
    clock, earlier = now.get("sm_clock_mhz"), before.get("sm_clock_mhz")
    if clock and earlier and clock < ratio * earlier:
        raise Refused.of("gate-clock-low", type="unknown", **speeds, clock=clock, clock_before=earlier)
    raise Refused.of("gate-too-slow", **speeds)


class _Engine:
    """The engine of the service on this node, asked as a client asks it."""

    def __init__(self, ask: GateAsk) -> None:
        self.ask = ask
        self.api = serving.api(ask, Question(ask["model"] or "", ask["prompt"]))

    def _answer(
        self, question: Question, seconds: float, routes: Sequence[str] = ROUTES, **more: object
    ) -> tuple[str, Any]:
        """The route and the answer to a question that has to be 200. Raises Refused."""
        if foreign := self.api.foreign():
            raise Refused.of("gate-not-served", text=foreign)
        try:
            route, status, data = self.api.ask(question, time.monotonic() + seconds, routes, **more)
            busy = self.api.busy(status)
        except TimeoutError:
            raise Refused.of("gate-no-answer", route=" or ".join(routes), seconds=seconds) from None
        except (OSError, http.client.HTTPException) as error:
            text = str(error) or type(error).__name__
            raise Refused.of("gate-connection-failed", route=" or ".join(routes), text=text) from None
        except MALFORMED:
            raise Refused.of("gate-answer-malformed", route="/v1/models") from None
        if busy or status in COULD_NOT_ASK:
            raise Refused.of("gate-could-not-ask", route=route, status=status, type="unknown")
        if status != 200:
            text = data[:300].decode(errors="replace").strip()
            raise Refused.of("gate-answer-status", route=route, status=status, text=text)
        with contextlib.suppress(*MALFORMED):
            return route, json.loads(data)
        raise Refused.of("gate-answer-malformed", route=route)

    def complete(self, prompt: str | None = None, tokens: int = 16, **more: Any) -> tuple[str, int]:
        """The text of a completion and its number of tokens. Raises Refused."""
        question = self.api.question._replace(max_tokens=tokens, prompt=prompt or self.ask["prompt"])
        route, answer = self._answer(question, self.ask["limit_seconds"] + tokens, **more)
        try:
            text, count = said(answer)
        except MALFORMED:
            raise Refused.of("gate-answer-malformed", route=route) from None
        if count < 1:
            raise Refused.of("gate-answer-malformed", route=route)
        if count >= LANGUAGE_TOKENS and not any(each.isalnum() for each in text):
            raise Refused.of("gate-answer-garbage", prompt=question.prompt, tokens=count, text=text[:200])
        return text, count

    def counters(self) -> dict[str, float]:
        """The engine's counters, {} where it tells none."""
        return self.api.counted(self.ask["limit_seconds"]) or {}

    def canary(self, prompt: str, expect: str) -> None:
        """Raises Refused where the answer does not match."""
        text, _ = self.complete(prompt, 64)
        if not re.search(expect, text):
            raise Refused.of("gate-canary-wrong", prompt=prompt, expect=expect, text=text[:200])

    def tool_call(self) -> None:
        """A tool call whose arguments have the declared types. Raises Refused."""
        question = self.api.question._replace(prompt=TOOL_PROMPT, max_tokens=TOOL_TOKENS)
        seconds = self.ask["limit_seconds"] + TOOL_TOKENS / 4
        route, answer = self._answer(question, seconds, ROUTES[1:], tools=[TOOL], tool_choice="auto")
        try:
            message = answer["choices"][0]["message"]
            calls, content = message.get("tool_calls") or [], str(message.get("content") or "")
            made = [(str(each["function"]["name"]), str(each["function"]["arguments"])) for each in calls]
        except MALFORMED:
            raise Refused.of("gate-answer-malformed", route=route) from None
        judge_tool_call(made, content)

    def speed(self) -> dict[str, object]:
        """Tokens a second of one request without its prefill, and clock and power of the GPU meanwhile: of the try with
        the median speed. Raises Refused."""
        tries: list[tuple[float, dict[str, object]]] = []
        with ThreadPoolExecutor(1) as beside:
            for _ in range(SPEED_TRIES):
                few, short = self._timed(SPEED_TOKENS[0])
                meanwhile = beside.submit(hardware)
                many, long = self._timed(SPEED_TOKENS[1])
                if many > few and long > short:
                    tries.append(((many - few) / (long - short), meanwhile.result(2 * gpu.PATIENCE)))
        if not tries:
            raise Refused.of("gate-speed-unmeasured", type="unknown")
        speed, hardware_then = sorted(tries, key=lambda each: each[0])[len(tries) // 2]
        return {"speed": round(speed, 3), **hardware_then}

    def _timed(self, tokens: int) -> tuple[int, float]:
        started = time.monotonic()
        _, count = self.complete(SPEED_PROMPT, tokens, ignore_eos=True)
        return count, time.monotonic() - started


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
