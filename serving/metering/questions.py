"""What one asks a ledger: usage between two hours, by time, model, task, modality, tenant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from serving.errors import InvalidInput
from serving.metering.events import HOUR_S, UsageEvent

__all__ = ["BY", "DAY_S", "DIMENSIONS", "Key", "Question", "Totals", "UsageRow", "answer", "summed"]

DAY_S = 86_400
DIMENSIONS = ("tenant", "model", "task", "modality")
BY = ("hour", "day", *DIMENSIONS)

# Hour, tenant, model, task, modality: what the roll-up has one row for.
Key: TypeAlias = tuple[int, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over events. `errors` are the requests whose status was 400 or above."""

    requests: int = 0
    errors: int = 0
    items: int = 0
    text_tokens: int = 0
    image_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Text and image tokens together."""
        return self.text_tokens + self.image_tokens

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.requests + other.requests,
            self.errors + other.errors,
            self.items + other.items,
            self.text_tokens + other.text_tokens,
            self.image_tokens + other.image_tokens,
        )


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The sums of one group; what the question does not group by is None. `start` is in UTC."""

    totals: Totals
    start: datetime | None = None
    tenant: str | None = None
    model: str | None = None
    task: str | None = None
    modality: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """Usage from `since` to before `until`, both at full hours, grouped `by` some of `BY`.

    `tenant` and `model` narrow it to one. Days are days of UTC. Raises `InvalidInput`, which names
    the field and the choices.
    """

    since: datetime
    until: datetime
    by: tuple[str, ...] = ("day",)
    tenant: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        for field, at in (("from", self.since), ("to", self.until)):
            if at.tzinfo is None or at.timestamp() % HOUR_S:
                raise InvalidInput(f"{field} must be a full hour with an offset from UTC", field)
        if self.since >= self.until:
            raise InvalidInput("from must be before to", "from")
        for name in self.by:
            if name not in BY:
                raise InvalidInput(f"by {name!r} is unknown; it may be {', '.join(BY)}", "by")
        if {"hour", "day"} <= set(self.by):
            raise InvalidInput("by takes hour or day, not both", "by")

    @property
    def hours(self) -> tuple[int, int]:
        """The first hour asked for and the first after it, in seconds since the epoch."""
        return int(self.since.timestamp()), int(self.until.timestamp())

    @property
    def bucket_s(self) -> int | None:
        """Seconds of a row's time: an hour, a day, or None where time is not grouped by."""
        return HOUR_S if "hour" in self.by else DAY_S if "day" in self.by else None

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Those of `DIMENSIONS` that are grouped by, in that order."""
        return tuple(name for name in DIMENSIONS if name in self.by)

    def row(self, start: int | None, values: Sequence[str], totals: Totals) -> UsageRow:
        """The row of a group: its start in seconds since the epoch, a value a dimension."""
        at = None if start is None else datetime.fromtimestamp(start, UTC)
        return UsageRow(totals, at, **dict(zip(self.dimensions, values, strict=True)))


def summed(events: Iterable[UsageEvent]) -> dict[Key, Totals]:
    """The roll-up of some events: their sums an hour, tenant, model, task and modality."""
    sums: dict[Key, list[int]] = {}
    for event in events:
        key = (event.hour, event.tenant, event.model, event.task, event.modality)
        row = sums.setdefault(key, [0] * 5)
        row[0] += 1
        row[1] += event.status >= 400
        row[2] += event.items
        row[3] += event.text_tokens
        row[4] += event.image_tokens
    return {key: Totals(*row) for key, row in sums.items()}


def answer(question: Question, rollup: Iterable[tuple[Key, Totals]]) -> list[UsageRow]:
    """The question's rows out of a roll-up in memory, in order of time and then of names."""
    since, until = question.hours
    bucket, indexes = question.bucket_s, [1 + DIMENSIONS.index(n) for n in question.dimensions]
    groups: dict[tuple[int | None, tuple[str, ...]], Totals] = {}
    for key, totals in rollup:
        named = question.tenant in (None, key[1]) and question.model in (None, key[2])
        if named and since <= key[0] < until:
            start = None if bucket is None else key[0] // bucket * bucket
            group = (start, tuple(str(key[index]) for index in indexes))
            groups[group] = groups.get(group, Totals()) + totals
    ordered = sorted(groups.items(), key=lambda entry: (entry[0][0] or 0, entry[0][1]))
    return [question.row(start, values, totals) for (start, values), totals in ordered]
