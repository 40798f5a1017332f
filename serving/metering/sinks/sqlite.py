"""sqlite: the default ledger, one file, several processes of one machine.

Write-ahead logging lets readers go on beside the one writer, and every commit is synced before a
spool segment is let go of. The file must not lie on a network file system: its locks fail there.
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from serving.errors import InvalidConfig, Unavailable
from serving.metering.sinks import EventRefused, UsageSink, file_of
from serving.metering.sinks._ledger import SqlLedger
from serving.metering.sinks._schema import Run

__all__ = ["open_sink"]

_BUSY_S = 10.0  # how long a writer waits for another's commit
_AGAIN_S = 0.01  # between tries where SQLite itself does not wait, give or take a half
_RETURNING = (3, 35, 0)  # the first SQLite with INSERT ... RETURNING


def open_sink(url: str) -> UsageSink:
    """`sqlite:///` in the state folder, `sqlite:///absolute/usage.db`, `sqlite://relative.db`."""
    if sqlite3.sqlite_version_info < _RETURNING:
        raise InvalidConfig(f"ledger.url: SQLite 3.35 is needed, this is {sqlite3.sqlite_version}")
    return SqlLedger(_Sqlite(file_of(url, "usage.db")))


class _Sqlite:
    """See `Database`. One connection writes, under a lock; every reading opens its own."""

    seq = "INTEGER PRIMARY KEY AUTOINCREMENT"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[Run]:
        with self._lock, self._translated():
            self._writer = connection = self._writer or self._connect()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield _runner(connection)
                connection.execute("COMMIT")
            except BaseException:
                self._forget()  # closing rolls back, whatever state it is in
                raise

    def source(
        self, types: Sequence[str], rows: Sequence[tuple[object, ...]]
    ) -> tuple[str, list[object]]:
        marks = f"({', '.join(['%s'] * len(types))})"
        return f"VALUES {', '.join([marks] * len(rows))}", [value for row in rows for value in row]

    @contextmanager
    def reading(self) -> Iterator[Run]:
        with self._translated(), closing(self._connect()) as connection:
            connection.execute("PRAGMA query_only = 1")
            yield _runner(connection)

    def close(self) -> None:
        with self._lock:
            self._forget()

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _forget(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"the ledger {self._path} cannot be used: {error}") from error
        except (OverflowError, UnicodeEncodeError) as error:
            raise EventRefused(f"an event does not fit SQLite: {error}") from error


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turn the journal over, which several that find a fresh file do at once.

    Where two hold each other up, SQLite tells one so at once in place of waiting
    (https://www.sqlite.org/c3ref/busy_handler.html), so the waiting is done here.
    """
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # without its kind
            if not busy or time.monotonic() > until:
                raise
        time.sleep(random.uniform(0.5, 1.5) * _AGAIN_S)


def _runner(connection: sqlite3.Connection) -> Run:
    def run(statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        return connection.execute(statement.replace("%s", "?"), tuple(values)).fetchall()

    return run
