"""What died with a replica is sent again, alone; what replicas keep dying under is not.

A replica dies with its process, or in it: vLLM's engine is a process of its own, and a replica that
has lost it tells every call so before it ends.

Embedding is idempotent, and Serve never sends a call again that a replica had taken. But one input
may be what kills replicas, and it shares its flights with others: so after a death each call of the
flight goes alone, and one after another, for two suspects in one replica could not be told apart.
Those of another gateway could still be there, so a second death is no proof yet: it ends the
request with an `EngineCrashed`, and the input may be tried once more when it is sent again. After
a third it is refused for a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from ray.exceptions import RayActorError

from serving.errors import EngineCrashed, EngineDied, PolyvecError

__all__ = ["Suspects"]

log = logging.getLogger("polyvec.suspects")

T = TypeVar("T")
R = TypeVar("R")

_DEATH = (RayActorError, EngineDied)

_TRIES = 2  # of one request
_DEATHS = 3  # of replicas under one input, over all its requests
_FORGET_S = 600.0
_ENDS_S = 0.2  # a replica whose engine is dead takes so long to be gone
_ENDING = 25  # such replicas in a row
_MOST = 1024


class Suspects(Generic[T, R]):
    """For one hop: `hop(items)` sends calls. `mark` is the same number for calls of one input."""

    def __init__(
        self,
        hop: Callable[[Sequence[T]], Awaitable[Sequence[R | BaseException]]],
        mark: Callable[[T], int],
        clock: Callable[[], float] = time.monotonic,
        pause_s: float = _ENDS_S,
    ) -> None:
        self._hop, self._mark, self._clock, self._pause_s = hop, mark, clock, pause_s
        self._deaths: dict[int, tuple[int, float]] = {}  # under an input, and when the last was
        self._one = asyncio.Lock()

    async def outlive(
        self, items: Sequence[T], first: Awaitable[Sequence[R | BaseException]]
    ) -> Sequence[R | BaseException]:
        """What `first`, their hop, gives; where a replica dies in it, what each gives alone."""
        try:
            results = list(await first)
        except RayActorError as died:
            results = [died] * len(items)
        again = [at for at, result in enumerate(results) if isinstance(result, _DEATH)]
        if not again:
            return results
        log.warning("a replica died under %d calls, each of which is sent again alone", len(again))
        struck = {at for at in again if _struck(results[at])}
        for at in struck:
            self._note(items[at])
        for at in again:
            results[at] = await self._again(items[at], _TRIES - (at in struck))
        return results

    async def alone(self, item: T) -> R | None:
        """The result of an item that replicas died under before, in no flight; None for others.

        Raises its error.
        """
        if not self._deaths or not self._before(item):
            return None
        result = await self._again(item, 1)
        if isinstance(result, BaseException):
            raise result
        return result

    async def _again(self, item: T, tries: int) -> R | BaseException:
        async with self._one:
            for _ in range(tries if self._before(item) < _DEATHS else 0):
                result = await self._sent(item)
                if isinstance(result, _DEATH):
                    self._note(item)
                    continue
                if not isinstance(result, BaseException):
                    self._deaths.pop(self._mark(item), None)
                return result
        deaths = self._before(item)
        log.error("%d replicas died under one input, which is refused", deaths)
        return EngineCrashed(f"{deaths} replicas died while they embedded this input")

    async def _sent(self, item: T) -> R | BaseException:
        """What the item gives alone, in a replica that was not dead before."""
        result: R | BaseException
        for _ in range(_ENDING):
            try:
                [result] = await self._hop([item])
            except (RayActorError, PolyvecError) as error:
                result = error
            if not isinstance(result, EngineDied) or result.taken:
                break
            await asyncio.sleep(self._pause_s)
        return result

    def _before(self, item: T) -> int:
        deaths, last = self._deaths.get(self._mark(item), (0, 0.0))
        return deaths if self._clock() - last < _FORGET_S else 0

    def _note(self, item: T) -> None:
        deaths = self._before(item)
        if len(self._deaths) >= _MOST:
            del self._deaths[next(iter(self._deaths))]
        self._deaths[self._mark(item)] = (deaths + 1, self._clock())


def _struck(result: object) -> bool:
    """Whether the call was in what died."""
    return not isinstance(result, EngineDied) or result.taken
