"""Usage events to write, and one who watches a meter, for every test of the ledger."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import psycopg

from serving.metering.delivery import Result
from serving.metering.events import UsageEvent

__all__ = ["NOON", "Watcher", "at", "event", "events", "raw"]

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()
_BASE = UsageEvent(
    id="0",
    tenant="acme",
    key_id="key-1",
    model="minilm",
    task="",
    modality="text",
    text_tokens=10,
    image_tokens=0,
    items=1,
    dimensions=384,
    status=200,
    duration_s=0.012345,
    time=NOON + 0.25,
)


def event(name: object = "0", **changes: object) -> UsageEvent:
    """An event of that id, otherwise always the same but for what is said."""
    return replace(_BASE, id=str(name), **changes)  # type: ignore[arg-type]


def events(count: int, start: int = 0) -> list[UsageEvent]:
    """So many events with ids from `start` on, one a second."""
    return [event(i, time=NOON + i) for i in range(start, start + count)]


def at(hour: int, day: int = 31) -> datetime:
    """That hour of a day in January 2026, in UTC."""
    return datetime(2026, 1, day, hour, tzinfo=UTC)


def raw(url: str, statement: str) -> list[tuple[object, ...]]:
    """A statement on a ledger's database, past the sink."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite://")) as connection:
            return connection.execute(statement).fetchall()
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


class Watcher:
    """A `MeterObserver` that can be waited for."""

    def __init__(self) -> None:
        self.results: Counter[str] = Counter()
        self.standings: list[tuple[float, int]] = []
        self._changed = threading.Condition()

    def counted(self, result: Result, events: int) -> None:
        """See `MeterObserver`."""
        with self._changed:
            self.results[result] += events
            self._changed.notify_all()

    def wrote(self, seconds: float) -> None:
        """See `MeterObserver`."""

    def standing(self, lag_s: float, spooled: int) -> None:
        """See `MeterObserver`."""
        with self._changed:
            self.standings.append((lag_s, spooled))
            self._changed.notify_all()

    def wait(self, result: Result, events: int) -> None:
        """Until so many have come to that; the test's own timeout is the bound."""
        with self._changed:
            self._changed.wait_for(lambda: self.results[result] >= events)

    def wait_for_standing(self) -> tuple[float, int]:
        """The next report."""
        with self._changed:
            seen = len(self.standings)
            self._changed.wait_for(lambda: len(self.standings) > seen)
            return self.standings[-1]
