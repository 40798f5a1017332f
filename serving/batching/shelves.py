"""Rows by length, and whose turn it is: between lengths, between tenants, between a tenant's jobs.

Each of the three is start-time fair queueing in tokens. Who waits has a tag, the tokens it has had;
the least goes next; and who comes starts at the clock, the tag of whoever was served last.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import islice
from math import inf
from operator import attrgetter
from typing import Generic, TypeAlias, TypeVar

from serving.batching.rows import Row, Ticket

__all__ = ["Lane", "Shelf", "by_length"]

_OLDEST_EVERY = 4

T = TypeVar("T")
_Turns: TypeAlias = "list[tuple[int, int, _Flow[T]]]"

by_length = attrgetter("length")
_by_number = attrgetter("number")


@dataclass(slots=True, eq=False)
class _Flow(Generic[T]):
    """A tenant's rows on a shelf, sorted; the first `seen` of them are being chosen from.

    `clock` is where the next job starts.
    """

    tag: int
    rows: list[Row[T]] = field(default_factory=list)
    seen: int = 0
    clock: int = 0

    def add(self, rows: list[Row[T]]) -> None:
        if not self.rows or self.rows[-1] < rows[0]:
            self.rows += rows
        elif len(rows) == 1:
            insort(self.rows, rows[0])
        else:
            self.rows += rows
            self.rows.sort()


@dataclass(slots=True, eq=False)
class Shelf(Generic[T]):
    """Rows of similar length, `waiting` of them, the dead included.

    `tag` is this shelf's among the others, `clock` that of its tenants.
    """

    flows: dict[str, _Flow[T]] = field(default_factory=dict)
    waiting: int = 0
    tag: int = 0
    clock: int = 0
    turn: int = 0

    def batch(self, budget: int, lives: Callable[[Ticket[T]], bool]) -> list[Row[T]]:
        """Rows of like length, shortest first, which stay until they are taken.

        The row that is due is in it, but in one batch of `_OLDEST_EVERY` the oldest: a row can be
        passed over for others of its tenant's that are more like the one that is due.
        """
        found = self.due(budget, 2 * budget, lives)
        if not found:
            return []
        self.turn = (self.turn + 1) % _OLDEST_EVERY
        return _similar(found, found[0] if self.turn else min(found, key=_by_number), budget)

    def due(self, budget: int, room: int, lives: Callable[[Ticket[T]], bool]) -> list[Row[T]]:
        """Rows of `room` tokens in turn, which stay until they are taken.

        Beyond a batch's worth, `budget`, none is of a tenant that is a batch ahead of another.
        """
        turns = self._turns()
        bound = turns[0][0] + budget if len(turns) > 1 else inf
        found: list[Row[T]] = []
        given = 0
        while turns and given < room:
            tag, _, flow = heappop(turns)
            if given >= budget and tag >= bound:
                break
            until = turns[0][0] if turns else inf
            for row in islice(flow.rows, flow.seen, None):
                flow.seen += 1
                if lives(row.ticket):
                    if not found:
                        self.clock = max(self.clock, tag + row.length)
                    found.append(row)
                    given += row.length
                    tag += row.length
                    if tag > until or given >= room or (given >= budget and tag >= bound):
                        break
            if flow.seen < len(flow.rows):
                heappush(turns, (tag, flow.rows[flow.seen].number, flow))
        return found

    def all(self, lives: Callable[[Ticket[T]], bool]) -> list[Row[T]]:
        """Every row, in no order; they stay until they are taken."""
        found: list[Row[T]] = []
        for flow in self.flows.values():
            flow.seen = len(flow.rows)
            found += [row for row in flow.rows if lives(row.ticket)]
        return found

    def take(self, rows: Sequence[Row[T]]) -> int:
        """Those rows off the shelf, as had by their tenants; the dead among the seen go as well.

        The number of the dead.
        """
        taken = {row.number for row in rows}
        gone = 0
        for flow in self.flows.values():
            if flow.seen:
                seen = flow.rows[: flow.seen]
                flow.tag += sum([row.length for row in seen if row.number in taken])
                kept = [row for row in seen if row.number not in taken and row.ticket.alive]
                flow.rows[: flow.seen] = kept
                gone += flow.seen - len(kept)
                flow.seen = 0
        self.waiting -= gone
        if not self.waiting:  # whoever comes next begins anew
            self.flows.clear()
            self.clock = 0
        return gone - len(taken)

    def sweep(self) -> None:
        """Let go of the dead."""
        for flow in self.flows.values():
            flow.seen = len(flow.rows)
        self.take(())

    def _turns(self) -> _Turns[T]:
        """Tenants that wait, as a heap; of the others, what no longer matters is forgotten."""
        turns: _Turns[T] = []
        for tenant, flow in list(self.flows.items()):
            if flow.rows:
                first = flow.rows[0]
                # Behind the row that is next: no stream of new jobs makes an old one wait for ever.
                flow.clock = max(flow.clock, first.due + first.length)
                turns.append((flow.tag, first.number, flow))
            elif flow.tag <= self.clock:
                del self.flows[tenant]
        heapify(turns)
        return turns


class Lane(Generic[T]):
    """The shelves of one service class."""

    def __init__(self) -> None:
        self.shelves: dict[int, Shelf[T]] = {}
        self.clock = 0

    def add(self, ticket: Ticket[T], lengths: Sequence[int], numbers: Iterator[int]) -> None:
        """A job's rows, each to its shelf."""
        some: dict[int, list[Row[T]]] = {}
        for place, length in enumerate(lengths):
            size = ((length - 1).bit_length() + 1) // 2
            if (rows := some.get(size)) is None:
                due, rows = self._flow(size, ticket.tenant).clock, some.setdefault(size, [])
            else:
                due = rows[-1].due + rows[-1].length
            rows.append(Row(due, next(numbers), ticket, place, length))
        for size, rows in some.items():
            shelf = self.shelves[size]
            shelf.waiting += len(rows)
            shelf.flows[ticket.tenant].add(rows)

    def next(self) -> int | None:
        """The shelf whose turn it is; of equals the shortest rows."""
        waiting = [(shelf.tag, size) for size, shelf in self.shelves.items() if shelf.waiting]
        return min(waiting)[1] if waiting else None

    def _flow(self, size: int, tenant: str) -> _Flow[T]:
        shelf = self.shelves.get(size)
        if shelf is None:
            shelf = self.shelves[size] = Shelf()
        if not shelf.waiting:
            shelf.tag = max(shelf.tag, self.clock)
        flow = shelf.flows.get(tenant)
        if flow is None:
            flow = shelf.flows[tenant] = _Flow(shelf.clock)
        elif not flow.rows:
            flow.tag = max(flow.tag, shelf.clock)
        return flow


def _similar(window: list[Row[T]], first: Row[T], budget: int) -> list[Row[T]]:
    """Of the window that one and those nearest to it in length, shortest first."""
    ordered = sorted(window, key=by_length)
    if len(ordered) * ordered[-1].length <= budget:
        return ordered
    wanted = first.length
    start = ordered.index(first, bisect_left(ordered, wanted, key=by_length))
    end = start + 1
    while True:
        room = budget // (end - start + 1)
        below = ordered[start - 1].length if start else 0
        above = ordered[end].length if end < len(ordered) else room + 1
        up = above <= room
        down = below > 0 and ordered[end - 1].length <= room
        if up and not (down and wanted - below < above - wanted):
            end += 1
        elif down:
            start -= 1
        else:
            return ordered[start:end]
