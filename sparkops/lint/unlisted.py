"""Rules about what the catalogue does not list: the model of a line, the engine's version.

They tell how far the other rules can be trusted. It must not know a rule.
"""

from __future__ import annotations

from collections.abc import Iterable

from sparkops.lint.case import Case, Found


def model_unknown(case: Case) -> Iterable[Found]:
    if case.geometry is None and case.line.model:
        yield Found(
            f"nothing is known of the model {case.line.model}: rules about its layers and checkpoint are skipped"
        )


def engine_unlisted(case: Case) -> Iterable[Found]:
    asked, listed = case.engine.asked, case.engine.version
    if case.engine.later:
        yield Found(f"{asked} is older than all that are listed: checked as {listed}, without errors")
    elif not case.engine.exact:
        yield Found(f"{asked} is not listed: checked as {listed}")
