"""The report as metrics in Prometheus' text format, for node_exporter's textfile collector.

Labels name nodes, states and ids only: the number of series does not grow with the resources.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from sparkops.core.report import Report
from sparkops.reports.formatting import safe
from sparkops.reports.run.findings import STANDINGS, findings, standings

Sample = tuple[Mapping[str, str], float]


def render(report: Report) -> str:
    """All metrics, each a gauge with its help. Times are seconds since the epoch."""
    about = {"cluster": report.cluster, "command": report.command}
    told = findings(report)
    states = standings(report, told)
    counted = Counter((each.node, states[each.id]) for each in report.plan.declared)
    found = Counter((each.node, each.id, each.severity) for each in told if not each.accepted)
    done = {each.id for each in report.results if each.outcome == "done"}
    interrupted = sorted({step.service or step.id for step in report.plan.disruptive if step.id not in done})
    metrics: list[tuple[str, str, list[Sample]]] = [
        ("run_timestamp_seconds", "When the run ended", [({}, report.time)]),
        ("run_duration_seconds", "How long the run took", [({}, report.seconds)]),
        (
            "run_exit_status",
            "0 as declared, 2 differs, 3 unknown, 4 failed, 5 held",
            [({}, report.exit_status)],
        ),
        (
            "node_reachable",
            "1 where the node answered",
            [({"node": node}, node not in report.plan.unreachable) for node in report.plan.nodes],
        ),
        (
            "resources",
            "Declared resources by their state",
            [
                ({"node": node, "state": state}, counted[node, state])
                for node in report.plan.nodes
                for state in STANDINGS
            ],
        ),
        (
            "findings",
            "What is not as declared or has to be said, by its id, without what is accepted",
            [
                ({"node": node, "id": id, "severity": severity}, number)
                for (node, id, severity), number in sorted(found.items())
            ],
        ),
        (
            "repair_interrupts_service",
            "1 for each service that a repair would interrupt",
            [({"service": each}, 1) for each in interrupted],
        ),
    ]
    return "".join(line for name, help, samples in metrics for line in metric(f"sparkops_{name}", help, about, samples))


def metric(name: str, help: str, about: Mapping[str, str], samples: Iterable[Sample]) -> Iterable[str]:
    """The lines of a gauge; `about` are the labels that all its samples have."""
    yield f"# HELP {name} {help}\n# TYPE {name} gauge\n"
    for labels, number in samples:
        told = ",".join(f'{key}="{_label(each)}"' for key, each in {**about, **labels}.items())
        yield f"{name}{{{told}}} {float(number)!r}\n"


def _label(text: str) -> str:
    return safe(text).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
