"""Rules about what the catalogue does not list: the model of a line, the engine's version.

They tell how far the other rules can be trusted. It must not know a rule.
"""

from __future__ import annotations

from collections.abc import Iterable

from sparkops.lint.case import Case, Found

REFUSED = 1
"""The exit status of what a hub refuses; one that does not answer has another."""


def model_unknown(case: Case) -> Iterable[Found]:
    name = case.name or case.line.model
    if case.geometry is None and name:
        why = f" ({case.gaps[0]})" if case.gaps else f" ({case.not_read.what})" if case.not_read else ""
        known = "the layers of the model" if case.gaps else "the model"
        yield Found(f"nothing is known of {known} {name}{why}: rules about them are skipped")


def model_from_hub(case: Case) -> Iterable[Found]:
    if case.from_hub is not None:
        yield Found(f"{case.name} is not in knowledge: {case.from_hub.told()}")


def repository_renamed(case: Case) -> Iterable[Found]:
    if case.from_hub is not None and case.from_hub.moved_to:
        old, new = case.from_hub.repository, case.from_hub.moved_to
        yield Found(f"{old} is now called {new}", remedy=f"write {new}")


def repository_refused(case: Case) -> Iterable[Found]:
    if case.not_read is not None and case.not_read.exit_status == REFUSED:
        yield Found(f"{case.not_read.where}: {case.not_read.what}", remedy=case.not_read.hint)


def engine_unlisted(case: Case) -> Iterable[Found]:
    asked, listed = case.engine.asked, case.engine.version
    if case.engine.later:
        yield Found(f"{asked} is older than all that are listed: checked as {listed}, without errors")
    elif not case.engine.exact:
        yield Found(f"{asked} is not listed: checked as {listed}")
