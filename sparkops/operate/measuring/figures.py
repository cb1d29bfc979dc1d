"""What an engine's counters say: gauges, and rates out of two readings, by the names that its version has.

vLLM has no gauge of tokens per second, so its counters are compared; one that went back belongs to another start.
It must not know how the readings were taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from sparkops.core.states import Unknown
from sparkops.models.engine import Engine
from sparkops.programs.launch import api

GAUGES = {"running": api.RUNNING, "waiting": api.WAITING, "kv_cache_share": api.CACHE_SHARE}
RATES = {"generation_tokens_per_second": api.GENERATED, "prompt_tokens_per_second": api.READ}


def figures(counted: object, engine: Engine | None) -> dict[str, float | Unknown]:
    """Requests, share of the KV cache, tokens per second; `acceptance` is the share of the drafted tokens that were
    accepted since the engine was started.

    `counted` is `{first, second, seconds}` as a node read it, or why it could not; `seconds` is None where nobody asked
    the engine for anything, so that one reading is enough. `engine` is None where the version
    is not known; then the names are tried.
    """
    names = (*GAUGES, *RATES, "acceptance")
    if isinstance(counted, Unknown):
        return dict.fromkeys(names, counted)
    found = counted if isinstance(counted, Mapping) else {}
    first, second = found.get("first"), found.get("second")
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return dict.fromkeys(names, Unknown.of("not-answered"))
    rates = {name: _rate(first, second, found.get("seconds"), sample, engine) for name, sample in RATES.items()}
    gauges = {name: _value(second, sample, engine) for name, sample in GAUGES.items()}
    return {**gauges, **rates, "acceptance": acceptance(second, engine)}


def acceptance(
    now: Mapping[str, object], engine: Engine | None, before: Mapping[str, object] | None = None
) -> float | Unknown:
    """The share of the drafted tokens that were accepted, since the engine's start or `before`."""
    shares = []
    for sample in (api.ACCEPTED, api.DRAFTED):
        value = _value(now, sample, engine)
        if isinstance(value, Unknown):
            return value
        shares.append(value - (number((before or {}).get(sample)) or 0.0))
    accepted, drafted = shares
    return accepted / drafted if drafted > 0 and accepted >= 0 else Unknown.of("nothing-drafted")


def _rate(
    first: Mapping[str, object], second: Mapping[str, object], seconds: object, sample: str, engine: Engine | None
) -> float | Unknown:
    began, ended = (_value(each, sample, engine) for each in (first, second))
    if isinstance(began, Unknown) or isinstance(ended, Unknown):
        return ended if isinstance(ended, Unknown) else began
    if seconds is None and all(second.get(each) == 0 for each in api.BUSY):
        return 0.0
    passed = number(seconds)
    if not passed or passed < 0:
        return Unknown.of("not-answered")
    return Unknown.of("counter-went-back", metric=_metric(sample)) if ended < began else (ended - began) / passed


def _metric(sample: str) -> str:
    """The engine's own name: that of a counter in the text form ends in `_total`."""
    return sample.removesuffix("_total")


def _value(samples: Mapping[str, object], sample: str, engine: Engine | None) -> float | Unknown:
    metric = _metric(sample)
    if engine is not None and engine.exact and metric not in engine.metrics:
        return Unknown.of("metric-not-in-version", metric=metric, version=engine.version)
    value = number(samples.get(sample))
    return Unknown.of("metric-absent", metric=metric) if value is None else value


def number(value: object) -> float | None:
    """A finite number out of what a node answered; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
