"""The exports' half of a ledger in SQL: turns, cursors, and the outbox of hourly parcels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from serving.metering.events import UsageEvent
from serving.metering.outbox import Draw, Measure, Parcel, identifier
from serving.metering.sinks._schema import Run

__all__ = ["Outbox"]

_COLUMNS: dict[Measure, str] = {
    "tokens": "text_tokens + image_tokens",
    "text_tokens": "text_tokens",
    "image_tokens": "image_tokens",
    "items": "items",
    "requests": "requests",
}
_EVENT = (
    "id, tenant, key_id, model, task, modality, text_tokens, image_tokens, items, dimensions,"
    " status, duration_us, time_us"
)
_PARCEL = "seq, kind, identifier, tenant, meter, hour, value"


class Outbox(ABC):
    """`Turns`, `Journal` and `HourlyOutbox` over the tables of `_schema`."""

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[Run]: ...

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Run]: ...

    def take_turn(self, exporter: str, holder: str, now: float, seconds: float) -> bool:
        """See `Turns`."""
        with self._transaction() as run:
            _enter(run, exporter)
            return bool(
                run(
                    "UPDATE usage_export SET holder = %s, held_until = %s WHERE exporter = %s"
                    " AND (holder = %s OR held_until <= %s) RETURNING exporter",
                    (holder, int(now + seconds), exporter, holder, int(now)),
                )
            )

    def page(self, exporter: str, limit: int) -> list[tuple[int, UsageEvent]]:
        """See `Journal`."""
        with self._reading() as run:
            rows = run(
                f"SELECT seq, {_EVENT} FROM usage_event WHERE seq >"
                " (SELECT COALESCE(MAX(seq), 0) FROM usage_export WHERE exporter = %s)"
                " ORDER BY seq LIMIT %s",
                (exporter, limit),
            )
        return [(int(seq), _event(facts)) for seq, *facts in rows]

    def advance(self, exporter: str, seq: int) -> None:
        """See `Journal`."""
        with self._transaction() as run:
            _enter(run, exporter)
            run(
                "UPDATE usage_export SET seq = %s WHERE exporter = %s AND seq < %s",
                (seq, exporter, seq),
            )

    def draw(self, exporter: str, draw: Draw) -> int:
        """See `HourlyOutbox`."""
        drawn = 0
        with self._transaction() as run:
            for tenant, hour, difference in _differences(run, exporter, draw):
                if tenant in draw.tenants:
                    drawn += _Slot(run, exporter, draw, tenant, hour).correct(int(difference))
        return drawn

    def waiting(self, exporter: str, after: int, limit: int) -> list[Parcel]:
        """See `HourlyOutbox`."""
        with self._reading() as run:
            rows = run(
                f"SELECT {_PARCEL} FROM usage_outbox WHERE exporter = %s AND sent_at IS NULL"
                " AND seq > %s ORDER BY seq LIMIT %s",
                (exporter, after, limit),
            )
        return [Parcel(*row) for row in rows]

    def settle(self, exporter: str, parcels: Sequence[Parcel], now: float) -> None:
        """See `HourlyOutbox`."""
        with self._transaction() as run:
            for parcel in parcels:
                run(
                    "UPDATE usage_outbox SET sent_at = %s WHERE exporter = %s AND seq = %s",
                    (int(now), exporter, parcel.seq),
                )


def _event(facts: list[Any]) -> UsageEvent:
    values = [*facts[:-2], facts[-2] / 1_000_000, facts[-1] / 1_000_000]
    return UsageEvent(*values)


def _enter(run: Run, exporter: str) -> None:
    run(
        "INSERT INTO usage_export (exporter) VALUES (%s) ON CONFLICT (exporter) DO NOTHING",
        (exporter,),
    )


def _differences(run: Run, exporter: str, draw: Draw) -> list[tuple[str, int, int]]:
    """Tenant, hour, and the ledger's sum less what parcels say, wherever it is not nothing."""
    narrowed, models = "", tuple[str, ...]()
    if draw.models is not None:
        narrowed, models = f" AND model IN ({', '.join(['%s'] * len(draw.models))})", draw.models
    return [
        (str(tenant), int(hour), int(difference))
        for tenant, hour, difference in run(
            f"SELECT tenant, hour, SUM(value) FROM (SELECT tenant, hour, {_COLUMNS[draw.measure]}"
            f" AS value FROM usage_hour WHERE hour >= %s AND hour < %s{narrowed}"
            " UNION ALL SELECT tenant, hour, -value FROM usage_outbox WHERE exporter = %s"
            " AND meter = %s AND kind = 'event' AND cancelled = 0 AND hour >= %s AND hour < %s)"
            " AS beside GROUP BY tenant, hour HAVING SUM(value) <> 0 ORDER BY hour, tenant",
            (draw.since, draw.until, *models, exporter, draw.meter, draw.since, draw.until),
        )
    ]


class _Slot:
    """One tenant's hour of a meter, to be brought up or down to the ledger's sum."""

    def __init__(self, run: Run, exporter: str, draw: Draw, tenant: str, hour: int) -> None:
        self._run, self._exporter, self._draw = run, exporter, draw
        self._tenant, self._hour = tenant, hour

    def correct(self, difference: int) -> int:
        """Write the parcels that make up the difference; how many they are."""
        if difference > 0:
            return self._add(difference)
        live = self._live()
        since = self._draw.cancellable_since
        if not all(sent is None or sent > since for *_, sent in live):
            return self._add(difference)
        for seq, name, _, _ in live:
            self._write("cancel", name, 0)
            self._run("UPDATE usage_outbox SET cancelled = 1 WHERE seq = %s", (seq,))
        total = difference + sum(value for _, _, value, _ in live)
        return len(live) + (self._add(total) if total else 0)

    def _live(self) -> list[tuple[int, str, int, int | None]]:
        return [
            (int(seq), str(name), int(value), sent)
            for seq, name, value, sent in self._run(
                "SELECT seq, identifier, value, sent_at FROM usage_outbox WHERE exporter = %s AND"
                " meter = %s AND tenant = %s AND hour = %s AND kind = 'event' AND cancelled = 0"
                " ORDER BY seq",
                (self._exporter, self._draw.meter, self._tenant, self._hour),
            )
        ]

    def _add(self, value: int) -> int:
        [[revision]] = self._run(
            "SELECT COUNT(*) FROM usage_outbox WHERE exporter = %s AND meter = %s AND tenant = %s"
            " AND hour = %s AND kind = 'event'",
            (self._exporter, self._draw.meter, self._tenant, self._hour),
        )
        name = identifier(self._tenant, self._draw.meter, self._hour, int(revision))
        self._write("event", name, value)
        return 1

    def _write(self, kind: str, name: str, value: int) -> None:
        self._run(
            "INSERT INTO usage_outbox (exporter, identifier, kind, tenant, meter, hour, value)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (self._exporter, name, kind, self._tenant, self._draw.meter, self._hour, value),
        )
