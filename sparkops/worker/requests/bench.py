"""Measuring a service's own engine on its node: so many streamed completions at once, of so many tokens of prompt."""

import http.client
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

from sparkops.core.kind_messages import ProbeAsk
from sparkops.core.request_messages import CellRequest
from sparkops.programs import docker
from sparkops.programs.launch.api import Api, Question
from sparkops.programs.launch.listening import container_of
from sparkops.worker.calls import Call, Refused, Unknown
from sparkops.worker.facts import gpu, gpu_users
from sparkops.worker.system import serving
from sparkops.worker.system.speed import Sample, acceptance, hardware, streamed

TRIES = 3
"""Times that one request alone is measured; the median counts."""
WORDS = ("river", "stone", "light", "paper", "green", "seven", "market", "winter", "engine", "letter")
METRICS_SECONDS = 5.0


def cell(call: Call, args: CellRequest) -> dict[str, object]:
    """One measurement of the service of `ask`.

    `samples` are [seconds to the first token, seconds from there to the last, tokens, tokens of prompt], `seconds` is
    how long all took, `tries` how often it was done. `before` and `after` are the engine's counters, None where it
    shows none, and `acceptance_length` the tokens of one step between them, None where nothing was drafted; `others`
    are processes on the GPU that are not the engine's, None where that is not known.

    Raises Refused.
    """
    api = serving.api(args["ask"], Question(args["ask"]["model"] or "", ""))
    limit, count, tokens = args["seconds"], args["concurrency"], args["tokens"]
    _own(api)
    model = api.question.model or _model(api)
    call.progress("warming up")
    words = _words(api, model, args["context"], limit)
    before = api.counted(METRICS_SECONDS)
    call.progress(f"{count} at once, {args['context']} tokens of context")
    tries = TRIES if count == 1 else 1
    samples: list[Sample] = []
    seconds = 0.0
    with ThreadPoolExecutor(count + 1) as pool:
        for _ in range(tries):
            if call.stopping.is_set() or call.session_over.is_set():
                raise Refused.of("bench-cancelled", type="cancelled")
            started = time.monotonic()
            asked = [pool.submit(streamed, api, model, _prompt(words), tokens, limit) for _ in range(count)]
            meanwhile = pool.submit(hardware)
            samples += [each.result() for each in asked]
            seconds += time.monotonic() - started
            known = meanwhile.result(2 * gpu.PATIENCE)
    after = api.counted(METRICS_SECONDS)
    _own(api)
    length = acceptance(before or {}, after or {})["acceptance_length"]
    told = {"before": before, "after": after, "hardware": known, "others": _others(args["ask"])}
    return {
        "samples": [list(each) for each in samples],
        "seconds": seconds,
        "tries": tries,
        "acceptance_length": length,
        **told,
    }


def _own(api: Api) -> None:
    if foreign := api.foreign():
        raise Refused.of("bench-foreign", text=foreign)


def _model(api: Api) -> str:
    try:
        status, data = api.request("GET", "/v1/models", None, METRICS_SECONDS)
        if status != 200:
            raise Refused.of("bench-answer-status", status=status, text=data[:300].decode(errors="replace"))
        return str(json.loads(data)["data"][0]["id"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError):
        raise Refused.of("bench-answer-malformed") from None


def _words(api: Api, model: str, context: int, limit: float) -> int:
    """How many words make so many tokens, by what the engine counts of a prompt of as many words."""
    guess = max(1, context // 2)
    found = streamed(api, model, _prompt(guess), 1, limit).prompt_tokens
    return max(1, round(guess * context / max(1, found)))


def _prompt(words: int) -> str:
    """So many words, whose first ones are those of no other prompt: a cached prefix would be no prefill."""
    source = random.Random()
    return " ".join(source.choice(WORDS) for _ in range(words))


def _others(ask: ProbeAsk) -> "list[str] | None":
    """The processes that compute on the GPU outside of the service's container; None where that is not known."""
    try:
        own = docker.service_container(ask["service"] or "") if ask.get("container") else None
        found, why = gpu_users.computing()
    except Unknown:
        return None
    if why or own is None:
        return None
    return [f"{name} ({pid})" for pid, name in found.items() if container_of(str(pid)) != own["Id"]]


CALLS = {"cell": cell}
