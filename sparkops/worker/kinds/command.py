"""A check and a program that makes it true: for what no other kind covers."""

import os
import re

from sparkops.core.kind_messages import CommandAct, CommandAsk
from sparkops.core.messages import State
from sparkops.worker.calls import Call, Refused, Unknown
from sparkops.worker.system import long_process, processes

SHOWN = 400
"""Characters of a check's output that are shown."""
READ = 1 << 20
"""Bytes of a check's output that are compared."""
UNUSABLE = {"program-missing": (127, "not installed"), "program-not-executable": (126, "not executable")}
"""Status and output where there is no such program."""


def observe(ask: CommandAsk) -> dict[str, object]:
    """`{"ok": bool}`, with `why` (a Reason) where it is not. Raises Unknown when the check hangs.

    `ask`: `creates` path or None; `check` argv or empty; `stdout` and `matches` or None; `timeout` seconds.
    """
    if ask["creates"] and not os.path.lexists(ask["creates"]):
        return _failing("command-creates-missing", path=ask["creates"])
    if not ask["check"]:
        return {"ok": True}
    program, (status, said) = ask["check"][0], _run(ask["check"], float(ask["timeout"]))
    output = said.strip()[-SHOWN:] or "no output"
    if status != 0:
        return _failing("command-check-failed", program=program, status=status, output=output)
    if ask["stdout"] is not None and said.strip() != ask["stdout"].strip():
        return _failing("command-output-differs", program=program, output=output)
    if ask["matches"] is not None and not re.search(ask["matches"], said, re.MULTILINE):
        return _failing("command-output-no-match", program=program, pattern=ask["matches"], output=output)
    return {"ok": True, "why": None}


def _run(argv: list[str], timeout: float) -> tuple[int, str]:
    """Status and output of a check; that of one that can't be run as in a shell."""
    try:
        with processes.ended(argv, timeout) as (status, out, _):
            return status, out.read(READ).decode(errors="replace")
    except Refused as error:
        if error.id in UNUSABLE:
            return UNUSABLE[error.id]
        raise Unknown(error.id, error.values) from None


def _failing(id: str, **args: object) -> dict[str, object]:
    return {"ok": False, "why": {"id": id, "args": args}}


def converge(call: Call, ask: CommandAsk, found: State, want: State, act: CommandAct) -> None:
    """Run the program of `act`: `run` argv, `timeout` seconds, `env`."""
    if not act.get("run"):
        raise Refused.of("command-without-run", reason=(found or {}).get("why"))
    long_process.run(
        call,
        act["run"],
        timeout=float(act["timeout"]),
        env=act.get("env"),
        line=lambda text: call.progress(text[:SHOWN]),
    )
