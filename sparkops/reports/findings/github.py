"""Workflow commands of GitHub Actions that annotate lines of a file. It must not know what is found."""

from __future__ import annotations

from sparkops.core.wording import Severity
from sparkops.reports.findings.sarif import place

COMMANDS: dict[Severity, str] = {"error": "error", "warning": "warning", "info": "notice"}


def annotation(severity: Severity, where: str, title: str, message: str) -> str:
    """One line. `where` is `file:line` or `file:line:column`, or empty for the whole workflow run."""
    file, line = place(where)
    spot = f"file={_property(file)},line={line}," if file else ""
    return f"::{COMMANDS[severity]} {spot}title={_property(title)}::{_escaped(message)}"


def _escaped(message: str) -> str:
    return message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _escaped(value).replace(":", "%3A").replace(",", "%2C")
