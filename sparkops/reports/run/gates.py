"""What an engine's gate measured, in one line. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from sparkops.core.report import Result


def figures(result: Result) -> str:
    """Speed with that before, clock and power, acceptance, canaries and tool call; "" for what is no gate or asked
    nothing of these. A figure that could not be had has its reason."""
    found = result.found or {}
    if not result.id.startswith("gate ") or not found.get("passed"):
        return ""
    told = []
    if speed := _number(found.get("speed")):
        told.append(f"{speed:.1f} tokens/s{_hardware(found)}{_before(found.get('before'), speed)}")
        if why := found.get("hardware_why"):
            told.append(str(why))
    if length := _number(found.get("acceptance_length")):
        told.append(f"{length:.2f} tokens per step")
    if number := _number(found.get("canaries")):
        told.append("1 canary right" if number == 1 else f"{number:.0f} canaries right")
    if found.get("tool_call") is True:
        told.append("tool call right")
    return "; ".join(told)


def _before(before: object, speed: float) -> str:
    if not isinstance(before, Mapping) or not (then := _number(before.get("speed"))):
        return ", the first that was measured"
    return f", {speed / then:.0%} of {then:.1f}{_hardware(before)} before"


def _hardware(found: Mapping[str, object]) -> str:
    clock, power = _number(found.get("sm_clock_mhz")), _number(found.get("power_watts"))
    words = [f"{clock:.0f} MHz"] if clock else []
    words += [f"{power:.1f} W"] if power else []
    return f" at {', '.join(words)}" if words else ""


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
