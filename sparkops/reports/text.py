"""The Report for a person: symbols, colours, unified diffs, and what interrupts a service marked."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.text import Text

from sparkops.core.plan import Plan, Step, Violation
from sparkops.core.report import Report, Result
from sparkops.core.states import State

SYMBOLS = {
    "create": ("+", "green"),
    "update": ("~", "yellow"),
    "delete": ("-", "red"),
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
DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}
LONG = 60
DIFF_NEW = 12
DIFF_LINES = 60
NOTHING = "(none)"


def safe(text: object) -> str:
    """Without control characters: node answers must not drive a terminal."""
    return "".join(char if char in "\n\t" or char.isprintable() else "�" for char in str(text))


class Printer:
    """Writes reports to a console; knows no run."""

    def __init__(self, console: Console, *, verbose: int = 0) -> None:
        self.console = console
        self.verbose = verbose

    def line(self, *parts: tuple[object, str] | str, indent: int = 0) -> None:
        text = Text(" " * indent)
        for part in parts:
            words, style = part if isinstance(part, tuple) else (part, "")
            text.append(safe(words), style)
        self.console.print(text, soft_wrap=True)

    def plan(self, report: Report) -> None:
        """What would change, node by node, and the sum."""
        plan = report.plan
        for node in plan.nodes:
            self._node(plan, node)
        for notice in plan.notices:
            self.line(("i ", "blue"), notice)
        self._sum(report)

    def _node(self, plan: Plan, node: str) -> None:
        steps = [step for step in plan.steps if step.node == node]
        judged = [each for each in plan.violations if each.node == node]
        unknown = {identity: why for identity, why in plan.unknown.items() if identity.endswith(f"@{node}")}
        silent = plan.unreachable.get(node)
        if not (steps or judged or unknown or silent or self.verbose):
            return
        self.line((node, "bold"))
        if silent:
            self.line(("? ", "magenta"), "unreachable: ", silent, indent=2)
        for violation in judged:
            self._violation(violation)
        for identity, why in unknown.items():
            self.line(("? ", "magenta"), _short(identity, node), (f"  {why.why}", "dim"), indent=2)
        for step in steps:
            self._step(step, plan.blocked.get(step.id))
        if not (steps or judged or unknown or silent):
            self.line(("✓ ", "green"), "as declared", indent=2)
        self.line("")

    def _violation(self, violation: Violation) -> None:
        symbol, style = SEVERITY[violation.severity]
        if violation.accepted:
            symbol, style = "~", "dim"
        self.line((f"{symbol} ", style), (violation.id, style), f"  {violation.message}", indent=2)
        if violation.accepted:
            self.line((f"accepted: {violation.accepted}", "dim"), indent=6)
        elif violation.remedy:
            self.line(f"→ {violation.remedy}", indent=6)
        if violation.source and not violation.accepted:
            self.line((f"source: {violation.source}", "dim"), indent=6)

    def _step(self, step: Step, blocked: str | None) -> None:
        symbol, style = SYMBOLS[step.action]
        parts: list[tuple[object, str] | str] = [
            (f"{symbol} ", style),
            (_short(step.id, step.node), "bold" if step.disruptive else ""),
        ]
        if step.action == "verify":
            parts.append(("  will be proven again", "dim"))
        if step.disruptive:
            parts.append((f"  interrupts {step.service or 'a service'}", "bold red"))
        self.line(*parts, indent=2)
        if blocked:
            self.line((f"not attempted: {blocked}", "yellow"), indent=6)
        if step.action in ("create", "update"):
            for key in step.changes:
                if not (step.diff and key == "content"):
                    self._change(step, key)
        if step.diff:
            self._diff(step)

    def _change(self, step: Step, key: str) -> None:
        before, after = _value(step.before, key), _value(step.after, key)
        if step.action == "create":
            if after != NOTHING and key != "type":
                self.line((f"{key}: ", "dim"), after, indent=6)
        else:
            self.line((f"{key}: ", "dim"), (before, "red"), " → ", (after, "green"), indent=6)

    def _diff(self, step: Step) -> None:
        """The unified diff; of what is long, the beginning, unless asked for more."""
        lines = step.diff.splitlines()
        limit = len(lines) if self.verbose else DIFF_NEW if step.action == "create" else DIFF_LINES
        for each in lines[:limit]:
            self.line((each, DIFF_STYLES.get(each[:1], "dim")), indent=6)
        if len(lines) > limit:
            self.line((f"… {len(lines) - limit} more lines (-v shows them)", "dim"), indent=6)

    def _sum(self, report: Report) -> None:
        plan = report.plan
        if not plan.steps and not plan.unknown and not plan.unreachable:
            bad = [each for each in plan.violations if each.blocks]
            state = ("as declared", "green") if not bad else (f"{len(bad)} violations", "red")
            self.line((report.cluster, "bold"), ": ", f"{len(plan.nodes)} nodes, {plan.total} resources, ", state)
            return
        counts: Counter[str] = Counter(step.action for step in plan.steps)
        words = [f"{counts[action]} to {action}" for action in SYMBOLS if counts[action]]
        words += [f"{len(plan.unknown)} unknown"] if plan.unknown else []
        words += [f"{len(plan.unreachable)} nodes unreachable"] if plan.unreachable else []
        services = sorted({step.service or step.id for step in plan.disruptive})
        self.line(
            (report.cluster, "bold"),
            f": {len(plan.nodes)} nodes, {plan.total} resources: ",
            ", ".join(words) or "nothing to do",
            (f"; interrupts {', '.join(services)}" if services else "", "bold red"),
        )

    def outcome(self, report: Report) -> None:
        """What became of an apply: failures with their way out, the sum, the endpoints."""
        for result in report.results:
            if result.outcome != "done" or self.verbose:
                self._result(result)
        counts = Counter(result.outcome for result in report.results)
        if report.declined:
            self.line("nothing was touched")
        elif report.results:
            words = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
            self.line((report.cluster, "bold"), f": {words} in {report.seconds:.1f} s")
        if report.interrupted:
            self.line(("interrupted", "yellow"), "; the same command resumes")
        if report.exit_status == 0:
            for service, url in report.endpoints.items():
                self.line((service, "bold"), "  ", (url, "green"))
        if report.run and report.results:
            self.line((f"log: {report.run}", "dim"))

    def _result(self, result: Result) -> None:
        symbol, style = OUTCOMES[result.outcome]
        words = "" if result.outcome == "done" else f"  {result.outcome.replace('-', ' ')}: {result.why}"
        self.line((f"{symbol} ", style), result.id, words)
        if result.hint:
            self.line(f"→ {result.hint}", indent=4)
        for each in result.detail.splitlines():
            self.line((f"| {each}", "dim"), indent=4)


def _short(identity: str, node: str) -> str:
    return identity.removesuffix(f" @{node}")


def _value(state: State, key: str) -> str:
    if state is None or key not in state or state[key] is None:
        return NOTHING
    words = _words(state[key])
    return words if len(words) <= LONG else words[: LONG - 1] + "…"


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_words(each) for each in value) or NOTHING
    return str(value) or NOTHING


def render(report: Report, console: Console, *, verbose: int = 0) -> None:
    """The whole report: the plan for a look, the outcome for an apply (its plan was shown before the question)."""
    printer = Printer(console, verbose=verbose)
    if report.command == "apply":
        printer.outcome(report)
    else:
        printer.plan(report)


def lines(report: Report) -> Iterable[str]:
    """The text report without colours, line by line, as it is written to a file."""
    console = Console(no_color=True, width=120, record=True, file=io.StringIO())
    render(report, console, verbose=1)
    return console.export_text().splitlines()
