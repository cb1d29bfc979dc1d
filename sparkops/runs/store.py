"""The kept runs of this machine: their reports and events, since when each finding stands, and what is pruned.

A report is kept as two texts (the declared resources apart, since they rarely change), packed, and only once where
several runs say the same. It must not know how a report becomes a text, nor how one is judged.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparkops.core import data
from sparkops.core.errors import SparkopsError
from sparkops.core.report import KeptRun, Seen
from sparkops.runs.database import Database, reading

DAYS = 30
"""Days for which runs and closed spans are kept."""
ACTING = 100
"""The newest runs with events (those that change nodes) of a cluster that are kept however old they are."""
MOST = 20_000
"""Runs of one cluster at most, whatever their clocks say."""
DAY = 86_400.0
SHOWN = 120
"""Earlier runs that a report shows."""
ROW = "name, cluster, command, time, seconds, exit_status, counts, body, declared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """What is known of one resource: what was declared (None: absent) and found when it was last as declared, if ever.

    `keys` and `found` map the keys of its state to digests of their values; `took`: seconds of its last step.
    """

    proven: bool = False
    keys: Mapping[str, str] | None = None
    found: Mapping[str, str] = field(default_factory=dict)
    took: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One finding over the runs that saw it. `closed` is when a run looked and it was gone; None while it stands."""

    sign: str
    resource: str
    node: str
    about: Mapping[str, Any]
    first: Seen
    last: Seen
    closed: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What is kept of a run at its end. `spans` maps the signs of its findings to resource, node and what is told.

    `things` are those of which something new is known; `gone`: the signs of spans that this run looked for and did
    not find.
    """

    time: float
    seconds: float
    exit_status: int
    counts: Mapping[str, int]
    body: Mapping[str, object]
    declared: Sequence[object]
    things: Mapping[str, Thing] = field(default_factory=dict)
    spans: Mapping[str, tuple[str, str, Mapping[str, object]]] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What earlier runs of a cluster tell a new one: themselves (oldest first), things by id, the spans asked for."""

    runs: tuple[KeptRun, ...] = ()
    things: Mapping[str, Thing] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """One kept run with its report; `body` is None where it did not come to its end."""

    run: KeptRun
    body: dict[str, object] | None


def path() -> Path:
    """The file, below the state folder of this machine."""
    return data.state_folder() / "runs.sqlite"


class Store:
    """The writing side. Every call is one transaction; raises OSError where it can't be made."""

    def __init__(self) -> None:
        self.database = Database(path())

    def begin(self, cluster: str, command: str) -> str:
        """Note that a run began; its name, by time (UTC), command and process."""
        now = time.time()
        stem = f"{time.strftime('%Y-%m-%dT%H-%M-%SZ', time.gmtime(now))}-{command}-{os.getpid()}"

        def act(connection: sqlite3.Connection) -> str:
            name, number = stem, 1
            while connection.execute("SELECT 1 FROM run WHERE name = ?", (name,)).fetchone():
                number += 1
                name = f"{stem}-{number}"
            _begun(connection, name, cluster, command, now)
            return name

        return self.database.write(act)

    def memory(self, cluster: str) -> Memory:
        """What earlier runs tell; nothing where the file was damaged and is set aside now."""
        return self.database.write(lambda connection: _memory(connection, cluster))

    def event(self, name: str, line: str) -> None:
        """Append one event of a run."""
        self.database.write(
            lambda connection: connection.execute(
                "INSERT INTO event SELECT number, ? FROM run WHERE name = ?", (line, name)
            )
        )

    def end(self, name: str, cluster: str, command: str, ended: Ended) -> None:
        """Keep a run's report, note what it says of spans and things, and prune what is too old."""

        def act(connection: sqlite3.Connection) -> None:
            if not connection.execute("SELECT 1 FROM run WHERE name = ?", (name,)).fetchone():
                _begun(connection, name, cluster, command, ended.time - ended.seconds)  # the file was set aside since
            parts = (_put(connection, ended.body), _put(connection, ended.declared))
            about = (ended.time, ended.seconds, ended.exit_status, json.dumps(dict(ended.counts)))
            connection.execute(
                "UPDATE run SET time = ?, seconds = ?, exit_status = ?, counts = ?, body = ?, declared = ? "
                "WHERE name = ?",
                (*about, *parts, name),
            )
            _note_spans(connection, cluster, Seen(run=name, time=ended.time), ended)
            _note_things(connection, cluster, ended.things)
            _prune(connection, cluster, ended.time)

        self.database.write(act)


def _begun(connection: sqlite3.Connection, name: str, cluster: str, command: str, now: float) -> None:
    connection.execute(
        "INSERT INTO run (name, cluster, command, time, seconds) VALUES (?, ?, ?, ?, 0)", (name, cluster, command, now)
    )


def _put(connection: sqlite3.Connection, part: object) -> str:
    text = json.dumps(part, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(text).hexdigest()[:32]
    if not connection.execute("SELECT 1 FROM body WHERE digest = ?", (digest,)).fetchone():
        connection.execute("INSERT INTO body VALUES (?, ?)", (digest, zlib.compress(text, 6)))
    return digest


def _note_spans(connection: sqlite3.Connection, cluster: str, seen: Seen, ended: Ended) -> None:
    still = [(seen.run, seen.time, cluster, sign) for sign in ended.spans]
    connection.executemany(
        "UPDATE span SET last_run = ?, last_time = ? WHERE cluster = ? AND sign = ? AND closed IS NULL", still
    )
    rows = [
        (cluster, sign, resource, node, json.dumps(about), seen.run, seen.time, seen.run, seen.time)
        for sign, (resource, node, about) in ended.spans.items()
    ]
    connection.executemany("INSERT OR IGNORE INTO span VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", rows)
    gone = [(seen.time, cluster, sign) for sign in ended.gone]
    connection.executemany("UPDATE span SET closed = ? WHERE cluster = ? AND sign = ? AND closed IS NULL", gone)


def _note_things(connection: sqlite3.Connection, cluster: str, things: Mapping[str, Thing]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO thing VALUES (?, ?, ?, ?, ?, ?)",
        [
            (cluster, id, thing.proven, json.dumps(thing.keys), _other(thing), thing.took)
            for id, thing in things.items()
        ],
    )


def _other(thing: Thing) -> str | None:
    """What was found, where it is written otherwise than what was declared."""
    return None if thing.found == thing.keys else json.dumps(thing.found)


def _thing(proven: int, keys: str, found: str | None, took: float | None) -> Thing:
    declared = _parsed(keys)
    return Thing(
        proven=bool(proven), keys=declared, found=(declared or {}) if found is None else _parsed(found), took=took
    )


def _parsed(text: str | bytes) -> Any:
    """The mapping (or list, or None) in a column. SQLite does not check content: what is damaged there raises what it
    raises for a page."""
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise sqlite3.DatabaseError(f"a damaged entry: {error}") from None
    if not isinstance(found, (dict, list, type(None))):
        raise sqlite3.DatabaseError(f"a damaged entry: {found!r:.40}")
    return found


def _things(connection: sqlite3.Connection, cluster: str) -> dict[str, Thing]:
    found = connection.execute("SELECT id, proven, keys, found, took FROM thing WHERE cluster = ?", (cluster,))
    return {id: _thing(*told) for id, *told in found}


def _prune(connection: sqlite3.Connection, cluster: str, now: float) -> None:
    """Remove what is too old; never the newest run of the cluster."""
    newest = connection.execute("SELECT max(number) FROM run WHERE cluster = ?", (cluster,)).fetchone()[0]
    acting = (
        "SELECT number FROM run WHERE cluster = ? AND EXISTS (SELECT 1 FROM event WHERE run = number) "
        f"ORDER BY number DESC LIMIT {ACTING}"
    )
    gone = connection.execute(
        "DELETE FROM run WHERE cluster = ? AND number < ? AND (time < ? OR number <= ("
        f"SELECT number FROM run WHERE cluster = ? ORDER BY number DESC LIMIT 1 OFFSET {MOST})) "
        f"AND number NOT IN ({acting})",
        (cluster, newest, now - DAYS * DAY, cluster, cluster),
    ).rowcount
    connection.execute("DELETE FROM span WHERE cluster = ? AND closed < ?", (cluster, now - DAYS * DAY))
    if gone:
        connection.execute(
            "DELETE FROM body WHERE NOT EXISTS (SELECT 1 FROM run WHERE body = digest) "
            "AND NOT EXISTS (SELECT 1 FROM run WHERE declared = digest)"
        )


def latest(cluster: str, *, last: int = -1, since: float = 0.0) -> tuple[KeptRun, ...]:
    """The newest runs of a cluster that ended after `since`, oldest first."""
    return reading(path(), lambda connection: _latest(connection, cluster, last=last, since=since), ())


def memory(cluster: str, before: KeptRun | None = None) -> Memory:
    """What earlier runs tell, with the spans that stand; or those before a run, with the spans that stood then."""
    return reading(path(), lambda connection: _memory(connection, cluster, before), Memory())


def _memory(connection: sqlite3.Connection, cluster: str, before: KeptRun | None = None) -> Memory:
    return Memory(
        runs=_latest(connection, cluster, last=SHOWN, before=before.run if before else ""),
        things=_things(connection, cluster),
        spans=_spans(connection, cluster, "closed IS NULL")
        if before is None
        else _spans(connection, cluster, "first_time <= ? AND last_time >= ?", before.time, before.time),
    )


def _latest(
    connection: sqlite3.Connection, cluster: str, *, last: int, since: float = 0.0, before: str = ""
) -> tuple[KeptRun, ...]:
    rows = connection.execute(
        f"SELECT {ROW} FROM run WHERE cluster = ? AND time >= ? "
        "AND number < coalesce((SELECT number FROM run WHERE name = ?), ~(1 << 63)) ORDER BY number DESC LIMIT ?",
        (cluster, since, before, last),
    )
    return tuple(_run(row) for row in reversed(rows.fetchall()))


def find(name: str) -> Kept:
    """The run of this name, or the only one whose name begins so; the newest for an empty name.

    Raises SparkopsError `run-not-kept`, `runs-none`, `run-name-ambiguous`.
    """

    def ask(connection: sqlite3.Connection) -> Kept | None:
        pattern = "".join(f"\\{each}" if each in "%_\\" else each for each in name) + "%"
        rows = connection.execute(
            f"SELECT {ROW} FROM run WHERE name LIKE ? ESCAPE '\\' ORDER BY name = ? DESC, number DESC LIMIT 3",
            (pattern, name),
        ).fetchall()
        if not rows:
            return None
        if name and len(rows) > 1 and rows[0][0] != name:
            raise SparkopsError.of("run-name-ambiguous", name=name, runs=[row[0] for row in rows])
        run = _run(rows[0])
        if rows[0][7] is None:
            return Kept(run, None)
        body = _unpacked(connection, rows[0][7])
        return Kept(run, {**body, "declared": _unpacked(connection, rows[0][8])})

    found = reading(path(), ask, None)
    if found is None:
        raise SparkopsError.of("run-not-kept", name=name) if name else SparkopsError.of("runs-none")
    return found


def events(name: str) -> tuple[str, ...]:
    """The events of a run, as lines of JSON."""

    def ask(connection: sqlite3.Connection) -> tuple[str, ...]:
        rows = connection.execute(
            "SELECT line FROM event JOIN run ON run = number WHERE name = ? ORDER BY event.rowid", (name,)
        )
        return tuple(line for (line,) in rows)

    return reading(path(), ask, ())


def spans(cluster: str, *, since: float) -> tuple[Span, ...]:
    """The findings that stand or stood after this time, oldest first."""
    return reading(
        path(), lambda connection: _spans(connection, cluster, "closed IS NULL OR last_time >= ?", since), ()
    )


def _spans(connection: sqlite3.Connection, cluster: str, which: str, *times: float) -> tuple[Span, ...]:
    rows = connection.execute(
        "SELECT sign, resource, node, about, first_run, first_time, last_run, last_time, closed FROM span "
        f"WHERE cluster = ? AND ({which}) ORDER BY first_time",
        (cluster, *times),
    )
    return tuple(map(_span, rows))


def _run(row: Sequence[Any]) -> KeptRun:
    name, cluster, command, ended, seconds, exit_status, counts = row[:7]
    return KeptRun(
        run=name,
        cluster=cluster,
        command=command,
        time=ended,
        seconds=seconds,
        exit_status=exit_status,
        counts=_parsed(counts) if counts else {},
    )


def _span(row: Iterable[Any]) -> Span:
    sign, resource, node, kept, first_run, first_time, last_run, last_time, closed = row
    about = _parsed(kept)
    if not isinstance(about, dict) or not about.keys() >= {"id", "state", "severity", "text", "fix"}:
        raise sqlite3.DatabaseError(f"a damaged entry: {kept!r:.40}")
    return Span(
        sign=sign,
        resource=resource,
        node=node,
        about=about,
        first=Seen(run=first_run, time=first_time),
        last=Seen(run=last_run, time=last_time),
        closed=closed,
    )


def _unpacked(connection: sqlite3.Connection, digest: str) -> Any:
    row = connection.execute("SELECT packed FROM body WHERE digest = ?", (digest,)).fetchone()
    try:
        return _parsed(zlib.decompress(row[0]))
    except (zlib.error, TypeError) as error:
        raise sqlite3.DatabaseError(f"a damaged entry: {error}") from None
