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

    def span(self) -> str:
        """`versions` in words."""
        held, listed = self.versions(), versions()
        return "every version" if held == listed else f"{held[0]} to {held[-1]}" if held else "no listed version"

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
