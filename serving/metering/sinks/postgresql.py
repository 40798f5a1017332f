"""postgresql: the ledger of several gateways, on any PostgreSQL from 10 on.

Writers take turns by an advisory lock: whoever adds events holds it to the commit, so numbers are
committed in order and no two writers can block each other's sums for good.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from serving.errors import InvalidConfig, Unavailable
from serving.metering.sinks import EventRefused, UsageSink
from serving.metering.sinks._ledger import SqlLedger
from serving.metering.sinks._schema import Run

__all__ = ["open_sink"]

_LOCK = 0x706F6C79766563  # "polyvec": the advisory lock of this ledger, one a database
_CONNECT_S = 5
# So that a writer that hangs, or whose machine has gone, does not keep the lock from the others.
_WITHIN = (
    "SELECT set_config('lock_timeout', '20s', true), set_config('statement_timeout', '30s', true),"
    " set_config('idle_in_transaction_session_timeout', '30s', true)"
)
# A server that has gone without a word is noticed after half a minute.
_TCP = {
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}


def open_sink(url: str) -> UsageSink:
    """`postgresql://user@host/database`; the password also from PGPASSWORD or a password file."""
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # its words may quote the password
        raise InvalidConfig("ledger.url is not an address that PostgreSQL understands") from None
    return SqlLedger(_Postgres(url))


class _Postgres:
    """See `Database`. One connection writes, under a lock; every reading opens its own."""

    seq = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._writer: psycopg.Connection[tuple[Any, ...]] | None = None

    @contextmanager
    def transaction(self) -> Iterator[Run]:
        with self._lock, _translated():
            if self._writer is None or self._writer.closed:
                self._writer = self._connect()
            connection = self._writer
            try:
                with connection.transaction():
                    connection.execute(_WITHIN)
                    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                    yield _runner(connection)
            except BaseException:
                self._forget()
                raise

    def source(
        self, types: Sequence[str], rows: Sequence[tuple[object, ...]]
    ) -> tuple[str, list[object]]:
        # An array a column: a third of the client's time that a value a mark takes.
        arrays = ", ".join(f"%s::{kind}[]" for kind in types)
        return f"SELECT * FROM unnest({arrays})", [
            list(column) for column in zip(*rows, strict=True)
        ]

    @contextmanager
    def reading(self) -> Iterator[Run]:
        with _translated(), self._connect() as connection, connection.transaction():
            connection.execute(_WITHIN)
            yield _runner(connection)

    def close(self) -> None:
        with self._lock:
            self._forget()

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        said = conninfo_to_dict(self._url)
        defaults = {"connect_timeout": str(_CONNECT_S), "application_name": "polyvec", **_TCP}
        return psycopg.connect(make_conninfo("", **{**defaults, **said}), autocommit=True)

    def _forget(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (psycopg.DataError, UnicodeEncodeError) as error:
        raise EventRefused(f"an event does not fit PostgreSQL: {_line(error)}") from error
    except psycopg.Error as error:
        raise Unavailable(f"the ledger in PostgreSQL cannot be used: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _runner(connection: psycopg.Connection[tuple[Any, ...]]) -> Run:
    def run(statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []

    return run
