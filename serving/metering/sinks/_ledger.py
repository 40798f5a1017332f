"""A ledger in SQL: events, their hourly sums and the exports' outbox; a database underneath."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from serving.errors import Unavailable
from serving.metering.events import UsageEvent
from serving.metering.questions import Question, Totals, UsageRow, summed
from serving.metering.sinks import Written
from serving.metering.sinks._outbox import Outbox
from serving.metering.sinks._schema import STEPS, Run, migrate

__all__ = ["Database", "SqlLedger"]

_CHUNK = 500  # rows a statement: 6,500 values, of the 32,766 that SQLite takes
_TEXTS = ("id", "tenant", "key_id", "model", "task", "modality")
_NUMBERS = (
    "text_tokens",
    "image_tokens",
    "items",
    "dimensions",
    "status",
    "duration_us",
    "time_us",
)
_TYPES = ("TEXT",) * len(_TEXTS) + ("BIGINT",) * len(_NUMBERS)
_KEY = ("hour", "tenant", "model", "task", "modality")
_SUMS = ("requests", "errors", "items", "text_tokens", "image_tokens")


class Database(Protocol):
    """A database, not yet connected. It turns its own errors into those of `UsageSink`."""

    @property
    def seq(self) -> str:
        """How a column is declared that numbers its rows upwards and is their key."""
        ...

    def transaction(self) -> AbstractContextManager[Run]:
        """All or nothing, and nobody else's transaction meanwhile: numbers are committed in order.

        That order is what lets an export remember one number instead of every event.
        """
        ...

    def source(
        self, types: Sequence[str], rows: Sequence[tuple[object, ...]]
    ) -> tuple[str, list[object]]:
        """These rows as what follows INSERT INTO t (…), and its values."""
        ...

    def reading(self) -> AbstractContextManager[Run]:
        """For statements that only read, at the same time as others."""
        ...

    def close(self) -> None:
        """Let go of every connection."""
        ...


class SqlLedger(Outbox):
    """A `UsageSink`, and the `Journal` and `HourlyOutbox` that exports read from."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ready = False
        self._steps = threading.Lock()

    def write(self, events: Sequence[UsageEvent]) -> Written:
        """See `UsageSink`."""
        distinct = list({event.id: event for event in reversed(events)}.values())[::-1]
        with self._transaction() as run:
            fresh: set[str] = set()
            for start in range(0, len(distinct), _CHUNK):
                fresh |= self._insert(run, distinct[start : start + _CHUNK])
            rollup = summed(event for event in distinct if event.id in fresh)
            for key, totals in sorted(rollup.items()):
                _add(run, (*key, *_sums(totals)))
        return Written(new=len(fresh), duplicates=len(events) - len(fresh))

    def usage(self, question: Question) -> list[UsageRow]:
        """See `UsageSink`. Reads the roll-up, never the events."""
        bucket = "NULL" if question.bucket_s is None else _floor("hour", question.bucket_s)
        columns = [bucket, *question.dimensions]
        where, values = ["hour >= %s", "hour < %s"], list[object](question.hours)
        for name, value in (("tenant", question.tenant), ("model", question.model)):
            if value is not None:
                where.append(f"{name} = %s")
                values.append(value)
        groups = ", ".join(columns[question.bucket_s is None :])
        sums = ", ".join(f"SUM({name})" for name in _SUMS)
        with self._reading() as run:
            rows = run(
                f"SELECT {', '.join(columns)}, {sums} FROM usage_hour WHERE {' AND '.join(where)}"
                + (f" GROUP BY {groups}" if groups else " HAVING COUNT(*) > 0"),
                values,
            )
        width = len(columns)
        rows.sort(key=lambda row: (row[0] or 0, row[1:width]))  # collations differ, this does not
        return [
            question.row(row[0], row[1:width], Totals(*(int(n) for n in row[width:])))
            for row in rows
        ]

    def close(self) -> None:
        """See `UsageSink`."""
        self._database.close()

    def _insert(self, run: Run, events: Sequence[UsageEvent]) -> set[str]:
        """The ids of those that were not there."""
        source, values = self._database.source(_TYPES, [_values(event) for event in events])
        added = run(
            f"INSERT INTO usage_event ({', '.join((*_TEXTS, *_NUMBERS))}) {source}"
            " ON CONFLICT (id) DO NOTHING RETURNING id",
            values,
        )
        return {str(found[0]) for found in added}

    @contextmanager
    def _transaction(self) -> Iterator[Run]:
        try:
            with self._database.transaction() as run:
                if not self._ready:
                    migrate(run, self._database.seq)
                yield run
            self._ready = True
        except BaseException:
            self._ready = False  # the tables may have gone with whatever went wrong
            raise

    @contextmanager
    def _reading(self) -> Iterator[Run]:
        with self._steps:
            if not self._ready and not self._current():
                with self._transaction():
                    pass
        try:
            with self._database.reading() as run:
                yield run
        except BaseException:
            self._ready = False
            raise

    def _current(self) -> bool:
        """Whether the tables are of the last step: who reads then needs no right to write."""
        try:
            with self._database.reading() as run:
                found = run("SELECT version FROM usage_schema", ())
        except Unavailable:
            return False  # down, or no tables yet: the transaction tells which
        return bool(found) and found[0][0] == len(STEPS)


def _values(event: UsageEvent) -> tuple[object, ...]:
    return (
        event.id,
        event.tenant,
        event.key_id,
        event.model,
        event.task,
        event.modality,
        event.text_tokens,
        event.image_tokens,
        event.items,
        event.dimensions,
        event.status,
        round(event.duration_s * 1_000_000),
        event.time_us,
    )


def _sums(totals: Totals) -> tuple[int, ...]:
    return (
        totals.requests,
        totals.errors,
        totals.items,
        totals.text_tokens,
        totals.image_tokens,
    )


def _add(run: Run, row: Sequence[object]) -> None:
    columns = (*_KEY, *_SUMS)
    more = ", ".join(f"{name} = usage_hour.{name} + excluded.{name}" for name in _SUMS)
    run(
        f"INSERT INTO usage_hour ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))})"
        f" ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET {more}",
        row,
    )


def _floor(column: str, step: int) -> str:
    return f"{column} / {step} * {step}"
