"""The words of all rules, by id: `knowledge/rules/MODULE.yml` for the functions of `lint/MODULE.py`.

It must not know a line or a function: `check` puts words and functions together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from sparkops.core.data import bundled
from sparkops.core.wording import Severity
from sparkops.models import knowledge_file
from sparkops.models.engine import Engine, engine, versions


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule's words. `spark` is its severity on a declared Spark node, `laws` the laws of an engine that has it."""

    id: str
    severity: Severity
    spark: Severity
    summary: str
    why: str
    remedy: str
    source: str
    laws: Mapping[str, object] = field(default_factory=dict)

    def versions(self, beside: Path | None = None) -> tuple[str, ...]:
        """The listed engine versions in which the rule is in force."""
        return tuple(each for each in versions(beside) if self.in_force(engine(each, beside)))

    def span(self) -> str:
        """`versions` in words."""
        in_force, listed = self.versions(), versions()
        some = f"{in_force[0]} to {in_force[-1]}" if in_force else "no listed version"
        return "every version" if in_force == listed else some

    def in_force(self, engine: Engine | None) -> bool:
        """Whether an engine has the rule; of an unknown one only rules that depend on no law are in force."""
        return all(engine is not None and engine.law(name) == value for name, value in self.laws.items())


@cache
def rules() -> Mapping[str, Rule]:
    """All rules by id. Raises InventoryError for a file that is not of its shape."""
    return {each.id: each for path in sorted((bundled("knowledge") / "rules").glob("*.yml")) for each in _read(path)}


def _read(path: Path) -> Iterator[Rule]:
    with knowledge_file.in_shape_of("rules.schema.json", path):
        for name, words in knowledge_file.read(path).items():
            yield Rule(id=name, **{"spark": words["severity"], **words})
