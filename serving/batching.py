"""The queue of inputs and the choice of the next batch. Pure: no model, no thread, no clock.

An input is a row. A batch is bounded by tokens with padding charged: rows times the longest of
them; a row longer than that goes alone. Rows wait in classes of similar length (by powers of
four), and classes share the engine by start-time fair queueing in tokens: a short text that
arrives while long documents wait goes into the very next batch, and a long document among a flood
of short texts gets its share. Inside a class the oldest row is in every batch, with those nearest
to it in length. Interactive rows go before bulk ones, except for one batch in `BULK_EVERY`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Generic, NamedTuple, TypeVar

from serving.errors import Overloaded
from serving.values import ServiceClass

__all__ = ["BULK_EVERY", "Batch", "Queue", "Row", "Ticket", "retry_after_s"]

BULK_EVERY = 8
"""While bulk rows wait, every so many batches one is theirs."""

_MEMORY = 0.9  # weight of the past in the recent token rate: about the last ten batches
_LONGEST_RETRY_S = 60.0

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Ticket(Generic[T]):
    """A job's place in the queue. `rows` and `tokens` are those of it that still wait."""

    owner: T
    arrival: float
    deadline: float
    rows: int
    tokens: int
    alive: bool = True


class Row(NamedTuple, Generic[T]):
    """One input: the one at `place` in its job, `length` tokens long."""

    ticket: Ticket[T]
    place: int
    length: int


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Rows to run together, shortest first, and the owners whose deadline passed while waiting."""

    rows: Sequence[Row[T]] = ()
    late: Sequence[T] = ()

    @property
    def tokens(self) -> int:
        """Real tokens, without padding."""
        return sum(row.length for row in self.rows)


_by_length = attrgetter("length")


@dataclass(slots=True, eq=False)
class _Shelf(Generic[T]):
    """Rows of similar length, oldest first; `tag` is where their next batch starts, in tokens."""

    rows: deque[Row[T]] = field(default_factory=deque)
    tag: int = 0


class _Lane(Generic[T]):
    """The shelves of one service class, and the virtual time that is fair between them."""

    def __init__(self) -> None:
        self.shelves: dict[int, _Shelf[T]] = {}
        self.clock = 0

    def add(self, row: Row[T]) -> None:
        size = ((row.length - 1).bit_length() + 1) // 2
        shelf = self.shelves.get(size)
        if shelf is None:
            shelf = self.shelves[size] = _Shelf()
        if not shelf.rows:
            shelf.tag = max(shelf.tag, self.clock)
        shelf.rows.append(row)

    def next(self) -> int | None:
        """The shelf whose turn it is: least tag, of equals the shortest rows."""
        waiting = [(shelf.tag, size) for size, shelf in self.shelves.items() if shelf.rows]
        return min(waiting)[1] if waiting else None


class Queue(Generic[T]):
    """Rows that wait, at most `queue_tokens` of them in tokens, and the next batch of them."""

    def __init__(self, batch_tokens: int, queue_tokens: int) -> None:
        self._budget = batch_tokens
        self._bound = queue_tokens
        self._lanes: dict[ServiceClass, _Lane[T]] = {"interactive": _Lane(), "bulk": _Lane()}
        self._passed_over = 0
        self._rows = self._tokens = self._dead = 0
        self._served_tokens = self._served_s = 0.0

    def __len__(self) -> int:
        return self._rows

    @property
    def tokens(self) -> int:
        """Tokens that wait for a batch."""
        return self._tokens

    @property
    def oldest(self) -> float | None:
        """When the row that waits longest arrived; None where nothing waits."""
        shelves = [shelf for lane in self._lanes.values() for shelf in lane.shelves.values()]
        living = (next((r for r in shelf.rows if r.ticket.alive), None) for shelf in shelves)
        return min((row.ticket.arrival for row in living if row is not None), default=None)

    def add(
        self,
        owner: T,
        lengths: Sequence[int],
        service_class: ServiceClass,
        now: float,
        deadline: float,
    ) -> Ticket[T]:
        """Take a whole job, or none of it: `Overloaded`. An empty queue takes any job."""
        tokens = sum(lengths)
        if self._rows and self._tokens + tokens > self._bound:
            message = f"{self._tokens} tokens wait already, of at most {self._bound}"
            raise Overloaded(message, self._retry_after(tokens))
        ticket = Ticket(owner, now, deadline, len(lengths), tokens)
        add = self._lanes[service_class].add
        for place, length in enumerate(lengths):
            add(Row(ticket, place, length))
        self._rows += ticket.rows
        self._tokens += tokens
        return ticket

    def drop(self, ticket: Ticket[T]) -> None:
        """Forget what still waits of a job: its owner has gone."""
        if ticket.alive:
            ticket.alive = False
            self._rows -= ticket.rows
            self._tokens -= ticket.tokens
            self._dead += ticket.rows
            ticket.rows = ticket.tokens = 0
            if self._dead > 1024 + self._rows:
                self._sweep()

    def clear(self) -> list[T]:
        """Forget everything; the owners of what waited."""
        owners: dict[int, T] = {}
        for lane in self._lanes.values():
            for shelf in lane.shelves.values():
                for row in shelf.rows:
                    if row.ticket.alive:
                        owners[id(row.ticket)] = row.ticket.owner
                        self.drop(row.ticket)
        self._sweep()
        return list(owners.values())

    def served(self, tokens: int, seconds: float) -> None:
        """A batch is done: what `Overloaded` says about coming back is reckoned from this."""
        self._served_tokens = self._served_tokens * _MEMORY + tokens
        self._served_s = self._served_s * _MEMORY + seconds

    def take(self, now: float) -> Batch[T]:
        """The next batch, out of the queue; without rows when nothing waits."""
        late: list[T] = []
        while (lane := self._next_lane()) is not None:
            size = lane.next()
            assert size is not None
            rows = self._from(lane, size, now, late)
            if rows:
                self._leave(rows)
                return Batch(rows, late)
        return Batch((), late)

    def _next_lane(self) -> _Lane[T] | None:
        interactive, bulk = self._lanes["interactive"], self._lanes["bulk"]
        if bulk.next() is None:
            self._passed_over = 0
            return interactive if interactive.next() is not None else None
        self._passed_over += 1
        if self._passed_over < BULK_EVERY and interactive.next() is not None:
            return interactive
        self._passed_over = 0
        return bulk

    def _from(self, lane: _Lane[T], size: int, now: float, late: list[T]) -> list[Row[T]]:
        shelf = lane.shelves[size]
        window: list[Row[T]] = []
        room = 2 * self._budget
        for row in self._living(shelf, now, late):
            window.append(row)
            room -= row.length
            if room <= 0:
                break
        if not window:
            return []
        lane.clock = shelf.tag
        rows, rest = _similar(window, self._budget)
        shelf.rows.extendleft(reversed(rest))
        if not shelf.rows:
            self._top_up(lane, size, rows, now, late)
        shelf.tag += len(rows) * rows[-1].length
        return rows

    def _living(self, shelf: _Shelf[T], now: float, late: list[T]) -> Iterator[Row[T]]:
        """Rows off the front of a shelf; the dead and the late drop out."""
        waiting = shelf.rows
        while waiting:
            row = waiting.popleft()
            ticket = row.ticket
            if ticket.alive and ticket.deadline <= now:
                late.append(ticket.owner)
                self.drop(ticket)
            if ticket.alive:
                yield row
            else:
                self._dead -= 1

    def _top_up(
        self, lane: _Lane[T], size: int, rows: list[Row[T]], now: float, late: list[T]
    ) -> None:
        """Fill a batch from the neighbouring shelves while that costs little padding."""
        longest = rows[-1].length
        tokens = sum(map(_by_length, rows))
        for other in sorted(lane.shelves, key=lambda other: (abs(other - size), other)):
            shelf = lane.shelves[other]
            for row in self._living(shelf, now, late):
                cost = (len(rows) + 1) * max(longest, row.length)
                padding = cost - tokens - row.length
                if cost > self._budget or padding > max(self._budget // 64, tokens // 8):
                    shelf.rows.appendleft(row)
                    break
                rows.append(row)
                longest = max(longest, row.length)
                tokens += row.length
                shelf.tag += row.length
        rows.sort(key=_by_length)

    def _leave(self, rows: list[Row[T]]) -> None:
        tokens = 0
        for row in rows:
            row.ticket.rows -= 1
            row.ticket.tokens -= row.length
            tokens += row.length
        self._rows -= len(rows)
        self._tokens -= tokens

    def _sweep(self) -> None:
        for lane in self._lanes.values():
            for shelf in lane.shelves.values():
                shelf.rows = deque(row for row in shelf.rows if row.ticket.alive)
        self._dead = 0

    def _retry_after(self, tokens: int) -> float:
        too_many = min(self._tokens, self._tokens + tokens - self._bound)
        return retry_after_s(too_many, self._served_tokens, self._served_s)


def retry_after_s(too_many: float, served: float, seconds: float) -> float:
    """Seconds until `too_many` tokens are served, where `served` took `seconds`; 0.1 to 60."""
    if not served:
        return 1.0
    return min(max(too_many * seconds / served, 0.1), _LONGEST_RETRY_S)


def _similar(window: list[Row[T]], budget: int) -> tuple[list[Row[T]], list[Row[T]]]:
    """The oldest row and those nearest to it in length, shortest first; and the rest, in order."""
    ordered = sorted(window, key=_by_length)
    if len(ordered) * ordered[-1].length <= budget:
        return ordered, []
    oldest = window[0].length
    first = bisect_left(ordered, oldest, key=_by_length)
    last = first + 1
    while True:
        room = budget // (last - first + 1)
        below = ordered[first - 1].length if first else 0
        above = ordered[last].length if last < len(ordered) else room + 1
        up = above <= room
        down = below > 0 and ordered[last - 1].length <= room
        if up and not (down and oldest - below < above - oldest):
            last += 1
        elif down:
            first -= 1
        else:
            break
    rows = ordered[first:last]
    taken = set(map(id, rows))
    return rows, [row for row in window if id(row) not in taken]
