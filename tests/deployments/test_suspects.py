"""What died with a replica goes again alone, and what kills replicas is found out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from ray.exceptions import ActorUnavailableError

from deployments.suspects import Suspects
from serving.errors import EngineCrashed, EngineDied, Overloaded

Results = Sequence[int | BaseException]


class Replicas:
    """Doubles numbers; every call with a deadly number costs a replica.

    `living`: its engine alone, and the process ends a moment later.
    """

    def __init__(self, *deadly: int, living: bool = False) -> None:
        self.deadly, self.living, self.ending = set(deadly), living, 0
        self.calls: list[list[int]] = []
        self.under_way = self.most = 0

    async def __call__(self, items: Sequence[int]) -> Results:
        self.calls.append(list(items))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        if self.deadly & set(items):
            if not self.living:
                raise ActorUnavailableError("gone", b"x" * 16)
            self.ending = 2  # calls that still get to it
            return [EngineDied("the engine has died", 1.0, True) for _ in items]
        if self.ending:
            self.ending -= 1
            return [EngineDied("the engine has died") for _ in items]
        return [Overloaded("full") if item == 0 else 2 * item for item in items]

    @property
    def deaths(self) -> int:
        return sum(bool(self.deadly & set(items)) for items in self.calls)


def guarded(replicas: Replicas, now: list[float] | None = None) -> Suspects[int, int]:
    moment = now or [0.0]
    return Suspects(replicas, mark=hash, clock=lambda: moment[0], pause_s=0.0)


async def flown(suspects: Suspects[int, int], replicas: Replicas, *items: int) -> Results:
    return await suspects.outlive(items, replicas(items))


async def test_a_flight_that_lands_is_sent_once() -> None:
    replicas = Replicas()
    assert await flown(guarded(replicas), replicas, 1, 2) == [2, 4]
    assert replicas.calls == [[1, 2]]


async def test_neighbours_of_a_deadly_input_are_answered() -> None:
    replicas = Replicas(5)
    first, crashed, last = await flown(guarded(replicas), replicas, 1, 5, 2)
    assert (first, last) == (2, 4)
    assert isinstance(crashed, EngineCrashed)
    assert replicas.calls == [[1, 5, 2], [1], [5], [2]]


async def test_one_of_several_that_is_refused_is_refused_alone() -> None:
    replicas = Replicas(5)
    refused, _, answered = await flown(guarded(replicas), replicas, 0, 5, 1)
    assert isinstance(refused, Overloaded)
    assert answered == 2


async def test_no_two_suspects_are_sent_at_a_time() -> None:
    replicas, falling = Replicas(), Replicas(1, 3)
    suspects = guarded(replicas)
    flights = (suspects.outlive(items, falling(items)) for items in ((1, 2), (3, 4)))
    assert await asyncio.gather(*flights) == [[2, 4], [6, 8]]
    assert replicas.most == 1


async def test_what_killed_three_replicas_is_not_sent_again() -> None:
    replicas = Replicas(5)
    suspects = guarded(replicas)
    await flown(suspects, replicas, 5)
    for _ in range(4):
        with pytest.raises(EngineCrashed, match="3 replicas died"):
            await suspects.alone(5)
    assert replicas.deaths == 3


async def test_who_was_only_there_is_no_suspect_any_more() -> None:
    replicas = Replicas(5)
    suspects = guarded(replicas)
    await flown(suspects, replicas, 1, 5)
    assert await suspects.alone(1) is None


async def test_an_innocent_with_bad_luck_is_answered_when_it_asks_again() -> None:
    replicas = Replicas(1)
    suspects = guarded(replicas)
    [crashed] = await flown(suspects, replicas, 1)
    assert isinstance(crashed, EngineCrashed)
    replicas.deadly.clear()
    assert await suspects.alone(1) == 2
    assert await suspects.alone(1) is None


async def test_deaths_are_forgotten_after_a_while() -> None:
    replicas, now = Replicas(5), [0.0]
    suspects = guarded(replicas, now)
    await flown(suspects, replicas, 5)
    now[0] += 3600
    assert await suspects.alone(5) is None


async def test_an_engine_that_dies_in_a_living_process_is_a_death_too() -> None:
    replicas = Replicas(5, living=True)
    suspects = guarded(replicas)
    first, crashed, last = await flown(suspects, replicas, 1, 5, 2)
    assert (first, last) == (2, 4)
    assert isinstance(crashed, EngineCrashed)
    for _ in range(3):
        with pytest.raises(EngineCrashed, match="3 replicas died"):
            await suspects.alone(5)
    assert replicas.deaths == 3


async def test_a_call_that_came_after_the_death_is_sent_again_and_is_no_suspect() -> None:
    replicas = Replicas(living=True)
    replicas.ending = 3
    suspects = guarded(replicas)
    assert await flown(suspects, replicas, 1, 2) == [2, 4]
    assert await suspects.alone(1) is None
