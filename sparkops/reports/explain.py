"""The pages of `sparkops explain`: an error of the catalogue, or a rule of lint."""

from __future__ import annotations

import re
import textwrap

from sparkops.core.wording import Entry
from sparkops.lint.rules import Rule

WIDTH = 100


def error_page(entry: Entry) -> str:
    """What an id of `knowledge/errors` means; what stands for a value of the moment is shown as <name>."""
    parts = [entry.id, _wrapped("", _placeholders(entry.message)), _wrapped("", entry.cause)]
    fix = _wrapped("Fix: ", _placeholders(entry.fix))
    if entry.fix_command:
        fix += "\n" + _wrapped("Without an inventory: ", _placeholders(entry.fix_command))
    return "\n\n".join(part for part in [*parts, fix] if part)


def rule_page(rule: Rule) -> str:
    """What a rule finds, why, and in which listed engine versions it is in force."""
    severity = rule.severity if rule.severity == rule.spark else f"{rule.severity}; on a Spark node {rule.spark}"
    lines = [f"{rule.id} ({severity})", "", rule.summary, "", f"Why: {rule.why}", f"Fix: {rule.remedy}"]
    return "\n".join([*lines, f"In force: {rule.span()}", f"Source: {rule.source}"])


def _placeholders(template: str) -> str:
    template = re.sub(r"(?<!\{)\{(\w+):aside\}", r" (<\1>)", template)
    text = re.sub(r"(?<!\{)\{(\w+)[^{}]*\}(?!\})", r"<\1>", template)
    return text.replace("{{", "{").replace("}}", "}")


def _wrapped(lead: str, text: str) -> str:
    text = " ".join(text.split())
    indent = " " * len(lead)
    return textwrap.fill(lead + text, WIDTH, subsequent_indent=indent, break_on_hyphens=False) if text else ""
