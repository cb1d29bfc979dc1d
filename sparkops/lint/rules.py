"""All rules: each is data in `knowledge/rules.yml` and one function in a module of this folder.

It must not know a line: `check` puts the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from sparkops.core.data import bundled
from sparkops.core.errors import InventoryError
from sparkops.inventory.faults import suggest
from sparkops.lint import caching, parsing, placing, quantizing, serving, speculating
from sparkops.lint.case import Check, Severity
from sparkops.models.engine import engine, versions

CHECKS: Mapping[str, Check] = {
    **parsing.RULES,
    **caching.RULES,
    **speculating.RULES,
    **quantizing.RULES,
    **placing.RULES,
    **serving.RULES,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule's words. `spark` is its severity on a declared Spark node, `laws` what an engine must hold to have it."""

    id: str
    severity: Severity
    spark: Severity
    summary: str
    why: str
    remedy: str
    source: str
    facts: str = ""
    laws: Mapping[str, Any] = field(default_factory=dict)

    def versions(self, beside: Path | None = None) -> tuple[str, ...]:
        """The listed engine versions in which the rule is in force."""
        return tuple(each for each in versions(beside) if self._in_force(each, beside))

    def _in_force(self, version: str, beside: Path | None) -> bool:
        listed = engine(version, beside)
        return all(listed.law(name) == value for name, value in self.laws.items())


@cache
def rules(path: Path | None = None) -> Mapping[str, Rule]:
    """All rules by id. Raises InventoryError for a file that is not of its shape."""
    path = path or bundled("knowledge") / "rules.yml"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # the safe loader in C, or the safe one
        return {name: _rule(name, each) for name, each in content["rules"].items()}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise InventoryError(
            f"not of the shape of rules.schema.json: {error}", where=str(path), hint="take the bundled file"
        ) from None


def rule(name: str) -> Rule:
    """The rule of that id, or of that number in the notes (L1, N4). Raises InventoryError naming the nearest."""
    known = rules()
    if name in known:
        return known[name]
    numbered = [each for each in known.values() if name.upper() in each.facts.replace(",", " ").split()]
    if numbered:
        return numbered[0]
    raise InventoryError(f"there is no rule {name!r}", hint=suggest(name, known))


def explain(name: str, beside: Path | None = None) -> str:
    """A rule in words, for `lint --explain`."""
    found = rule(name)
    held = found.versions(beside)
    listed = versions(beside)
    span = "every version" if held == listed else f"{held[0]} to {held[-1]}" if held else "no listed version"
    severity = found.severity if found.spark == found.severity else f"{found.severity}; on a Spark node {found.spark}"
    lines = [f"{found.id} ({severity})", "", found.summary, "", f"Why: {found.why}", f"Way out: {found.remedy}"]
    lines += [f"In force: {span}", f"Source: {found.source}"]
    return "\n".join([*lines, f"Also known as: {found.facts}"] if found.facts else lines)


def _rule(name: str, content: Mapping[str, Any]) -> Rule:
    return Rule(
        id=name,
        severity=content["severity"],
        spark=content.get("spark", content["severity"]),
        summary=content["summary"],
        why=content["why"],
        remedy=content["remedy"],
        source=content["source"],
        facts=content.get("facts", ""),
        laws=content.get("laws", {}),
    )
