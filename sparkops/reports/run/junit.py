"""The report as JUnit XML, as Jenkins and GitLab read it: a suite for each node, a case for each resource.

Drift and violations are failures, what is unknown is an error: a test that could not be made says nothing.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from sparkops.core.report import Report
from sparkops.reports.formatting import safe
from sparkops.reports.run.findings import Finding, findings

FAILURES = ("drifted", "violation")


def render(report: Report) -> str:
    """The document, in UTF-8."""
    root = ET.Element("testsuites", name=_text(f"sparkops {report.command} {report.cluster}"))
    found = findings(report)
    for node in report.plan.nodes:
        root.append(_suite(report, node, [each for each in found if each.node == node]))
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(report: Report, node: str, found: Sequence[Finding]) -> ET.Element:
    """The cases of a node: its declared resources, and what was found beside them."""
    made = datetime.datetime.fromtimestamp(report.time, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    suite = ET.Element("testsuite", name=_text(node), timestamp=made, hostname=_text(node))
    about: dict[str, list[Finding]] = {each.id: [] for each in report.plan.declared if each.node == node}
    for each in found:
        about.setdefault(each.key, []).append(each)
    results = {each.id: each.seconds for each in report.results}
    silent = node in report.plan.unreachable
    cases = [_case(report, node, key, each, results.get(key, 0.0), silent) for key, each in about.items()]
    suite.extend(cases)
    for name, tag in (("failures", "failure"), ("errors", "error")):
        suite.set(name, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("tests", str(len(cases)))
    suite.set("skipped", "0")
    return suite


def _case(report: Report, node: str, key: str, found: Sequence[Finding], seconds: float, silent: bool) -> ET.Element:
    """One case. The worst finding decides; the others stand in its output. `silent`: the node did not answer."""
    name = key.removesuffix(f" @{node}")
    case = ET.Element("testcase", name=_text(name), classname=_text(f"{report.cluster}.{node}"), time=f"{seconds:.3f}")
    worst = next((each for each in found if each.standing != "as-declared"), None)
    if worst is not None:
        tag = "failure" if worst.standing in FAILURES else "error"
        ET.SubElement(case, tag, type=_text(worst.id), message=_text(worst.text)).text = _text(_body(worst))
    elif silent:
        ET.SubElement(case, "error", type="unknown", message=_text(f"{node} is unreachable"))
    others = [f"{each.severity}: {each.text} [{each.id}]" for each in found if each is not worst]
    if others:
        ET.SubElement(case, "system-out").text = _text("\n".join(others))
    return case


def _body(each: Finding) -> str:
    parts = [each.text, f"→ {each.fix}" if each.fix else "", each.where]
    if each.step is not None:
        parts.append(each.step.diff)
    if each.result is not None:
        parts.append(each.result.detail)
    return "\n".join(part for part in parts if part)


def _text(text: str) -> str:
    """Without what XML 1.0 can't hold."""
    return safe(text).replace("\ufffe", "�").replace("\uffff", "�")
