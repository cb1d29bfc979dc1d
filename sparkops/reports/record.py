"""The record of a run on this machine: kept as it goes, and at its end what earlier runs add to its report.

Neither content nor secrets are in it. A disk that fills during a run costs the record, never the run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Generator, Mapping

from sparkops.core.digests import digest
from sparkops.core.errors import SparkopsError
from sparkops.core.events import Event
from sparkops.core.nested import plain
from sparkops.core.plan import Declared
from sparkops.core.report import Past, Report, Result, Seen
from sparkops.core.wording import Message
from sparkops.reports.json import as_json
from sparkops.reports.kept.json import of_run
from sparkops.reports.run.findings import Finding, Standing, counts, findings, looked_at, standings
from sparkops.runs import store
from sparkops.runs.origins import origins
from sparkops.runs.store import Ended, Kept, Memory, Span, Store, Thing

OWN = ("seconds", "time", "run", "findings", "declared", "exit_status")
"""Keys of a report's JSON that are kept beside it, or follow from the rest."""
UNDECLARED = ("rollback", "remove")
"""Commands whose resources are not what the inventory declares: they neither prove a thing nor tell that one moved."""


class StateFolderUnusable(SparkopsError):
    """This machine cannot keep the record of a run."""

    exit_status = 74


class Record:
    """The record of one run; `write` is a listener. `lost` says why it is incomplete, if it is.

    `begin` makes one before anything is done; a run that touches nothing makes it at its end, and where that fails it
    costs the record only. `aside` names a damaged file of runs that was set aside.
    """

    def __init__(self, cluster: str, command: str) -> None:
        self.cluster, self.command = cluster, command
        self.lost: list[str] = []
        self._store = Store()
        self.run = ""

    @classmethod
    def begin(cls, cluster: str, command: str) -> Record:
        """A new record. Raises StateFolderUnusable, before anything is done, where none can be kept."""
        made = cls(cluster, command)
        try:
            made.run = made._store.begin(cluster, command)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StateFolderUnusable.of(
                "state-folder-unusable", folder=str(store.path().parent), reason=reason
            ) from None
        return made

    @property
    def aside(self) -> str:
        return str(self._store.database.aside or "")

    def write(self, event: Event) -> None:
        """Keep one event; none after one that could not be kept, which may have been waited for."""
        if self.lost:
            return
        with self._recording():
            self._store.event(self.run, json.dumps(plain(event.as_json())))

    def finish(self, report: Report) -> Report:
        """Keep the report; returns it with the run's name, what earlier runs add and why it is not kept, if so."""
        with self._recording():
            self.run = self.run or self._store.begin(self.cluster, self.command)
            known = self._store.memory(self.cluster)
            known = dataclasses.replace(known, runs=tuple(each for each in known.runs if each.run != self.run))
            told = _remembered(dataclasses.replace(report, run=self.run), known)
            self._store.end(self.run, self.cluster, self.command, _ended(told, known))
            self._store.database.close()
            return dataclasses.replace(told, unrecorded=self._faults())
        return dataclasses.replace(report, run=self.run, unrecorded=self._faults())

    def _faults(self) -> tuple[Message, ...]:
        aside = (Message.of("runs-damaged", aside=self.aside),) if self.aside else ()
        return (*aside, *(Message.of("run-not-recorded", file=str(store.path()), reason=each) for each in self.lost))

    @contextlib.contextmanager
    def _recording(self) -> Generator[None, None, None]:
        try:
            yield
        except (OSError, SparkopsError) as error:
            reason = error.what if isinstance(error, SparkopsError) else error.strerror or str(error)
            if not self.lost:
                self.lost.append(reason)


def with_past(report: Report) -> Report:
    """The report of a run that is not kept, with what earlier runs add; without where these can't be read."""
    try:
        return _remembered(report, store.memory(report.cluster))
    except SparkopsError:
        return report


def shown_again(kept: Kept) -> Report:
    """The report of a kept run, with what the runs before it add. Raises SparkopsError where it has none."""
    run = kept.run
    if kept.body is None:
        raise SparkopsError.of("run-did-not-end", run=run.run)
    report = of_run(run, kept.body)
    told = _remembered(report, store.memory(run.cluster, run))
    return dataclasses.replace(told, past=dataclasses.replace(told.past, origins=report.past.origins))


def _remembered(report: Report, known: Memory) -> Report:
    """The report with what earlier runs add; what is new is first seen in this one, where it is kept."""
    since = {each.sign: each.first for each in known.spans}
    if report.run:
        now = Seen(run=report.run, time=report.time)
        since = {each.sign: since.get(each.sign, now) for each in findings(report)}
    past = Past(
        runs=known.runs,
        since=since,
        origins=origins(report.plan, known.things) if known.runs and report.command not in UNDECLARED else {},
        took={id: each.took for id, each in known.things.items() if each.took is not None},
    )
    return dataclasses.replace(report, past=past)


def _ended(report: Report, known: Memory) -> Ended:
    found = findings(report)
    states = standings(report, found)
    told = as_json(report)
    body = {key: value for key, value in told.items() if key not in OWN}
    declares = report.command not in UNDECLARED
    return Ended(
        time=report.time,
        seconds=report.seconds,
        exit_status=report.exit_status,
        counts={str(state): number for state, number in counts(states).items()},
        body={**body, "origins": dict(report.past.origins), "whole": report.whole},
        declared=told["declared"],
        things=_things(report, states, known.things) if declares else {},
        spans={each.sign: (each.resource, each.node, _about(each)) for each in found if declares},
        gone=_gone(report, states, known.spans, {each.sign for each in found}) if declares else frozenset(),
    )


def _about(each: Finding) -> dict[str, str]:
    return {"id": each.id, "state": each.standing, "severity": each.severity, "text": each.text, "fix": each.fix}


def _things(report: Report, states: Mapping[str, Standing], known: Mapping[str, Thing]) -> dict[str, Thing]:
    """What is known now and was not before: what is as declared, and what the steps of this run took."""
    done = {each.id: each for each in report.results if each.outcome == "done"}
    found = {}
    for each in report.plan.declared:
        before = known.get(each.id, Thing())
        proven = states[each.id] == "as-declared"
        found[each.id] = Thing(
            proven=proven or before.proven,
            keys=each.keys if proven else before.keys,
            found=_found(each, done.get(each.id)) if proven else before.found,
            took=round(done[each.id].seconds, 1) if each.id in done else before.took,
        )
    return {id: thing for id, thing in found.items() if thing != known.get(id)}


def _found(each: Declared, result: Result | None) -> Mapping[str, str]:
    """The digests of what is there now: as it was found, or as a step of this run left it.

    What is declared and was not to be seen yet (a container that starts) has none: it will not have moved later.
    """
    if result is None:
        return each.found
    state = result.found or {}
    absent = digest(None)
    found = {key: digest(state[key]) for key in each.keys or () if key in state}
    return {key: value for key, value in found.items() if value != absent or (each.keys or {})[key] == absent}


def _gone(report: Report, states: Mapping[str, Standing], spans: tuple[Span, ...], found: set[str]) -> frozenset[str]:
    """The spans that this run looked at and did not find. What it could not observe may stand still."""
    return frozenset(
        span.sign
        for span in spans
        if span.sign not in found
        and (span.resource in states or report.whole or not span.resource)
        and looked_at(report, states, span.node, span.resource)
    )
