"""A check and a program that makes it true: for what no other kind covers."""

import os
import re
import subprocess

from sparkops.core import process_group
from sparkops.core.kind_messages import CommandAct, CommandAsk
from sparkops.core.messages import State
from sparkops.worker.calls import Call, Refused, Unknown
from sparkops.worker.system import long_process, processes

SHOWN = 400
"""Characters of a check's output that are shown."""
READ = 1 << 20
"""Bytes of a check's output that are compared."""


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
    """Status and output of a check; one that hangs is ended with all its children."""
    with open(os.memfd_create("sparkops-check"), "w+b") as output:
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        except FileNotFoundError:
            return 127, "not installed"
        except PermissionError:
            return 126, "not executable"
        try:
            status = child.wait(timeout)
        except subprocess.TimeoutExpired:
            process_group.end(child, processes.PATIENCE)
            raise Unknown.of("program-timeout", program=" ".join(argv[:3]), seconds=timeout) from None
        return status, os.pread(output.fileno(), READ, 0).decode(errors="replace")


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
