"""The queue of inputs and the choice of the next batch. Pure: no model, no thread, no clock.

An input is a row. A batch is bounded by tokens with padding charged: rows times the longest of
them; a row longer than that goes alone. Interactive rows go before bulk ones, except for one batch
in `BULK_EVERY`, and bulk work fills half of the queue at most, so that it shuts nobody out.

Rows wait in classes of similar length (by powers of four), and classes share the engine in tokens:
a short text that arrives while long documents wait goes into the very next batch, and a long
document among a flood of short texts gets its share. Inside a class tenants share in the same way,
and so do a tenant's jobs: of tenants with a batch or more waiting, none is more than a batch and a
row ahead of another. A batch is one row, which is due or the oldest, and those nearest to it in
length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Generic, TypeVar

from serving.batching.room import BULK_EVERY, Room, Turns, most, retry_after_s
from serving.batching.rows import Batch, Row, Ticket
from serving.batching.shelves import Lane, by_length
from serving.values import ServiceClass

__all__ = [
    "BULK_EVERY",
    "Batch",
    "Queue",
    "Room",
    "Row",
    "Ticket",
    "Turns",
    "most",
    "retry_after_s",
]

_MEMORY = 0.9  # weight of the past in the recent token rate: about the last ten batches

T = TypeVar("T")


class Queue(Generic[T]):
    """Rows that wait, at most `queue_tokens` of them in tokens, and the next batch of them."""

    def __init__(self, batch_tokens: int, queue_tokens: int) -> None:
        self._budget = batch_tokens
        self._room = Room(queue_tokens)
        self._lanes: dict[ServiceClass, Lane[T]] = {"interactive": Lane(), "bulk": Lane()}
        self._tickets: dict[Ticket[T], None] = {}  # in order of arrival
        self._numbers = count()
        self._passed_over = 0
        self._rows = self._dead = 0
        self._served_tokens = self._served_s = 0.0

    def __len__(self) -> int:
        return self._rows

    @property
    def tokens(self) -> int:
        """Tokens that wait for a batch."""
        return self._room.tokens

    @property
    def oldest(self) -> float | None:
        """When the job that waits longest arrived; None where nothing waits."""
        ticket = next(iter(self._tickets), None)
        return None if ticket is None else ticket.arrival

    def add(
        self,
        owner: T,
        lengths: Sequence[int],
        service_class: ServiceClass,
        now: float,
        deadline: float,
        tenant: str = "",
    ) -> Ticket[T]:
        """Take a whole job, or none of it: `Overloaded`. An empty queue takes any job."""
        tokens = sum(lengths)
        self._room.enter(tokens, service_class, self._retry_after)
        ticket = Ticket(owner, now, deadline, len(lengths), tokens, service_class, tenant)
        if lengths:
            self._tickets[ticket] = None
            self._lanes[service_class].add(ticket, lengths, self._numbers)
            self._rows += ticket.rows
        return ticket

    def drop(self, ticket: Ticket[T]) -> None:
        """Forget what still waits of a job: its owner has gone."""
        self._forget(ticket)
        if self._dead > 1024 + self._rows:
            self._sweep()

    def clear(self) -> list[T]:
        """Forget everything; the owners of what waited."""
        waiting = list(self._tickets)
        for ticket in waiting:
            self._forget(ticket)
        self._sweep()
        return [ticket.owner for ticket in waiting]

    def served(self, tokens: int, seconds: float) -> None:
        """A batch is done: what `Overloaded` says about coming back is reckoned from this."""
        self._served_tokens = self._served_tokens * _MEMORY + tokens
        self._served_s = self._served_s * _MEMORY + seconds

    def take(self, now: float) -> Batch[T]:
        """The next batch, out of the queue; without rows when nothing waits."""
        late: list[T] = []

        def lives(ticket: Ticket[T]) -> bool:
            if ticket.alive and ticket.deadline <= now:
                late.append(ticket.owner)
                self._forget(ticket)
            return ticket.alive

        while (lane := self._next_lane()) is not None:
            size = lane.next()
            assert size is not None
            rows = self._from(lane, size, lives)
            if rows:
                self._leave(rows)
                return Batch(rows, late)
        return Batch((), late)

    def _next_lane(self) -> Lane[T] | None:
        interactive, bulk = self._lanes["interactive"], self._lanes["bulk"]
        if bulk.next() is None:
            self._passed_over = 0
            return interactive if interactive.next() is not None else None
        self._passed_over += 1
        if self._passed_over < BULK_EVERY and interactive.next() is not None:
            return interactive
        self._passed_over = 0
        return bulk

    def _from(self, lane: Lane[T], size: int, lives: Callable[[Ticket[T]], bool]) -> list[Row[T]]:
        shelf = lane.shelves[size]
        if shelf.waiting << 2 * size <= self._budget:  # all of it fits, were each row the longest
            rows = sorted(shelf.all(lives), key=by_length)
        else:
            rows = shelf.batch(self._budget, lives)
        self._dead -= shelf.take(rows)
        if not rows:
            return []
        lane.clock = shelf.tag
        if not shelf.waiting:
            self._top_up(lane, size, rows, lives)
        shelf.tag += len(rows) * rows[-1].length
        return rows

    def _top_up(
        self, lane: Lane[T], size: int, rows: list[Row[T]], lives: Callable[[Ticket[T]], bool]
    ) -> None:
        """Fill a batch from the neighbouring shelves while that costs little padding."""
        longest = rows[-1].length
        tokens = sum(map(by_length, rows))
        for other in sorted(lane.shelves, key=lambda other: (abs(other - size), other)):
            shelf = lane.shelves[other]
            if not shelf.waiting:
                continue
            more: list[Row[T]] = []
            for row in shelf.due(self._budget, self._budget - tokens, lives):
                cost = (len(rows) + len(more) + 1) * max(longest, row.length)
                padding = cost - tokens - row.length
                if cost > self._budget or padding > max(self._budget // 64, tokens // 8):
                    break
                more.append(row)
                longest = max(longest, row.length)
                tokens += row.length
                shelf.tag += row.length
            self._dead -= shelf.take(more)
            rows += more
        rows.sort(key=by_length)

    def _leave(self, rows: list[Row[T]]) -> None:
        """Those rows wait no more; all of them are of one class."""
        tokens = 0
        for row in rows:
            ticket = row.ticket
            ticket.rows -= 1
            ticket.tokens -= row.length
            tokens += row.length
            if not ticket.rows:
                del self._tickets[ticket]
        self._rows -= len(rows)
        self._room.leave(tokens, rows[0].ticket.service_class)

    def _forget(self, ticket: Ticket[T]) -> None:
        if ticket.alive:
            ticket.alive = False
            self._rows -= ticket.rows
            self._dead += ticket.rows
            self._room.leave(ticket.tokens, ticket.service_class)
            self._tickets.pop(ticket, None)
            ticket.rows = ticket.tokens = 0

    def _sweep(self) -> None:
        for lane in self._lanes.values():
            for shelf in lane.shelves.values():
                shelf.sweep()
        self._dead = 0

    def _retry_after(self, too_many: int) -> float:
        return retry_after_s(too_many, self._served_tokens, self._served_s)
