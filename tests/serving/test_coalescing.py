"""Coalescing: who leaves with whom, and what becomes of those who fail or go away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from serving.coalescing import Coalescer, Flight, Lane


class Hop:
    """Records flights; lands them when told to, or at once."""

    def __init__(self, held: bool = True) -> None:
        self.flights: list[list[int]] = []
        self.dropped: list[tuple[int, int]] = []
        self.cancelled: list[int] = []
        self.landing = asyncio.Event()
        if not held:
            self.landing.set()

    async def send(self, flight: Flight[int, int]) -> Sequence[int | BaseException]:
        self.flights.append(list(flight.items))
        try:
            await self.landing.wait()
        except asyncio.CancelledError:
            self.cancelled.append(flight.number)
            raise
        return [ValueError("odd") if item % 2 else item * 10 for item in flight.items]

    def drop(self, flight: Flight[int, int], index: int) -> None:
        self.dropped.append((flight.number, index))


def coalescer(hop: Hop, flights: int = 1, capacity: int = 100) -> Coalescer[int, int]:
    return Coalescer(
        hop.send, Lane(flights, capacity), weigh=lambda item: max(1, item), drop=hop.drop
    )


async def started(call: Coalescer[int, int], *items: int) -> list[asyncio.Task[int]]:
    """Calls made one turn of the event loop after the other."""
    tasks = []
    for item in items:
        tasks.append(asyncio.create_task(call(item)))
        await settle()
    return tasks


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_call_leaves_at_once_when_none_is_under_way() -> None:
    hop = Hop(held=False)
    assert await coalescer(hop)(2) == 20
    assert hop.flights == [[2]]


async def test_calls_of_one_turn_leave_together() -> None:
    hop = Hop(held=False)
    call = coalescer(hop)
    assert await asyncio.gather(call(2), call(4), call(6)) == [20, 40, 60]
    assert hop.flights == [[2, 4, 6]]


async def test_calls_gather_while_one_is_under_way_and_leave_as_one() -> None:
    hop = Hop()
    call = coalescer(hop)
    tasks = await started(call, 2, 4, 6, 8)
    assert hop.flights == [[2]]
    hop.landing.set()
    assert await asyncio.gather(*tasks) == [20, 40, 60, 80]
    assert hop.flights == [[2], [4, 6, 8]]


async def test_one_failing_item_fails_alone() -> None:
    hop = Hop()
    call = coalescer(hop)
    tasks = [asyncio.create_task(call(item)) for item in (2, 4, 3)]
    await settle()
    hop.landing.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[:2] == [20, 40]
    assert isinstance(results[2], ValueError)


async def test_what_the_hop_raises_is_raised_to_every_caller() -> None:
    async def send(flight: Flight[int, int]) -> Sequence[int]:
        raise ConnectionError("gone")

    call: Coalescer[int, int] = Coalescer(send, Lane(), weigh=lambda item: 1)
    results = await asyncio.gather(call(2), call(4), return_exceptions=True)
    assert [type(r) for r in results] == [ConnectionError, ConnectionError]


async def test_a_heavy_item_leaves_alone_at_once() -> None:
    hop = Hop()
    call = coalescer(hop, capacity=10)
    tasks = await started(call, 2, 50, 60, 4)
    assert hop.flights == [[2], [50], [60]]
    hop.landing.set()
    await asyncio.gather(*tasks)
    assert hop.flights[3] == [4]


async def test_a_flight_takes_no_more_than_its_capacity() -> None:
    hop = Hop()
    call = coalescer(hop, capacity=10)
    tasks = await started(call, 2, 4, 4, 4, 4)
    hop.landing.set()
    await asyncio.gather(*tasks)
    assert hop.flights == [[2], [4, 4, 4], [4]]


async def test_a_caller_gone_before_departure_is_forgotten() -> None:
    hop = Hop()
    call = coalescer(hop)
    tasks = await started(call, 2, 4, 6)
    tasks[1].cancel()
    await settle()
    hop.landing.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert hop.flights == [[2], [6]]


async def test_a_caller_gone_in_flight_is_told_to_the_hop() -> None:
    hop = Hop()
    call = coalescer(hop)
    first = asyncio.create_task(call(8))
    await settle()
    others = [asyncio.create_task(call(item)) for item in (2, 4)]
    await settle()
    hop.landing.set()
    await first
    hop.landing.clear()
    await settle()
    others[1].cancel()
    await settle()
    assert hop.dropped in ([(2, 1)], [])
    hop.landing.set()
    assert await others[0] == 20


async def test_a_flight_that_nobody_waits_for_is_cancelled() -> None:
    hop = Hop()
    task = asyncio.create_task(coalescer(hop)(2))
    await settle()
    task.cancel()
    await settle()
    assert hop.cancelled == [1]


async def test_the_end_of_the_first_caller_does_not_end_the_flight() -> None:
    hop = Hop()
    call = coalescer(hop, flights=1)
    blocker = asyncio.create_task(call(8))
    await settle()
    first, second = (asyncio.create_task(call(item)) for item in (2, 4))
    await settle()
    hop.landing.set()
    await blocker
    first.cancel()
    assert await second == 40


async def test_kinds_do_not_share_a_flight() -> None:
    hop = Hop()
    call = Coalescer(hop.send, Lane(1, 100), weigh=lambda i: 1, kind=lambda i: i > 5)
    tasks = await started(call, 2, 8, 4, 6)
    hop.landing.set()
    await asyncio.gather(*tasks)
    assert hop.flights == [[2], [8], [4], [6]]


async def test_close_cancels_everyone() -> None:
    hop = Hop()
    call = coalescer(hop)
    tasks = [asyncio.create_task(call(item)) for item in (2, 4)]
    await settle()
    await call.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(r, asyncio.CancelledError) for r in results)


@pytest.mark.parametrize("flights", [1, 2, 4])
async def test_as_many_flights_as_asked_are_under_way(flights: int) -> None:
    hop = Hop()
    call = coalescer(hop, flights=flights)
    tasks = await started(call, *[2] * 6)
    assert call.under_way == flights
    hop.landing.set()
    await asyncio.gather(*tasks)
    assert call.under_way == 0
