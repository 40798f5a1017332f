"""Many waiting calls, one hop: while a call is under way the next ones gather and leave as one.

A hop costs about as much as a short text, so its price is shared. At low load nothing waits: a call
leaves when no other is under way, at the end of the event loop's present turn, with whatever else
that turn brings. Knows nothing of Ray or of vectors.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Coalescer", "Flight", "Lane"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Lane:
    """How calls leave together: `flights` under way at a time, each up to `capacity` in weight."""

    flights: int = 1
    capacity: int = 1024


@dataclass(slots=True, eq=False)
class Flight(Generic[T, R]):
    """Calls that left as one: their items and the futures of their callers, in order."""

    number: int
    items: Sequence[T]
    futures: Sequence[asyncio.Future[R]]
    task: asyncio.Task[None] | None = None

    def wanted(self) -> list[int]:
        """Indices of the calls whose callers still wait."""
        return [i for i, future in enumerate(self.futures) if not future.done()]


@dataclass(slots=True, eq=False)
class _Waiting(Generic[T, R]):
    items: deque[tuple[T, asyncio.Future[R]]] = field(default_factory=deque)
    under_way: int = 0
    boarding: bool = False


class Coalescer(Generic[T, R]):
    """Gathers calls of one kind. `await coalescer(item)` is the item's own result or its own error.

    `send(flight)` makes the hop and returns a result or an exception for every item; what it
    raises is raised to every caller. An item heavier than the lane's capacity leaves alone, at
    once, so that light ones never wait for it; items with different `kind` never share a flight.
    When a caller is cancelled its item is forgotten if it has not left, else `drop(flight, index)`
    is told; when the last caller of a flight has gone, the flight is cancelled. `left` is told how
    many calls left together, at every departure.
    """

    def __init__(
        self,
        send: Callable[[Flight[T, R]], Awaitable[Sequence[R | BaseException]]],
        lane: Lane,
        weigh: Callable[[T], int],
        kind: Callable[[T], Hashable] = lambda item: None,
        drop: Callable[[Flight[T, R], int], None] = lambda flight, index: None,
        left: Callable[[int], None] = lambda calls: None,
    ) -> None:
        self._send, self._lane, self._weigh, self._kind, self._drop = send, lane, weigh, kind, drop
        self._left = left
        self._waiting: dict[Hashable, _Waiting[T, R]] = {}
        self._flights: set[Flight[T, R]] = set()
        self._of: dict[asyncio.Future[R], tuple[Flight[T, R], int]] = {}
        self._number = 0
        # A flight belongs to no request: in its own context, the end of the request that happened
        # to set it off does not end it.
        self._context = contextvars.Context()

    async def __call__(self, item: T) -> R:
        """The item's result, by way of whatever flight it leaves with."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        if self._weigh(item) >= self._lane.capacity:
            self._depart(None, [item], [future])
        else:
            kind = self._kind(item)
            waiting = self._waiting.get(kind)
            if waiting is None:
                waiting = self._waiting[kind] = _Waiting()
            waiting.items.append((item, future))
            self._board(waiting)
        try:
            return await future
        except asyncio.CancelledError:
            self._forget(future)
            raise

    @property
    def under_way(self) -> int:
        """Flights that have left and not landed."""
        return len(self._flights)

    async def close(self) -> None:
        """Cancel every flight and everyone who waits."""
        for waiting in self._waiting.values():
            for _, future in waiting.items:
                future.cancel()
        tasks = [flight.task for flight in self._flights if flight.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _depart_waiting(self, waiting: _Waiting[T, R]) -> None:
        waiting.boarding = False
        items: list[T] = []
        futures: list[asyncio.Future[R]] = []
        weight = 0
        while waiting.items and weight < self._lane.capacity:
            item, future = waiting.items.popleft()
            if not future.done():
                items.append(item)
                futures.append(future)
                weight += self._weigh(item)
        if items:
            waiting.under_way += 1
            self._depart(waiting, items, futures)
        if waiting.items:
            self._board(waiting)

    def _board(self, waiting: _Waiting[T, R]) -> None:
        if waiting.under_way < self._lane.flights and not waiting.boarding:
            waiting.boarding = True
            asyncio.get_running_loop().call_soon(self._depart_waiting, waiting)

    def _depart(
        self, waiting: _Waiting[T, R] | None, items: list[T], futures: list[asyncio.Future[R]]
    ) -> None:
        self._number += 1
        self._left(len(items))
        flight = Flight(self._number, items, futures)
        self._flights.add(flight)
        for index, future in enumerate(futures):
            self._of[future] = (flight, index)
        loop = asyncio.get_running_loop()
        flight.task = loop.create_task(self._fly(flight, waiting), context=self._context.copy())

    async def _fly(self, flight: Flight[T, R], waiting: _Waiting[T, R] | None) -> None:
        try:
            results = await self._send(flight)
            for future, result in zip(flight.futures, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        except asyncio.CancelledError:
            for future in flight.futures:
                future.cancel()
            raise
        except Exception as error:
            for future in flight.futures:
                if not future.done():
                    future.set_exception(error)
        finally:
            self._land(flight, waiting)

    def _land(self, flight: Flight[T, R], waiting: _Waiting[T, R] | None) -> None:
        self._flights.discard(flight)
        for future in flight.futures:
            self._of.pop(future, None)
        if waiting is not None:
            waiting.under_way -= 1
            if waiting.items:
                self._board(waiting)

    def _forget(self, future: asyncio.Future[R]) -> None:
        flown = self._of.get(future)
        if flown is None:
            return
        flight, index = flown
        if flight.wanted():
            self._drop(flight, index)
        elif flight.task is not None:
            flight.task.cancel()
