"""What batches there are, their pieces, and who works on them: one SQLite file for all gateways.

Every method blocks, may be called from any thread, and raises `Unavailable` where the file cannot
be used. The rollback journal, not the write-ahead log, because gateways on several machines may
share the file, on a file system that has POSIX locks; their clocks must agree to a part of a lease.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from serving.batches.batch import Batch, Piece, Status, Tally
from serving.errors import InvalidConfig, LimitExceeded, Unavailable

__all__ = ["Store"]

_BUSY_S = 10.0
_VERSION = 1
_TABLES = (
    """CREATE TABLE batch (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        key_id TEXT NOT NULL,
        model TEXT NOT NULL,
        options BLOB NOT NULL,
        lines INTEGER NOT NULL,
        created REAL NOT NULL,
        expires REAL NOT NULL,
        status TEXT NOT NULL,
        ended REAL,
        error TEXT,
        holder TEXT NOT NULL DEFAULT '',
        held_until REAL NOT NULL DEFAULT 0
    ) WITHOUT ROWID""",
    "CREATE INDEX batch_tenant ON batch (tenant, created)",
    """CREATE TABLE piece (
        batch TEXT NOT NULL REFERENCES batch ON DELETE CASCADE,
        first INTEGER NOT NULL,
        lines INTEGER NOT NULL,
        place INTEGER NOT NULL,
        size INTEGER NOT NULL,
        result TEXT,
        completed INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        tokens INTEGER NOT NULL DEFAULT 0,
        output INTEGER NOT NULL DEFAULT 0,
        errors INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (batch, first)
    ) WITHOUT ROWID""",
    f"PRAGMA user_version = {_VERSION}",
)
_BATCH = (
    "SELECT b.id, b.tenant, b.key_id, b.model, b.options, b.lines, b.created, b.expires, b.status,"
    " b.ended, b.error, SUM(p.completed), SUM(p.failed), SUM(p.tokens)"
    " FROM (SELECT * FROM batch {which}) AS b LEFT JOIN piece AS p ON p.batch = b.id"
    " GROUP BY b.id ORDER BY b.created DESC"
)
_PIECE = "first, lines, place, size, result, completed, failed, tokens, output, errors"
_LIVE = "status IN ('pending', 'processing')"


class Store:
    """The batches in one file, which is made where there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        with self._transaction() as run:
            [[version]] = run("PRAGMA user_version")
            if version not in (0, _VERSION):
                raise InvalidConfig(f"{path} is of another version of Polyvec")
            for statement in _TABLES if version == 0 else ():
                run(statement)

    def add(self, batch: Batch, pieces: Sequence[Piece], most: int) -> None:
        """Take a new batch; `LimitExceeded` where the tenant has `most` unfinished already."""
        row = (batch.id, batch.tenant, batch.key_id, batch.model, batch.options, batch.lines)
        with self._transaction() as run:
            _refuse_above(run, batch.tenant, most)
            run(
                "INSERT INTO batch (id, tenant, key_id, model, options, lines, created, expires,"
                " status) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *row,
                batch.created,
                batch.expires,
                batch.status,
            )
            for piece in pieces:
                _insert(run, batch.id, piece)

    def check(self, tenant: str, most: int) -> None:
        """Raise what `add` would."""
        with self._transaction() as run:
            _refuse_above(run, tenant, most)

    def find(self, identifier: str, tenant: str) -> Batch | None:
        """A batch of the tenant's."""
        with self._transaction() as run:
            found = run(_BATCH.format(which="WHERE id = ? AND tenant = ?"), identifier, tenant)
        return _batch(found[0]) if found else None

    def listed(self, tenant: str, most: int) -> list[Batch]:
        """The tenant's batches, the newest first."""
        which = "WHERE tenant = ? ORDER BY created DESC LIMIT ?"
        with self._transaction() as run:
            return [_batch(row) for row in run(_BATCH.format(which=which), tenant, most)]

    def known(self) -> set[str]:
        """The ids of every batch."""
        with self._transaction() as run:
            return {str(row[0]) for row in run("SELECT id FROM batch")}

    def pieces(self, identifier: str, *, done: bool) -> list[Piece]:
        """The batch's pieces that are done, or are not, in the order of their lines."""
        wanted = "IS NOT NULL" if done else "IS NULL"
        with self._transaction() as run:
            rows = run(
                f"SELECT {_PIECE} FROM piece WHERE batch = ? AND result {wanted} ORDER BY first",
                identifier,
            )
        return [_piece(*row) for row in rows]

    def claim(self, holder: str, now: float, lease_s: float) -> Batch | None:
        """The next batch that nobody works on, from now on the holder's; None where there is none.

        The tenant that has fewest in work goes first, and then the oldest.
        """
        with self._transaction() as run:
            found = run(
                f"UPDATE batch SET holder = ?, held_until = ?, status = 'processing' WHERE id = ("
                f" SELECT id FROM batch AS one WHERE {_LIVE} AND held_until <= ? AND expires > ?"
                f" ORDER BY (SELECT COUNT(*) FROM batch AS other WHERE other.tenant = one.tenant"
                f"  AND {_LIVE} AND held_until > ?), created LIMIT 1) RETURNING id",
                *(holder, now + lease_s, now, now, now),
            )
            if not found:
                return None
            [row] = run(_BATCH.format(which="WHERE id = ?"), found[0][0])
        return _batch(row)

    def renew(self, identifier: str, holder: str, until: float) -> Status | None:
        """How the batch stands, held until then; None where it is not the holder's any more."""
        with self._transaction() as run:
            found = run(
                "UPDATE batch SET held_until = ? WHERE id = ? AND holder = ? RETURNING status",
                *(until, identifier, holder),
            )
        return found[0][0] if found else None

    def done(self, identifier: str, holder: str, piece: Piece) -> Status | None:
        """Write down a piece's result, as `renew` says; a piece is done once."""
        tally = piece.tally
        with self._transaction() as run:
            status = _held(run, identifier, holder)
            if status is not None:
                run(
                    "UPDATE piece SET result = ?, completed = ?, failed = ?, tokens = ?,"
                    " output = ?, errors = ? WHERE batch = ? AND first = ? AND result IS NULL",
                    *(piece.result, tally.completed, tally.failed, tally.tokens),
                    *(piece.output, piece.errors, identifier, piece.first),
                )
        return status

    def split(self, identifier: str, holder: str, parts: Sequence[Piece]) -> Status | None:
        """Write down that a piece is these parts, the first of which has its number."""
        first, *others = parts
        with self._transaction() as run:
            status = _held(run, identifier, holder)
            if status is not None:
                run(
                    "UPDATE piece SET lines = ?, size = ? WHERE batch = ? AND first = ?",
                    *(first.lines, first.size, identifier, first.first),
                )
                for part in others:
                    _insert(run, identifier, part)
        return status

    def end(self, batch: Batch, holder: str) -> None:
        """The holder's batch has come to this end, unless it has come to another already."""
        with self._transaction() as run:
            run(
                "UPDATE batch SET status = ?, error = ?, ended = ?, expires = ?"
                f" WHERE id = ? AND holder = ? AND {_LIVE}",
                *(batch.status, batch.error, batch.ended, batch.expires, batch.id, holder),
            )

    def release(self, identifier: str, holder: str, until: float) -> None:
        """The holder works on it no more; anyone may from then on."""
        with self._transaction() as run:
            run(
                "UPDATE batch SET holder = '', held_until = ? WHERE id = ? AND holder = ?",
                *(until, identifier, holder),
            )

    def cancel(self, identifier: str, tenant: str, now: float, gone: float) -> None:
        """End a batch that has not ended yet. What its holder has under way still counts."""
        with self._transaction() as run:
            run(
                "UPDATE batch SET status = 'cancelled', ended = ?, expires = ?"
                f" WHERE id = ? AND tenant = ? AND {_LIVE}",
                *(now, gone, identifier, tenant),
            )

    def sweep(self, now: float, keep_s: float) -> list[str]:
        """End what was not done in time, and forget what ended long enough ago: the ids of that."""
        with self._transaction() as run:
            run(
                "UPDATE batch SET status = 'expired', ended = ?, expires = ?"
                f" WHERE {_LIVE} AND expires <= ?",
                *(now, now + keep_s, now),
            )
            gone = run(
                "DELETE FROM batch WHERE expires <= ? AND held_until <= ? RETURNING id", now, now
            )
        return [str(row[0]) for row in gone]

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._forget()

    @contextmanager
    def _transaction(self) -> Iterator[_Run]:
        try:
            with self._lock:
                self._connection = connection = self._connection or self._connect()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield _Run(connection)
                    connection.execute("COMMIT")
                except BaseException:
                    self._forget()  # closing rolls back, whatever state it is in
                    raise
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"the batches in {self._path} cannot be used: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _forget(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Run:
    """A statement and its values to its rows."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __call__(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, values).fetchall()


def _held(run: _Run, identifier: str, holder: str) -> Status | None:
    found = run("SELECT status FROM batch WHERE id = ? AND holder = ?", identifier, holder)
    return found[0][0] if found else None


def _refuse_above(run: _Run, tenant: str, most: int) -> None:
    [[count]] = run(f"SELECT COUNT(*) FROM batch WHERE tenant = ? AND {_LIVE}", tenant)
    if count >= most:
        raise LimitExceeded(
            f"the limit is {most} unfinished batches, and there are {count}; wait for one to end,"
            " or cancel one",
            None,
            None,
        )


def _insert(run: _Run, identifier: str, piece: Piece) -> None:
    run(
        "INSERT INTO piece (batch, first, lines, place, size) VALUES (?, ?, ?, ?, ?)",
        *(identifier, piece.first, piece.lines, piece.offset, piece.size),
    )


def _batch(row: tuple[Any, ...]) -> Batch:
    *facts, completed, failed, tokens = row
    return replace(Batch(*facts), tally=Tally(completed or 0, failed or 0, tokens or 0))


def _piece(*row: Any) -> Piece:
    first, lines, place, size, result, completed, failed, tokens, output, errors = row
    tally = Tally(completed, failed, tokens)
    return Piece(first, lines, place, size, result, tally, output, errors)
