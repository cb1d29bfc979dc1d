"""One line judged by all rules: findings, worst first.

It must not know where the line comes from, nor who prints what was found.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparkops.lint.case import Case, Found, Severity
from sparkops.lint.rules import CHECKS, rules

ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule says of one subject. `where` is `file:line` for what comes from an inventory; `accepted` the reason
    for which the inventory suppresses it."""

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


def check(case: Case, subject: str = "", model: str = "") -> list[Finding]:
    """All findings of a case, errors first. `subject` names what is judged; for a bare line it is its flag or model."""
    found = [_finding(name, each, case, subject, model) for name, function in CHECKS.items() for each in function(case)]
    found += [_finding("model-unknown", each, case, subject, model) for each in _model_unknown(case)]
    found += [_finding("engine-unlisted", each, case, subject, model) for each in _engine_unlisted(case)]
    return ordered(found)


def ordered(findings: list[Finding]) -> list[Finding]:
    """Errors first, else in the order of the rules."""
    return sorted(findings, key=lambda each: (ORDER[each.severity], bool(each.accepted)))


def refusing(findings: list[Finding]) -> list[Finding]:
    """The errors that nobody has accepted."""
    return [each for each in findings if each.severity == "error" and not each.accepted]


def _finding(name: str, found: Found, case: Case, subject: str, model: str) -> Finding:
    rule = rules()[name]
    severity = found.severity or (rule.spark if case.spark else rule.severity)
    return Finding(
        id=name,
        severity="warning" if severity == "error" and case.engine.later else severity,
        message=found.message,
        subject=subject or found.about or model or case.line.model or "vllm serve",
        remedy=found.remedy or rule.remedy,
        source=rule.source,
        engine=case.engine.asked,
        flag=found.about,
    )


def _model_unknown(case: Case) -> list[Found]:
    if case.geometry is not None or not case.line.model:
        return []
    return [Found(f"nothing is known of the model {case.line.model}: rules about its layers and checkpoint are silent")]


def _engine_unlisted(case: Case) -> list[Found]:
    if case.engine.exact:
        return []
    if case.engine.later:
        words = (
            f"{case.engine.asked} is older than all that are listed: judged by {case.engine.version}, without errors"
        )
        return [Found(words)]
    return [Found(f"{case.engine.asked} is not listed: judged by {case.engine.version}")]
