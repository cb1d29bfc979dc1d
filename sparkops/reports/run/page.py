"""What the HTML page shows, as values: words, marks and places in drawings. Pure; it must not know HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sparkops.core.plan import Declared, Step
from sparkops.core.report import KeptRun, Origin, Report
from sparkops.core.wording import duration
from sparkops.reports.formatting import brief, count, moment, names, safe, value
from sparkops.reports.run.drawing import Map, Plot, cluster_map, plot
from sparkops.reports.run.findings import STANDINGS, Finding, Standing, counts, findings, standings, worst
from sparkops.reports.run.unlike import Unlike, unlike

NAME = 120
VALUE = 2_000
DIFF_LINES = 400
DETAILS = 3_000_000
"""Characters of details; what is beyond is counted."""
LISTED = 200
RUNS = 20
ORIGINS: Mapping[Origin, str] = {
    "corrective": "the node moved: what is declared, secrets aside, is the same as when this was last as declared",
    "intentional": "the declaration moved since this was last as declared; the node has what it had then",
    "both": "the node and the declaration moved since this was last as declared",
    "new": "no kept run has seen this as declared yet",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """How a state looks: its class in the style sheet, its symbol, its words."""

    css: str
    symbol: str
    words: str


MARKS: Mapping[Standing, Mark] = {
    "as-declared": Mark("o", "✓", "as declared"),
    "drifted": Mark("d", "≠", "drifted"),
    "violation": Mark("v", "✗", "violation"),
    "unknown": Mark("u", "?", "unknown"),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One resource on one node; `link` leads to its details, empty where there is nothing to tell."""

    state: Mark
    link: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A resource over all nodes: None where it is not declared. `same`: as declared everywhere."""

    name: str
    cells: tuple[Cell | None, ...]
    same: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """What is found alike on one or several nodes."""

    link: str
    state: Mark
    severity: str
    id: str
    title: str
    nodes: str
    text: str
    about: tuple[tuple[str, str], ...]
    changes: tuple[tuple[str, str, str], ...] = ()
    diff: tuple[tuple[str, str], ...] = ()
    detail: str = ""

    @property
    def size(self) -> int:
        """About how many characters it takes."""
        texts = [self.text, self.title, self.detail, *(line for _, line in self.diff)]
        return sum(map(len, texts)) + sum(len(found) + len(declared) for _, found, declared in self.changes) + 500


@dataclass(frozen=True, slots=True)
class NodeLine:
    name: str
    state: Mark
    words: str


@dataclass(frozen=True, slots=True)
class ServiceLine:
    name: str
    nodes: str
    url: str


@dataclass(frozen=True, slots=True)
class Repair:
    """What repairing costs one service. `time` says about how long, or that it is not known."""

    service: str
    steps: str
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The page's values in the order in which they are shown."""

    cluster: str
    verdict: str
    command: str
    inventory: str
    time: str
    seconds: str
    exit_status: int
    run: str
    counts: tuple[tuple[Mark, int], ...]
    states: tuple[Mark, ...] = tuple(MARKS.values())
    map: Map[Mark]
    nodes: tuple[NodeLine, ...]
    services: tuple[ServiceLine, ...]
    repair: tuple[Repair, ...]
    unsure: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    details: tuple[Detail, ...]
    hidden: int
    unlike: tuple[Unlike, ...]
    coverage: str
    unmanaged: tuple[str, ...]
    notices: tuple[str, ...]
    history: Plot | None


def page(report: Report) -> Page:
    """The whole page of a report."""
    found, plan = findings(report), report.plan
    states = standings(report, found)
    told = counts(states)
    details, links, hidden = _details(found)
    by_node = _by_node(report, found, states)
    services = _services(plan.declared)
    return Page(
        cluster=_cut(report.cluster),
        verdict=_verdict(report, told),
        command=report.command,
        inventory=_cut(report.inventory),
        time=moment(report.time),
        seconds=duration(report.seconds) if report.seconds >= 1 else "",
        exit_status=report.exit_status,
        run=report.run,
        counts=tuple((MARKS[each], number) for each, number in told.items()),
        map=cluster_map(
            [(_cut(node, 16), MARKS[worst(by_node[node])]) for node in plan.nodes], _joins(plan.nodes, services)
        ),
        nodes=tuple(
            NodeLine(_cut(node), MARKS[worst(by_node[node])], _node(report, node, by_node[node])) for node in plan.nodes
        ),
        services=tuple(
            ServiceLine(_cut(name), names([_cut(each) for each in nodes]), report.endpoints.get(name, ""))
            for name, nodes in services.items()
        ),
        repair=_repair(report),
        unsure=f"Not counted: {count(told['unknown'], 'resource')} of unknown state." if told["unknown"] else "",
        columns=tuple(_cut(node, 40) for node in plan.nodes),
        rows=_rows(report, found, states, links),
        details=details,
        hidden=hidden,
        unlike=unlike(report, services, states),
        coverage=_coverage(report, states),
        unmanaged=tuple(
            _cut(f"{each.id}{f': {each.kept.text}' if each.kept else ''}", VALUE) for each in plan.orphans[:LISTED]
        ),
        notices=tuple(dict.fromkeys(_cut(each.full, VALUE) for each in plan.notices))[:LISTED],
        history=plot([*report.past.runs, _this(report, told)], moment) if report.past.runs else None,
    )


def _this(report: Report, told: Mapping[Standing, int]) -> KeptRun:
    return KeptRun(
        run=report.run,
        cluster=report.cluster,
        command=report.command,
        time=report.time,
        seconds=report.seconds,
        exit_status=report.exit_status,
        counts={str(state): number for state, number in told.items()},
    )


def _cut(text: str, length: int = NAME) -> str:
    words = safe(text)
    return words if len(words) <= length else f"{words[: length - 1]}…"


def _verdict(report: Report, told: Mapping[Standing, int]) -> str:
    nouns = {"violation": count(told["violation"], "violation")}
    words = [nouns.get(each, f"{told[each]} {MARKS[each].words}") for each in reversed(STANDINGS[1:]) if told[each]]
    silent = len(report.plan.unreachable)
    words += [f"{count(silent, 'node')} unreachable"] if silent else []
    stray = sum(not each.kept for each in report.plan.orphans)
    words += [f"{stray} no longer declared"] if stray else []
    return ", ".join(words) or "as declared"


def _by_node(report: Report, found: Sequence[Finding], states: Mapping[str, Standing]) -> dict[str, list[Standing]]:
    """The states of each node's resources, and of what was found beside them."""
    by_node: dict[str, list[Standing]] = {node: [] for node in report.plan.nodes}
    for each in report.plan.declared:
        by_node.setdefault(each.node, []).append(states[each.id])
    for finding in found:
        if finding.resource not in states and finding.standing != "as-declared":
            by_node.setdefault(finding.node, []).append(finding.standing)
    return by_node


def _node(report: Report, node: str, states: Sequence[Standing]) -> str:
    if node in report.plan.unreachable:
        return _cut(f"unreachable: {report.plan.unreachable[node].text}", VALUE)
    counted = Counter(states)
    return ", ".join(f"{counted[each]} {MARKS[each].words}" for each in STANDINGS if counted[each])


def _services(declared: Sequence[Declared]) -> dict[str, list[str]]:
    """The nodes of each service, in the order of the inventory."""
    found: dict[str, dict[str, None]] = {}
    for each in declared:
        if each.service:
            found.setdefault(each.service, {})[each.node] = None
    return {service: list(nodes) for service, nodes in found.items()}


def _joins(nodes: Sequence[str], services: Mapping[str, Sequence[str]]) -> list[list[int]]:
    """The places (in `nodes`) of the nodes of each service that has several."""
    place = {node: index for index, node in enumerate(nodes)}
    return [[place[each] for each in joined if each in place] for joined in services.values() if len(joined) > 1]


def _repair(report: Report) -> tuple[Repair, ...]:
    """What an apply would interrupt, and about how long: the sum of what its steps took when they ran last."""
    by_service: dict[str, list[Step]] = {}
    done = {each.id for each in report.results if each.outcome == "done"}
    for step in report.plan.disruptive:
        if step.id not in done:
            by_service.setdefault(step.service or step.id, []).append(step)
    found = []
    for service, disruptive in by_service.items():
        words = _outage(report, service, disruptive)
        found.append(Repair(_cut(service), count(len(disruptive), "step"), words or "how long is not known yet"))
    return tuple(found)


def _outage(report: Report, service: str, disruptive: Sequence[Step]) -> str:
    """About how long the service is away: by its own last start where the node tells it, else by its last steps."""
    started = max((each.outage_seconds for each in disruptive if each.outage_seconds is not None), default=None)
    if started is not None:
        return f"its last start took {duration(started)}"
    steps = [
        each
        for each in report.plan.steps
        if each in disruptive or (each.service == service and each.action == "verify")
    ]
    took = [report.past.took.get(each.id) for each in steps]
    known = [each for each in took if each is not None]
    return f"about {duration(sum(known))}, by the last run of these steps" if known and len(known) == len(took) else ""


def _details(found: Sequence[Finding]) -> tuple[tuple[Detail, ...], dict[tuple[str, str], str], int]:
    """The details, alike ones together; where each finding's are, by its key and node; how many are left out."""
    groups: dict[object, list[Finding]] = {}
    for each in found:
        groups.setdefault(_alike(each), []).append(each)
    made: list[Detail] = []
    links: dict[tuple[str, str], str] = {}
    room, hidden = DETAILS, 0
    for number, group in enumerate(groups.values()):
        detail = _detail(group, f"f{number}") if room > 0 else None
        room -= detail.size if detail is not None else 0
        if detail is None or room < 0:
            hidden += len(group)
            continue
        made.append(detail)
        for each in group:
            links.setdefault((each.key, each.node), detail.link)
    return tuple(made), links, hidden


def _alike(each: Finding) -> object:
    """What is equal for the same finding on several nodes."""
    step, result = each.step, each.result
    states = (step.action, step.diff, _changes(step)) if step is not None else None
    told = (each.text.replace(each.node, ""), each.severity, each.standing, each.origin, each.accepted)
    return (each.id, each.resource.removesuffix(f" @{each.node}"), states, told, result.detail if result else "")


def _detail(group: Sequence[Finding], link: str) -> Detail:
    each = group[0]
    about = [
        ("resource", each.resource),
        ("way out", each.fix),
        ("who moved", ORIGINS[each.origin] if each.origin else ""),
        ("first seen", _since(group)),
        ("interrupts", (each.step.service or "a service") if each.step is not None and each.step.disruptive else ""),
        ("accepted", each.accepted),
        ("declared in", each.where),
        ("source", each.source),
    ]
    return Detail(
        link=link,
        state=MARKS[each.standing],
        severity=each.severity,
        id=_cut(each.id),
        title=_cut(each.resource.removesuffix(f" @{each.node}") if each.step is not None else each.text),
        nodes=f"on {names([_cut(finding.node, 40) for finding in group])}",
        text=_cut(each.text, VALUE),
        about=tuple((name, _cut(words, VALUE)) for name, words in about if words),
        changes=_changes(each.step) if each.step is not None and each.step.action == "update" else (),
        diff=tuple(_diff(each.step)) if each.step is not None else (),
        detail=_cut(each.result.detail, 10 * VALUE) if each.result is not None else "",
    )


def _since(group: Sequence[Finding]) -> str:
    seen = [each.since for each in group if each.since is not None]
    first = min(seen, key=lambda each: each.time, default=None)
    return f"{moment(first.time)}, run {first.run}" if first is not None else ""


def _changes(step: Step) -> tuple[tuple[str, str, str], ...]:
    def words(state: Mapping[str, object] | None, key: str) -> str:
        found = (state or {}).get(key)
        return "(none)" if found is None else _cut(brief(value(key, found)), VALUE) or "(empty)"

    return tuple((_cut(key), words(step.before, key), words(step.after, key)) for key in step.changes)


def _diff(step: Step) -> Iterator[tuple[str, str]]:
    """The lines of the text difference with what each is: added, removed, or neither."""
    lines = step.diff.splitlines()
    for line in lines[:DIFF_LINES]:
        heading = line.startswith(("--- ", "+++ "))
        yield ("" if heading else line[:1], _cut(line, VALUE))
    if len(lines) > DIFF_LINES:
        yield ("", f"… {len(lines) - DIFF_LINES} more lines")


def _rows(
    report: Report, found: Sequence[Finding], states: Mapping[str, Standing], links: Mapping[tuple[str, str], str]
) -> tuple[Row, ...]:
    """The worst rows first, else in the plan's order; what stands beside the declared resources below them."""
    cells: dict[tuple[str, str], dict[str, tuple[Standing, str]]] = {}
    for each in report.plan.declared:
        cells.setdefault((each.kind, each.name), {})[each.node] = (states[each.id], links.get((each.id, each.node), ""))
    for finding in found:
        if finding.resource not in states:
            name = finding.resource.removesuffix(f" @{finding.node}") or "the node itself"
            here = cells.setdefault(("", name), {})
            before = here.get(finding.node)
            if before is None or worst((before[0], finding.standing)) != before[0]:
                here[finding.node] = (finding.standing, links.get((finding.key, finding.node), ""))
    rows = []
    silent = {node: links.get((f"{why.id} @{node}", node), "") for node, why in report.plan.unreachable.items()}
    for (kind, name), by_node in cells.items():
        made = tuple(_cell(by_node.get(node), silent.get(node, "")) for node in report.plan.nodes)
        state = worst(each for each, _ in by_node.values())
        same = state == "as-declared" and not any(link for _, link in by_node.values())
        rows.append((STANDINGS.index(state), Row(_cut(f"{kind} {name}".strip()), made, same)))
    return tuple(row for _, row in sorted(rows, key=lambda each: -each[0]))


def _cell(told: tuple[Standing, str] | None, silent: str) -> Cell | None:
    if told is None:
        return None
    state, link = told
    return Cell(MARKS[state], link or silent or ("findings" if state != "as-declared" else ""))


def _coverage(report: Report, states: Mapping[str, Standing]) -> str:
    plan = report.plan
    unknown = sum(each == "unknown" for each in states.values())
    asked = len(plan.nodes) - len(plan.unreachable)
    return (
        f"{count(len(plan.declared), 'resource')} declared, {len(plan.declared) - unknown} of them observed; "
        f"{asked} of {count(len(plan.nodes), 'node')} answered; {count(len(plan.orphans), 'thing')} of this cluster "
        "there and no longer declared. Only what is declared, what this cluster put there, and what the notices "
        "name is looked at: anything else on a node is not in this report."
    )
