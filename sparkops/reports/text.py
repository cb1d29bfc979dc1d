"""The Report for a person: symbols, colours, unified diffs, and what interrupts a service marked."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sparkops.core.plan import FOR_GC, Orphan, Plan, Step, Violation
from sparkops.core.report import Past, Report, Result, Rollout
from sparkops.core.states import Pending, State
from sparkops.reports.alike import Line, anywhere, grouped, kind_of, shared_by
from sparkops.reports.formatting import brief, count, moment, names, value, why_differs, with_cost
from sparkops.reports.printer import Plain, Printer
from sparkops.reports.run.gates import figures

if TYPE_CHECKING:
    from rich.console import Console

SYMBOLS = {
    "create": ("+", "green"),
    "update": ("~", "yellow"),
    "delete": ("-", "red"),
    "replace": ("±", "yellow"),
    "verify": ("»", "cyan"),
}
SEVERITY = {"error": ("✗", "red"), "warning": ("!", "yellow"), "info": ("i", "blue")}
OUTCOMES = {
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "unknown": ("?", "magenta"),
    "not-attempted": ("·", "yellow"),
    "interrupted": ("·", "yellow"),
}
ROLLOUTS = {
    "not started": "its engine was not touched",
    "paused": "its gate could not be asked; it was left as it is",
    "failed": "it was left as it is; `sparkops generations` shows what `sparkops rollback` could bring back",
    "returned": "it failed, and its last stable generation passed its gate; `sparkops generations` shows what is held",
    "return failed": "it is not ready; look at it by hand",
    "nothing to return to": "no generation of it was stable yet",
}
SKIPPED = ("not-attempted", "interrupted")
DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}
MOVED = {"corrective": "the node moved", "intentional": "the declaration moved", "both": "node and declaration moved"}
CHANGES = {"create": "drift-missing", "update": "drift-differs", "delete": "drift-left"}
"""The ids of what a step's action says, as findings name them."""
LONG = 60
DIFF_NEW = 12
"""Lines that are shown of a new text; of one that is longer than DIFF_NEW_WHOLE none."""
DIFF_NEW_WHOLE = 40
DIFF_LINES = 60
NOTHING = "(none)"
PLAIN_ID = re.compile(r"[A-Za-z][\w.-]*")


class ReportPrinter(Printer):
    """Writes reports to a console; knows no run."""

    def __init__(self, console: Console | Plain, *, verbose: int = 0) -> None:
        super().__init__(console)
        self.verbose = verbose
        self.past = Past()

    def plan(self, report: Report) -> None:
        """What would change, node by node, and the sum. What is alike on several nodes is told once."""
        plan, self.past = report.plan, report.past
        shared = shared_by(plan)
        for nodes, violations in shared.items():
            self.line((names(nodes), "bold"))
            for violation in violations:
                self._violation(violation)
            self.line("")
        told = {kind_of(each) for violations in shared.values() for each in violations}
        blocks: dict[tuple[Line, ...], list[tuple[str, list[Line]]]] = {}
        for node in plan.nodes:
            judged = [each for each in plan.violations if each.node == node and kind_of(each) not in told]
            block = Recorder(verbose=self.verbose)
            block.past = self.past
            block.node(plan, node, judged, removal=report.command == "remove")
            blocks.setdefault(tuple(anywhere(node, block.lines)), []).append((node, block.lines))
        for same, alike in blocks.items():
            if same:
                where = [node for node, _ in alike]
                self.line((", ".join(where) if self.verbose else names(where), "bold"))
                for indent, parts in alike[0][1] if len(alike) == 1 else same:
                    self.line(*parts, indent=indent)
                self.line("")
        self._between(plan)
        for notice in grouped((each.text for each in plan.notices), plan.nodes):
            self.line(("i ", "blue"), notice)
        self._acceptable(plan)
        self._sum(report)

    def _between(self, plan: Plan) -> None:
        """In what the nodes of a service differ from each other."""
        for service in dict.fromkeys(each.service for each in plan.between):
            self.line((f"between the nodes of {service}", "bold"))
            for each in (each for each in plan.between if each.service == service):
                values = (f"{node} {'none' if value is None else value}" for node, value in each.values.items())
                self.line(("≠ ", "yellow"), f"{each.fact}: {'; '.join(values)}", indent=2)
            self.line("")

    def _acceptable(self, plan: Plan) -> None:
        """Lines to paste for what a person may know to be right: facts that were judged."""
        ids = dict.fromkeys(each.id for each in plan.violations if each.key and not each.accepted)
        if not ids:
            return
        self.line("to accept what is known to be right, in the inventory under `accept:`, with your reason:")
        for id in ids:
            self.line(f"- {{id: {id if PLAIN_ID.fullmatch(id) else json.dumps(id)}, reason: …}}", indent=2)

    def node(self, plan: Plan, node: str, judged: Sequence[Violation], *, removal: bool) -> None:
        """What would change on one node, without its name; nothing where all is as declared."""
        steps = [step for step in plan.steps if step.node == node]
        unknown = {identity: why for identity, why in plan.unknown.items() if identity.endswith(f"@{node}")}
        silent = plan.unreachable.get(node)
        orphans = [each for each in plan.orphans if each.node == node]
        orphans = [each for each in orphans if removal or self.verbose or not each.kept or each.kept.fix]
        if not (steps or judged or unknown or silent or orphans or self.verbose):
            return
        if silent:
            self.line(("? ", "magenta"), "unreachable: ", silent.full, indent=2)
        for violation in judged:
            self._violation(violation)
        for identity, why in unknown.items():
            self.line(("? ", "magenta"), _short(identity, node), (f"  {why.full}", "dim"), indent=2)
        for step in steps:
            if step.id not in plan.blocked:
                self._step(step, indent=2)
        self._blocked(plan, steps)
        collected = [each for each in orphans if each.kept and each.kept.id == FOR_GC and not (removal or self.verbose)]
        for orphan in orphans:
            if orphan not in collected:
                self._orphan(orphan, indent=2, removal=removal)
        if collected:
            kinds = Counter(each.kind.replace("_", " ") for each in collected)
            words = ", ".join(count(number, kind) for kind, number in sorted(kinds.items()))
            hint = "  no longer declared; `sparkops gc` shows which of them can go"
            self.line(("i ", "blue"), words, (hint, "dim"), indent=2)
        if not (steps or judged or unknown or silent or orphans):
            self.line(("✓ ", "green"), "nothing to remove" if removal else "as declared", indent=2)

    def _orphan(self, orphan: Orphan, *, indent: int, removal: bool) -> None:
        """What is no longer declared: what becomes of it, and who brought it."""
        whose = f" of {orphan.service}" if orphan.service else ""
        name = f"{orphan.kind} {orphan.name}"
        if removal:
            self.line(
                ("i ", "blue"), name, (f"  stays: {orphan.kept.text if orphan.kept else ''}", "dim"), indent=indent
            )
        elif orphan.kept is None:
            self.line(
                ("○ ", "yellow"), name, (f"  no longer declared{whose}; apply --prune removes it", "dim"), indent=indent
            )
        else:
            words = f"  no longer declared{whose}, and left: {orphan.kept.text}"
            self.line(("i ", "blue"), name, (words, "dim"), indent=indent)
        if orphan.kept and orphan.kept.fix:
            self.line(f"→ {orphan.kept.fix}", indent=indent + 4)

    def _blocked(self, plan: Plan, steps: Sequence[Step]) -> None:
        """The steps that will not be attempted, below their reason."""
        blocked = {step.id: plan.blocked[step.id].text for step in steps if step.id in plan.blocked}
        for reason in dict.fromkeys(blocked.values()):
            self.line(("· not attempted: ", "yellow"), reason, indent=2)
            for step in steps:
                if blocked.get(step.id) == reason:
                    self._step(step, indent=6, details=bool(self.verbose))

    def _violation(self, violation: Violation) -> None:
        symbol, style = SEVERITY[violation.severity]
        if violation.accepted:
            symbol, style = "~", "dim"
        self.line((f"{symbol} ", style), (violation.id, style), f"  {violation.message.text}", indent=2)
        if violation.accepted:
            self.line((f"accepted: {violation.accepted}", "dim"), indent=6)
        elif fix := violation.message.fix:
            self.line(f"→ {fix}", indent=6)
        if violation.source and not violation.accepted:
            self.line((f"source: {violation.source}", "dim"), indent=6)

    def _step(self, step: Step, *, indent: int, details: bool = True) -> None:
        symbol, style = SYMBOLS[step.action]
        parts: list[tuple[object, str] | str] = [
            (f"{symbol} ", style),
            (_short(step.id, step.node), "bold" if step.disruptive else ""),
        ]
        if step.action == "verify":
            words = "waits for running requests" if step.kind == "drain" else "will be re-verified"
            parts.append((f"  {words}", "dim"))
        if step.action == "replace":
            parts.append(("  will be done again", "dim"))
        if step.action == "create" and details and (made := self._made(step)):
            parts.append((f"  {made}", "dim"))
        if step.disruptive:
            parts.append((f"  interrupts {with_cost(step.service or 'a service', [step])}", "bold red"))
        if moved := self._moved(step):
            parts.append((f"  {moved}", "dim"))
        self.line(*parts, indent=indent)
        if not details:
            return
        if step.action == "update":
            self._changes(step, indent + 4)
        if step.diff:
            self._diff(step, indent + 4)

    def _moved(self, step: Step) -> str:
        """Who moved, and since when, where earlier runs tell it."""
        words = [MOVED[origin]] if (origin := self.past.origins.get(step.id)) in MOVED else []
        sign = f"{CHANGES[step.action]} {step.id}" if step.action in CHANGES else ""
        seen = self.past.since.get(sign)
        words += [f"since {moment(seen.time)}"] if seen is not None else []
        return ", ".join(words)

    def _made(self, step: Step) -> str:
        """What is worth telling of what is to be created: neither its name again nor what it is not."""
        name = _short(step.id, step.node).partition(" ")[2]
        told = []
        for key in step.changes:
            made = (step.after or {}).get(key)
            if key in ("type", "content") or made is False or isinstance(made, Pending):
                continue
            words = self._value(step.after, key)
            if words not in (NOTHING, name):
                told.append(f"{key}: {words}")
        return ", ".join(told)

    def _changes(self, step: Step, indent: int) -> None:
        """Key by key from what to what; keys that change alike stand together."""
        alike: dict[tuple[str, str], list[str]] = {}
        for key in step.changes:
            if not (step.diff and key == "content"):
                pair = self._value(step.before, key), self._value(step.after, key)
                alike.setdefault(pair, []).append(key)
        for (before, after), keys in alike.items():
            self.line((f"{', '.join(keys)}: ", "dim"), (before, "red"), " → ", (after, "green"), indent=indent)
        if why := why_differs(step):
            self.line(why, indent=indent)

    def _value(self, state: State, key: str) -> str:
        if state is None or key not in state or state[key] is None:
            return NOTHING
        words = value(key, state[key]) or NOTHING
        if self.verbose:
            return words
        words = brief(words)
        return words if len(words) <= LONG else words[: LONG - 1] + "…"

    def _diff(self, step: Step, indent: int) -> None:
        """The unified diff; of what is new its beginning, and nothing where that is long, unless asked for more."""
        lines = step.diff.splitlines()
        limit = DIFF_LINES
        if step.action == "create":
            lines = [each for each in lines if not each.startswith(("--- ", "+++ ", "@@ ", "\\"))]
            limit = DIFF_NEW if len(lines) <= DIFF_NEW_WHOLE else 0
        if self.verbose:
            limit = len(lines)
        for each in lines[:limit]:
            self.line((each, DIFF_STYLES.get(each[:1], "dim")), indent=indent)
        if len(lines) > limit:
            words = f"… {len(lines) - limit} more lines" if limit else f"{len(lines)} lines"
            self.line((f"{words} (-v shows them)", "dim"), indent=indent)

    def _sum(self, report: Report) -> None:
        plan = report.plan
        bad = sum(each.blocks for each in plan.violations)
        counts: Counter[str] = Counter(step.action for step in plan.steps if step.id not in plan.blocked)
        words = [f"{counts[action]} to {action}" for action in SYMBOLS if counts[action]]
        words += [f"{len(plan.blocked)} not attempted"] if plan.blocked else []
        stray = sum(not each.kept for each in plan.orphans)
        words += [f"{stray} no longer declared"] if stray else []
        words += [f"{len(plan.unknown)} unknown"] if plan.unknown else []
        words += [f"{count(len(plan.unreachable), 'node')} unreachable"] if plan.unreachable else []
        good = "nothing to remove" if report.command == "remove" else "as declared"
        state = (", ".join(words), "") if words else ("" if bad else good, "green")
        steps: dict[str, list[Step]] = {}
        for step in plan.disruptive:
            steps.setdefault(step.service or step.id, []).append(step)
        services = [with_cost(each, steps[each]) for each in sorted(steps)]
        self.line(
            (report.cluster, "bold"),
            f": {count(len(plan.nodes), 'node')}, {count(plan.total or len(plan.steps), 'resource')}: ",
            (count(bad, "violation") if bad else "", "red"),
            ", " if bad and words else "",
            state,
            (f"; interrupts {', '.join(services)}" if services else "", "bold red"),
        )

    def outcome(self, report: Report) -> None:
        """What became of an apply: failures with their way out, the sum, the endpoints."""
        for result in report.results:
            if result.outcome not in SKIPPED and (result.outcome != "done" or self.verbose):
                self._result(result)
        self._skipped([result for result in report.results if result.outcome in SKIPPED])
        if not report.declined:
            for node, silent in report.plan.unreachable.items():
                self.line(("? ", "magenta"), node, f"  unreachable: {silent.full}")
            for identity, unknown in report.plan.unknown.items():
                self.line(("? ", "magenta"), identity, f"  unknown: {unknown.full}")
        counts = Counter(result.outcome for result in report.results)
        if report.declined:
            self.line("nothing was changed")
        elif report.results:
            words = ", ".join(f"{number} {outcome.replace('-', ' ')}" for outcome, number in counts.items())
            lost = len(report.plan.unreachable)
            words += f", {count(lost, 'node')} unreachable" if lost else ""
            self.line((report.cluster, "bold"), f": {words} in {report.seconds:.1f} s")
        for result in report.results:
            if result.outcome == "done" and (told := figures(result)):
                self.line((result.id.removeprefix("gate "), "bold"), f"  gate: {told}")
        for rollout in report.rollouts:
            self._rollout(rollout)
        if report.interrupted:
            self.line(("interrupted", "yellow"), "; the same command resumes")
        if report.exit_status == 0:
            for service, url in report.endpoints.items():
                self.line((service, "bold"), "  ", (url, "green"))
        if report.run and report.results:
            self.line((f"run: {report.run} (sparkops report shows it)", "dim"))

    def _rollout(self, rollout: Rollout) -> None:
        """How an engine ended that was not simply changed."""
        if rollout.state == "done":
            return
        words = ROLLOUTS[rollout.state]
        style = "yellow" if rollout.state in ("returned", "not started", "paused") else "red"
        self.line((f"{rollout.service} @{rollout.nodes[0]}", "bold"), ": ", (rollout.state, style), f"; {words}")
        if rollout.reason is not None:
            self.line(f"→ {rollout.reason.full}", indent=4)

    def _skipped(self, results: Sequence[Result]) -> None:
        """What was not begun, below its reason."""
        for outcome, reason in dict.fromkeys((result.outcome, result.reason) for result in results):
            self.line(("· ", "yellow"), f"{outcome.replace('-', ' ')}: {reason.text if reason else ''}")
            for result in results:
                if (result.outcome, result.reason) == (outcome, reason):
                    self.line((result.id, "dim"), indent=4)

    def _result(self, result: Result) -> None:
        symbol, style = OUTCOMES[result.outcome]
        reason = result.reason
        self.line(
            (f"{symbol} ", style),
            result.id,
            f"  {result.outcome.replace('-', ' ')}: {reason.text}" if reason else "",
            (f" [{reason.id}]" if reason else "", "dim"),
        )
        if reason and (fix := reason.fix):
            self.line(f"→ {fix}", indent=4)
        for each in result.detail.splitlines():
            self.line((f"| {each}", "dim"), indent=4)


class Recorder(ReportPrinter):
    """Keeps the lines that it is given, to be compared and printed later."""

    def __init__(self, *, verbose: int) -> None:
        super().__init__(Plain(io.StringIO()), verbose=verbose)
        self.lines: list[Line] = []

    def line(self, *parts: tuple[object, str] | str, indent: int = 0) -> None:
        styled = [part if isinstance(part, tuple) else (part, "") for part in parts]
        self.lines.append((indent, tuple((str(words), style) for words, style in styled)))


def _short(identity: str, node: str) -> str:
    return identity.removesuffix(f" @{node}")


def render(report: Report, console: Console | Plain, *, verbose: int = 0) -> None:
    """The whole report: the plan for a look, the outcome for an apply (its plan was shown before the question)."""
    printer = ReportPrinter(console, verbose=verbose)
    if report.command in ("plan", "drift"):
        printer.plan(report)
    else:
        printer.outcome(report)


def lines(report: Report) -> Iterable[str]:
    """The text report without colours, line by line, as it is written to a file."""
    written = io.StringIO()
    render(report, Plain(written), verbose=1)
    return written.getvalue().splitlines()
