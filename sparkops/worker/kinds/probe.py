"""The node half of `probe`: one completion within a deadline, and the wait for an engine that loads."""

import contextlib
import re
import time

from sparkops.core.kind_messages import ProbeAct, ProbeAsk
from sparkops.core.messages import State
from sparkops.programs import docker
from sparkops.programs.launch.api import Asked, Question
from sparkops.worker.calls import Call, Refused, Unknown
from sparkops.worker.kinds import unit
from sparkops.worker.system import serving

POLL = 1.0
TRIES = 3
UNKNOWN_SECONDS = 30.0
"""For Docker or systemd to tell again who answers."""
LOG_LINES = 40
READ_LINES = 4000
WORDS = re.compile(r"error|exception|fatal|failed|killed|sparkops:", re.IGNORECASE)

START = re.compile(r"Starting .*\(sparkops\)\.\.\.$")
"""systemd's own words; units of the role `service` are described so."""


def observe(ask: ProbeAsk) -> dict[str, object]:
    """`answers`; and where it doesn't, `why` in words that name what does answer.

    Raises Unknown where it can't be told: the question was refused or sent away, or whose answer it is is not known.
    """
    started = time.monotonic()
    asked = completion(ask)
    if not asked.why:
        return {"answers": True, "seconds": round(time.monotonic() - started, 3)}
    if asked.refused or asked.busy:
        raise Unknown.of("completion-refused" if asked.refused else "completion-sent-away", text=asked.why)
    why = asked.why
    if name := ask.get("unit"):
        with contextlib.suppress(Unknown):
            why = _of_unit(unit.show([name])[name]) or why
    return {"answers": False, "why": why}


def _of_unit(shown: dict[str, str]) -> str:
    """Words for a unit that explains the silence; "" for one that is said to be serving."""
    active, status, result = shown.get("ActiveState"), shown.get("StatusText", ""), shown.get("Result")
    if active == "active":
        return ""
    if active == "inactive" and result == "success":
        return "the unit is stopped"
    if active == "failed":
        return f"the unit has failed ({result})" + (f": {status}" if status else "")
    failed = "" if result == "success" else f", {result}"
    return f"the unit is {active} ({shown.get('SubState')}{failed})" + (f": {status}" if status else "")


def completion(ask: ProbeAsk) -> Asked:
    """Ask for a completion, of nobody but the declared service. Raises Unknown where it is not known who listens."""
    question = Question(ask["model"] or "", ask["prompt"], ask["max_tokens"], ask["expect"] or "")
    return serving.api(ask, question).completion(ask["limit_seconds"])


def converge(call: Call, ask: ProbeAsk, found: State, want: State, act: ProbeAct) -> None:
    """Wait until it answers. Raises Refused, with the log, when it has failed for good or the time is over."""
    if want is None:
        return
    started = known = time.monotonic()
    limit, failures = act["wait_seconds"], 0
    while True:
        shown: dict[str, str] = {}
        try:
            if name := ask.get("unit"):
                shown = unit.show([name])[name]
            loading = _loading(shown)
            asked = Asked(loading) if loading else completion(ask)
            why, known = asked.why, time.monotonic()
        except Unknown:  # Docker, or systemd, starts again in the middle of the wait
            now = time.monotonic()
            if now - known > UNKNOWN_SECONDS or now - started > limit:
                raise
            why = "whether it answers is not known just now"
        else:
            if not why:
                return
            failures = 0 if loading else failures + 1
            if loading and _for_good(shown):
                raise _refused(ask, why)
            if shown and not loading and (asked.refused or failures >= TRIES):
                raise _refused(ask, f"the unit is active, yet {why}")
        seconds = time.monotonic() - started
        if seconds > limit:
            raise _refused(ask, f"after {seconds:.0f} s: {why}")
        call.progress(why, done=round(seconds), total=None, unit="s")
        if call.stopping.wait(POLL) or call.session_over.is_set():
            raise Refused.of("probe-wait-cancelled", type="cancelled")


def _loading(shown: dict[str, str]) -> str:
    """Words for a unit that is not serving; "" for one that is, or where there is none."""
    if not shown:
        return ""
    restarts = int(shown.get("NRestarts") or 0)
    said = shown.get("StatusText", "") if shown.get("SubState") == "start" else ""
    words = said or _of_unit(shown)
    return words and words + (f" (restarted {'once' if restarts == 1 else f'{restarts} times'})" if restarts else "")


def _for_good(shown: dict[str, str]) -> bool:
    """Whether systemd will not try again by itself."""
    return shown.get("ActiveState") in ("failed", "inactive") and not shown.get("Job")


def _refused(ask: ProbeAsk, why: str) -> Refused:
    log = engine_log(ask)
    last = log[-LOG_LINES:]
    telling = [line for line in log[:-LOG_LINES] if WORDS.search(line)][-LOG_LINES:]
    detail = "\n".join([*telling, *(["…"] if telling else []), *last])
    if ask.get("unit"):
        return Refused.of("unit-not-serving", detail=detail, unit=ask["unit"], text=why)
    return Refused.of("endpoint-not-serving", detail=detail, text=why)


def newest_run(lines: list[str]) -> list[str]:
    """What was said since systemd last began to start the unit: an older run's error is no cause of this one's."""
    starts = [number for number, line in enumerate(lines) if START.match(line)]
    return lines[starts[-1] :] if starts else lines


def engine_log(ask: ProbeAsk) -> list[str]:
    """The engine's last lines: out of the journal, to which the launcher copies them, else out of Docker."""
    lines: list[str] = []
    if name := ask.get("unit"):
        lines = newest_run(unit.journal(name, READ_LINES).splitlines())
    if not lines and (container := ask.get("container")):
        with contextlib.suppress(Unknown, OSError):
            lines = (docker.logs(container, READ_LINES) or "").splitlines()
    return [line for line in lines if line.strip()]
