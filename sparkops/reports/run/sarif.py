"""The report as SARIF 2.1.0: each finding at the place in the inventory that declares the node or the service."""

from __future__ import annotations

import json

import sparkops
from sparkops.core import wording
from sparkops.core.report import Report
from sparkops.reports.findings import sarif
from sparkops.reports.formatting import safe
from sparkops.reports.run.findings import Finding, findings


def render(report: Report) -> str:
    """The log, as JSON."""
    found = findings(report)
    order = {id: index for index, id in enumerate(dict.fromkeys(each.id for each in found))}
    first = {each.id: each for each in reversed(found)}
    rules = [_rule(first[id]) for id in order]
    results = [_result(each, order[each.id]) for each in found]
    made = sarif.log("sparkops", sparkops.__version__, "formats.md", rules, results)
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def _rule(each: Finding) -> dict[str, object]:
    entries = wording.explained(each.id)
    cause = entries[0].cause if entries else ""
    return sarif.rule(
        each.id,
        short=each.id.replace("-", " "),
        full=cause,
        help=f"`sparkops explain {each.id}` explains it.",
        level=sarif.LEVELS[each.severity],
    )


def _result(each: Finding, index: int) -> dict[str, object]:
    text = safe(f"{each.text} → {each.fix}" if each.fix else each.text)
    made = sarif.result(each.id, index, each.severity, text, where=each.where, accepted=each.accepted)
    made["partialFingerprints"] = {"resource/v1": safe(f"{each.id} {each.key}")}
    logical = {"name": safe(each.resource or each.node), "kind": "resource" if each.resource else "module"}
    made.setdefault("locations", [{}])[0]["logicalLocations"] = [logical]
    return made
