"""Applies the rules: from what is checked to findings, worst first.

A rule is a public function of a module of rules; its id is the function's name with dashes, its words are found by that
id in `knowledge/rules`. It must not know where a line comes from, nor who prints the findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from inspect import isfunction
from types import ModuleType

from sparkops.core.errors import LintError
from sparkops.core.wording import Severity
from sparkops.lint import caching, configurations, parsing, placing, quantizing, serving, speculating, unlisted
from sparkops.lint.case import Case, Found
from sparkops.lint.rules import rules
from sparkops.models.engine import Engine

LINE_RULES = (parsing, configurations, caching, speculating, quantizing, placing, serving, unlisted)
"""The modules whose rules check one serve line."""

WORDS = (
    *("unknown-flag", "flag-choice", "tool-parser-unknown", "reasoning-parser-unknown"),
    *("configuration-key-unknown", "configuration-value", "word-unknown", "connector-unknown", "load-format"),
    *("speculative-method-unknown", "speculative-field-unknown", "quantization-unknown", "quantization-config-refused"),
    *("kv-dtype-unknown", "moe-backend-refused", "no-attention-backend", "attention-backend-refused"),
)
"""The rules about words, of which a later version knows more."""

ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule reports of one subject. `where` is `file:line` in an inventory; `accepted` the reason for which
    it suppresses the finding."""

    id: str
    severity: Severity
    message: str
    subject: str
    remedy: str
    source: str
    engine: str
    where: str = ""
    flag: str = ""
    accepted: str = ""


@cache
def checks(*modules: ModuleType) -> Mapping[str, Callable[[object], Iterable[Found]]]:
    """The rules of these modules by id, in the order in which they are defined."""
    return {
        name.replace("_", "-"): function
        for module in modules
        for name, function in vars(module).items()
        if isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }


def applied(modules: Iterable[ModuleType], subject: object, engine: Engine | None) -> Iterator[tuple[str, Found]]:
    """What the rules that are in force for this engine find, each with its rule's id."""
    for name, function in checks(*modules).items():
        if rules()[name].in_force(engine):
            yield from ((name, found) for found in function(subject))


def finding(
    name: str, found: Found, subject: str, *, engine: Engine | None, severity: Severity | None = None, where: str = ""
) -> Finding:
    """The finding of a rule; its severity is the given one, else that of what was found, else the rule's."""
    rule = rules()[name]
    return Finding(
        id=name,
        severity=severity or found.severity or rule.severity,
        message=found.message,
        subject=subject,
        remedy=found.remedy or rule.remedy,
        source=rule.source,
        engine=engine.asked if engine else "",
        where=where,
        flag=found.about,
    )


def check(case: Case, subject: str = "", model: str = "") -> list[Finding]:
    """All findings of a case, errors first. `subject` names what is checked; else it is its flag or model."""
    named = model or case.line.model or "vllm serve"
    return ordered(
        [
            finding(
                name,
                found,
                subject or found.about or named,
                engine=case.engine,
                severity=_severity(name, found, case),
            )
            for name, found in applied(LINE_RULES, case, case.engine)
        ]
    )


def ordered(findings: list[Finding]) -> list[Finding]:
    """Errors first, else in the order of the rules."""
    return sorted(findings, key=lambda each: (ORDER[each.severity], bool(each.accepted)))


def refusing(findings: list[Finding]) -> list[Finding]:
    """The errors that the inventory does not accept."""
    return [each for each in findings if each.severity == "error" and not each.accepted]


def refuse(findings: list[Finding]) -> None:
    """Raises LintError with every error that the inventory does not accept."""
    errors = [
        LintError.of(
            "lint-rule-violated",
            where=each.where,
            subject=each.subject,
            message=each.message,
            rule=each.id,
            remedy=each.remedy,
        )
        for each in refusing(findings)
    ]
    if errors:
        raise LintError.joined(errors)


def _severity(name: str, found: Found, case: Case) -> Severity:
    """No error where the version is older than all that are listed, as its laws are not known, nor about a word that a
    version after them may know, nor about what a file of further flags may change."""
    rule = rules()[name]
    severity = found.severity or (rule.spark if case.spark else rule.severity)
    partly = case.line.get("config") is not None and name not in checks(parsing)
    unsure = partly or case.engine.later or (case.engine.unsure_of_words and name in WORDS)
    return "warning" if severity == "error" and unsure else severity
