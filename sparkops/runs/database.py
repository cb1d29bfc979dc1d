"""The file of the kept runs: SQLite with a write-ahead log. It must not know what a run is.

A file that is damaged is set aside, with its log, and a new one begun. A full or read-only disk is an OSError of the
caller's.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sparkops.core.errors import SparkopsError

Answer = TypeVar("Answer")

VERSION = 1
WAIT = 10.0
"""Seconds to wait for another process that writes."""
SCHEMA = """
CREATE TABLE run (
  number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, cluster TEXT NOT NULL, command TEXT NOT NULL,
  time REAL NOT NULL, seconds REAL NOT NULL, exit_status INTEGER, counts TEXT, body TEXT, declared TEXT);
CREATE INDEX run_cluster ON run (cluster, number);
CREATE INDEX run_time ON run (cluster, time);
CREATE INDEX run_body ON run (body);
CREATE INDEX run_declared ON run (declared);
CREATE TABLE body (digest TEXT PRIMARY KEY, packed BLOB NOT NULL);
CREATE TABLE event (run INTEGER NOT NULL REFERENCES run (number) ON DELETE CASCADE, line TEXT NOT NULL);
CREATE INDEX event_run ON event (run);
CREATE TABLE thing (
  cluster TEXT NOT NULL, id TEXT NOT NULL, proven INTEGER NOT NULL, keys TEXT, found TEXT, took REAL,
  PRIMARY KEY (cluster, id)) WITHOUT ROWID;
CREATE TABLE span (
  cluster TEXT NOT NULL, sign TEXT NOT NULL, resource TEXT NOT NULL, node TEXT NOT NULL, about TEXT NOT NULL,
  first_run TEXT NOT NULL, first_time REAL NOT NULL, last_run TEXT NOT NULL, last_time REAL NOT NULL, closed REAL);
CREATE UNIQUE INDEX span_open ON span (cluster, sign) WHERE closed IS NULL;
CREATE INDEX span_last ON span (cluster, last_time);
CREATE INDEX span_closed ON span (cluster, closed);
"""
"""run: one kept run, its time that of its beginning and exit_status NULL until it comes to its end; body and declared
name its report's two parts by digest. thing: a resource, the digests of its keys (declared, found) when it was last
proven, seconds of its last step. span: one finding from the first to the last run that saw it; closed (a time) by the
first that looked and did not."""


class Database:
    """One connection for all threads of a process. `aside` names the damaged file that was set aside, if one was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.aside: Path | None = None
        self._lock = threading.Lock()
        self._inode = 0
        self._connection: sqlite3.Connection | None = None

    def write(self, act: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Do `act` in one transaction; once more on a new file where this one is damaged.

        Raises OSError where the file cannot be written, SparkopsError for one of another version.
        """
        with self._lock:
            for again in (True, False):
                try:
                    with self._begun() as connection:
                        return act(connection)
                except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                    if not (again and damaged(error)):
                        raise OSError(0, str(error), str(self.path)) from None
                    self._set_aside()
        raise AssertionError("the second try returns or raises")

    def close(self) -> None:
        """Close the connection; the log goes into the file."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _begun(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection or self._opened()
        self._connection = connection
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection

    def _opened(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._inode = os.fstat(handle).st_ino
        os.close(handle)
        connection = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("BEGIN IMMEDIATE")
            if _version(connection, self.path) == 0:
                for statement in filter(str.strip, SCHEMA.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_aside(self) -> None:
        """Rename the damaged file and its log, unless another process has done so since it was opened."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino != self._inode:
                return
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").replace(f"{aside}{suffix}")
        self.aside = aside


def reading(path: Path, ask: Callable[[sqlite3.Connection], Answer], nothing: Answer) -> Answer:
    """What `ask` answers over the file as it is; `nothing` where there is none. Writes nothing, not even a log.

    Raises SparkopsError `runs-unreadable`.
    """
    if not path.exists():
        return nothing
    for way in ("mode=ro", "immutable=1"):  # a log on a read-only disk is only read as a file that nobody writes
        try:
            with contextlib.closing(
                sqlite3.connect(f"{path.absolute().as_uri()}?{way}", uri=True, timeout=WAIT)
            ) as made:
                return ask(made) if _version(made, path) else nothing
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if way != "mode=ro" or damaged(error) or "locked" in str(error):  # without its log it would tell old runs
                raise SparkopsError.of("runs-unreadable", where=str(path), reason=str(error)) from None
    return nothing


def damaged(error: Exception) -> bool:
    """Whether the file is no database or a broken one: what SQLite has no class of its own for, or can't even say."""
    return type(error) in (sqlite3.DatabaseError, UnicodeDecodeError)


def _version(connection: sqlite3.Connection, path: Path) -> int:
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found not in (0, VERSION):
        raise SparkopsError.of("runs-version-unknown", where=str(path), version=found, known=VERSION)
    return found
