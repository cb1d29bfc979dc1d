"""The node half of `probe`: one completion within a deadline, and the wait for an engine that loads."""

import contextlib
import http.client
import json
import re
import socket
import threading
import time
from typing import Any

from sparkops.programs import docker
from sparkops.worker.calls import Call, Refused, Unknown
from sparkops.worker.kinds import unit

"""What is seen changes by itself; what was planned is to see it answer, and that stays right."""
ROUTES = ("/v1/completions", "/v1/chat/completions")
POLL = 1.0
TRIES = 3
LOG_LINES = 40
READ_LINES = 4000
ANSWER_LIMIT = 16 << 20
WORDS = re.compile(r"error|exception|fatal|failed|killed|sparkops:", re.IGNORECASE)

START = re.compile(r"Starting .*\(sparkops\)\.\.\.$")
"""systemd's own words; units of the role `service` are described so."""


class _Late(Exception):
    """The deadline passed."""


def observe(ask: dict[str, Any]) -> dict[str, Any]:
    """`answers`; and where it doesn't, `why` in words that name what does answer."""
    started = time.monotonic()
    why = completion(ask)
    if not why:
        return {"answers": True, "seconds": round(time.monotonic() - started, 3)}
    if ask.get("unit"):
        with contextlib.suppress(Unknown):
            why = _of_unit(unit.show([ask["unit"]])[ask["unit"]]) or why
    return {"answers": False, "why": why}


def _of_unit(shown: dict[str, str]) -> str:
    """Words for a unit that explains the silence; "" for one that is said to be serving."""
    active, status = shown.get("ActiveState"), shown.get("StatusText", "")
    if active == "active":
        return ""
    if active == "failed":
        return f"the unit has failed ({shown.get('Result')})" + (f": {status}" if status else "")
    result = "" if shown.get("Result") == "success" else f", {shown.get('Result')}"
    return f"the unit is {active} ({shown.get('SubState')}{result})" + (f": {status}" if status else "")


def completion(ask: dict[str, Any]) -> str:
    """Ask for a completion; "" when it is a good one, else what is wrong. Never longer than the limit and a breath."""
    deadline = time.monotonic() + ask["limit_seconds"]
    try:
        key = _api_key(ask.get("spec"))
        model = ask["model"] or _model(ask, key, deadline)
        status, data = 404, b""
        route = ROUTES[0]
        for route in ROUTES:
            status, data = _request(ask, "POST", route, _body(ask, model, route), key, deadline)
            if status not in (404, 405):
                break
        if status != 200:
            return f"{route} answers {status}: {data[:300].decode(errors='replace').strip()}"
        return _judge(data, ask["expect"])
    except _Late:
        return f"no completion within {ask['limit_seconds']:g} s" + _lies(ask)
    except ConnectionRefusedError:
        return f"nothing listens on {ask['host']}:{ask['port']}"
    except (OSError, http.client.HTTPException) as error:
        return f"the connection broke: {error or type(error).__name__}"
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return "what came is no completion"


def _body(ask: dict[str, Any], model: str, route: str) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "max_tokens": ask["max_tokens"], "temperature": 0}
    if route.endswith("/chat/completions"):
        return {**body, "messages": [{"role": "user", "content": ask["prompt"]}]}
    return {**body, "prompt": ask["prompt"]}


def _judge(data: bytes, expect: str | None) -> str:
    answer = json.loads(data)
    choice = answer["choices"][0]
    if (answer.get("usage") or {}).get("completion_tokens", 1) == 0:
        return "the completion has no token"
    text = choice["text"] if "text" in choice else choice["message"].get("content")
    if expect is None:
        return ""
    if isinstance(text, str) and re.search(expect, text):
        return ""
    return f"it answers {str(text)[:200]!r}, in which nothing matches {expect!r}"


def _lies(ask: dict[str, Any]) -> str:
    """What `/health` says meanwhile: a 200 there is no proof, and has to be told."""
    try:
        status, _ = _request(ask, "GET", "/health", None, "", time.monotonic() + 2.0)
    except (_Late, OSError, http.client.HTTPException):
        return "; /health does not answer either"
    return f", though /health answers {status}"


def _model(ask: dict[str, Any], key: str, deadline: float) -> str:
    status, data = _request(ask, "GET", "/v1/models", None, key, deadline)
    if status != 200:
        raise OSError(f"/v1/models answers {status}")
    return str(json.loads(data)["data"][0]["id"])


def _request(ask: dict[str, Any], method: str, path: str, body: Any, key: str, deadline: float) -> tuple[int, bytes]:
    """Status and body. Raises _Late at the deadline, however slowly bytes may trickle; else OSError, HTTPException."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise _Late
    link = http.client.HTTPConnection(ask["host"], ask["port"], timeout=left)
    late = threading.Event()
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    timer = threading.Timer(left, _cut, (link, late))
    timer.daemon = True
    timer.start()
    try:
        link.request(method, path, None if body is None else json.dumps(body).encode(), headers)
        answer = link.getresponse()
        data = answer.read(ANSWER_LIMIT)
    except TimeoutError:
        raise _Late from None
    except (OSError, http.client.HTTPException):
        if late.is_set():
            raise _Late from None
        raise
    finally:
        timer.cancel()
        link.close()
    if late.is_set():
        raise _Late
    return answer.status, data


def _cut(link: http.client.HTTPConnection, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError, AttributeError):
        link.sock.shutdown(socket.SHUT_RDWR)


def _api_key(path: str | None) -> str:
    """The key that the engine was started with, out of the launcher's spec; "" where it has none."""
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            spec = json.load(file)
        environment = dict(spec["environment"])
        if spec["secrets"]:
            with open(spec["secrets"], encoding="utf-8") as file:
                environment.update(json.load(file))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return ""
    return str(environment.get("VLLM_API_KEY", ""))


def converge(
    call: Call, ask: dict[str, Any], found: dict[str, Any] | None, want: dict[str, Any] | None, act: dict[str, Any]
) -> None:
    """Wait until it answers. Raises Refused, with the log, when it has failed for good or the time is over."""
    if want is None:
        return
    started = time.monotonic()
    limit, failures = act["wait_seconds"], 0
    while True:
        shown = unit.show([ask["unit"]])[ask["unit"]] if ask.get("unit") else {}
        loading = _loading(shown)
        if not loading:
            why = completion(ask)
            if not why:
                return
            failures += 1
            if shown and failures >= TRIES:
                raise _refused(ask, f"the unit is active, yet {why}")
        else:
            why, failures = loading, 0
            if _for_good(shown):
                raise _refused(ask, why)
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


def _refused(ask: dict[str, Any], why: str) -> Refused:
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


def engine_log(ask: dict[str, Any]) -> list[str]:
    """The engine's last lines: out of the journal, to which the launcher copies them, else out of Docker."""
    lines: list[str] = []
    if ask.get("unit"):
        lines = newest_run(unit.journal(ask["unit"], READ_LINES).splitlines())
    if not lines and ask.get("container"):
        path, query = f"/containers/{ask['container']}/logs", {"stdout": "1", "stderr": "1", "tail": str(READ_LINES)}
        with contextlib.suppress(Unknown, Refused, OSError):
            status, data = docker.request("GET", path, query=query)
            text = data.decode(errors="replace")
            lines = [re.sub(r"^[\x00-\x08].{7}", "", line) for line in text.splitlines()] if status == 200 else []
    return [line for line in lines if line.strip()]
