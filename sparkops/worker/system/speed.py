"""How fast an engine generates: one streamed completion on the clock, the GPU meanwhile, and what its drafter added.

Gate and bench measure by this one module. It must not know what a speed means.
"""

import http.client
import json
import time
from collections.abc import Iterator
from typing import NamedTuple

from sparkops.core.messages import Refused
from sparkops.programs.launch.api import ACCEPTED, DRAFTS, MALFORMED, Api
from sparkops.worker.calls import Unknown
from sparkops.worker.facts import gpu


class Sample(NamedTuple):
    """One streamed completion: seconds to its first token, from there to its last, tokens by its own `usage`."""

    first: float
    decoding: float
    tokens: int
    prompt_tokens: int


def streamed(api: Api, model: str, prompt: str, tokens: int, seconds: float) -> Sample:
    """A completion of exactly so many tokens, of an engine that knows `ignore_eos`. Raises Refused.

    A chunk may hold several tokens (speculation), so tokens are counted by `usage.completion_tokens` and not by chunks.
    """
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    key = {"Authorization": f"Bearer {api.key}"} if api.key else {}
    link = http.client.HTTPConnection(api.place.host, api.place.port, timeout=seconds)
    started = time.monotonic()
    try:
        link.request("POST", "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json", **key})
        answer = link.getresponse()
        if answer.status != 200:
            text = answer.read1(300).decode(errors="replace").strip()
            raise Refused.of("bench-answer-status", status=answer.status, text=text)
        return _timed(answer, started, started + seconds)
    except TimeoutError:
        raise Refused.of("bench-late", seconds=seconds) from None
    except (OSError, http.client.HTTPException) as error:
        raise Refused.of("bench-connection-failed", text=str(error) or type(error).__name__) from None
    except MALFORMED:
        raise Refused.of("bench-answer-malformed") from None
    finally:
        link.close()


def _timed(answer: http.client.HTTPResponse, started: float, deadline: float) -> Sample:
    """Raises TimeoutError, OSError, and KeyError and the like for what is no stream of completions."""
    first = last = 0.0
    usage: dict[str, int] = {}
    for line in _lines(answer, deadline):
        if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
            continue
        event = json.loads(line[5:])
        if event["choices"] and event["choices"][0]["text"]:
            last = time.monotonic()
            first = first or last
        usage = event.get("usage") or usage
    return Sample(first - started, last - first, int(usage["completion_tokens"]), int(usage["prompt_tokens"]))


def _lines(answer: http.client.HTTPResponse, deadline: float) -> Iterator[bytes]:
    """The lines of an answer as they come. Raises TimeoutError, also for bytes that trickle without a line's end."""
    begun = b""
    while chunk := answer.read1(1 << 16):
        if time.monotonic() > deadline:
            raise TimeoutError
        *whole, begun = (begun + chunk).split(b"\n")
        yield from whole
    yield begun


def acceptance(before: dict[str, float], after: dict[str, float]) -> dict[str, object]:
    """Tokens of one step of the engine, the drafter's that it took included: a difference of its counters."""
    steps, taken = (after.get(name, 0.0) - before.get(name, 0.0) for name in (DRAFTS, ACCEPTED))
    if DRAFTS not in before or DRAFTS not in after:
        return {"acceptance_length": None, "acceptance_why": "the engine counts no drafts"}
    if steps <= 0 or taken < 0:
        why = "the engine was started again meanwhile" if steps < 0 or taken < 0 else "nothing was drafted"
        return {"acceptance_length": None, "acceptance_why": why}
    return {"acceptance_length": round(1 + taken / steps, 3), "acceptance_why": None}


def hardware() -> dict[str, object]:
    """Clock (MHz) and power (watts) of the first GPU now; where one is None, `hardware_why` says why."""
    try:
        cards, why = gpu.cards()
    except Unknown as error:
        cards, why = [], f"nvidia-smi: {error}"
    found = {key: cards[0][key] if cards else None for key in ("sm_clock_mhz", "power_watts")}
    missing = [key for key, value in found.items() if value is None]
    if cards and missing:
        why = f"nvidia-smi gives no {' and no '.join(missing)}"
    most = cards[0].get("sm_clock_max_mhz") if cards else None
    return {**found, "sm_clock_max_mhz": most, "hardware_why": why if missing else None}
