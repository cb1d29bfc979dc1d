"""What an engine's counters say: gauges, and rates out of two readings, by the names that its version has.

vLLM has no gauge of tokens per second, so its counters are compared; one that went back belongs to another start.
It must not know how the readings were taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from sparkops.core.states import Unknown
from sparkops.models.engine import Engine

GAUGES = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "kv_cache_share": "vllm:kv_cache_usage_perc",
}
RATES = {
    "generation_tokens_per_second": "vllm:generation_tokens",
    "prompt_tokens_per_second": "vllm:prompt_tokens",
}
ACCEPTED, DRAFTED = "vllm:spec_decode_num_accepted_tokens", "vllm:spec_decode_num_draft_tokens"
TOTAL = "_total"
"""The end of a counter's name in the text form, which the engine's own name of it has not."""


def figures(counted: object, engine: Engine | None) -> dict[str, float | Unknown]:
    """Requests, share of the KV cache, tokens per second; `acceptance` is the share of the drafted tokens that were
    accepted since the engine was started.

    `counted` is `{first, second, seconds}` as a node read it, or why it could not. `engine` is None where the version
    is not known; then the names are tried.
    """
    names = (*GAUGES, *RATES, "acceptance")
    if isinstance(counted, Unknown):
        return dict.fromkeys(names, counted)
    found = counted if isinstance(counted, Mapping) else {}
    first, second = found.get("first"), found.get("second")
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return dict.fromkeys(names, Unknown.of("not-answered"))
    rates = {name: _rate(first, second, found.get("seconds"), metric, engine) for name, metric in RATES.items()}
    gauges = {name: _value(second, metric, metric, engine) for name, metric in GAUGES.items()}
    return {**gauges, **rates, "acceptance": acceptance(second, engine)}


def acceptance(
    now: Mapping[str, object], engine: Engine | None, before: Mapping[str, object] | None = None
) -> float | Unknown:
    """The share of the drafted tokens that were accepted, since the engine's start or `before`."""
    shares = []
    for metric in (ACCEPTED, DRAFTED):
        value = _value(now, metric + TOTAL, metric, engine)
        if isinstance(value, Unknown):
            return value
        shares.append(value - (number((before or {}).get(metric + TOTAL)) or 0.0))
    accepted, drafted = shares
    return accepted / drafted if drafted > 0 and accepted >= 0 else Unknown.of("nothing-drafted")


def _rate(
    first: Mapping[str, object], second: Mapping[str, object], seconds: object, metric: str, engine: Engine | None
) -> float | Unknown:
    began, ended = (_value(each, metric + TOTAL, metric, engine) for each in (first, second))
    if isinstance(began, Unknown) or isinstance(ended, Unknown):
        return ended if isinstance(ended, Unknown) else began
    passed = number(seconds)
    if not passed or passed < 0:
        return Unknown.of("not-answered")
    return Unknown.of("counter-went-back", metric=metric) if ended < began else (ended - began) / passed


def _value(samples: Mapping[str, object], sample: str, metric: str, engine: Engine | None) -> float | Unknown:
    if engine is not None and engine.exact and metric not in engine.metrics:
        return Unknown.of("metric-not-in-version", metric=metric, version=engine.version)
    value = number(samples.get(sample))
    return Unknown.of("metric-absent", metric=metric) if value is None else value


def number(value: object) -> float | None:
    """A finite number out of what a node answered; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
