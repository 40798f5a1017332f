"""What holds while a store does not answer. No request waits for it longer than it is told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Literal, TypeAlias, TypeVar

from serving.errors import Unavailable
from serving.limits.decision import Decision, Spending
from serving.limits.observing import Observer, Unobserved
from serving.limits.stores import RateStore, StoreUnavailable
from serving.limits.stores.memory import MemoryStore

__all__ = ["Guarded", "OnStoreError"]

OnStoreError: TypeAlias = Literal["open", "closed", "local"]
T = TypeVar("T")

_REST_S = 0.5
_MOST_UNSURE = 1_000


class Guarded:
    """A `RateStore` before another that may fail; it answers within `timeout_s` whatever happens.

    Without the store: `open` admits all, `closed` raises `Unavailable`, `local` counts in this
    process alone, so that each gateway gives a tenant the whole limit. After a failure the store is
    left alone for half a second; then one request at a time tries it, and the first that succeeds
    ends it. What is done at the store is done even when the caller is cancelled: a charge that
    nobody waits for any more is given back. `took` is told the seconds of every answered call.
    """

    def __init__(
        self,
        store: RateStore,
        on_error: OnStoreError,
        *,
        timeout_s: float = 0.25,
        observer: Observer | None = None,
        took: Callable[[float], None] = lambda seconds: None,
        clock: Callable[[], float] = time.monotonic,
        local: RateStore | None = None,
    ) -> None:
        self._store, self._on_error, self._timeout_s = store, on_error, timeout_s
        self._observer: Observer = observer or Unobserved()
        self._clock, self._took = clock, took
        self._local = local or MemoryStore()
        self._up, self._again, self._trying = True, 0.0, False
        self._unsure: list[Spending] = []
        self._tasks: set[asyncio.Task[object]] = set()

    async def take(self, spending: Spending) -> Decision:
        """See `RateStore`; `Unavailable` only where the policy is `closed`."""
        if self._may_ask():
            asking = self._begin(self._ask(self._store.take(spending)))
            try:
                decision = await asyncio.shield(asking)
            except StoreUnavailable:
                self._doubt(spending)
            except asyncio.CancelledError:
                asking.add_done_callback(partial(self._unwanted, spending))
                raise
            else:
                return decision
        return await self._without(spending)

    async def give_back(self, spending: Spending, decision: Decision) -> None:
        """See `RateStore`; never raises `StoreUnavailable`: the observer is told what is lost."""
        match decision.source:
            case "local":
                await self._local.give_back(spending, decision)
            case "store" if self._may_ask():
                await asyncio.shield(self._begin(self._return(spending, decision)))
            case "store":
                self._lose(spending)
            case "nowhere":
                pass

    @property
    def under_way(self) -> int:
        """Calls of the store that have not ended."""
        return len(self._tasks)

    async def close(self) -> None:
        """Finish what is under way at the store, then close both."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._store.close()
        await self._local.close()

    def _may_ask(self) -> bool:
        if self._up:
            return True
        if self._trying or self._clock() < self._again:
            return False
        self._trying = True
        return True

    async def _ask(self, asked: Coroutine[object, object, T]) -> T:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await asked
        except (StoreUnavailable, TimeoutError) as error:
            why = str(error) or f"the store of quotas did not answer within {self._timeout_s} s"
            self._up, self._again = False, self._clock() + _REST_S
            self._observer.store(False, why)
            raise StoreUnavailable(why) from error
        finally:
            self._trying = False
        self._took(time.perf_counter() - began)
        if not self._up:
            self._recover()
        return answer

    def _recover(self) -> None:
        self._up = True
        self._observer.store(True, "")
        unsure, self._unsure = self._unsure, []
        for spending in unsure:
            self._begin(self._return(spending, Decision()))

    async def _return(self, spending: Spending, decision: Decision) -> None:
        try:
            await self._ask(self._store.give_back(spending, decision))
        except StoreUnavailable:
            self._lose(spending)

    async def _without(self, spending: Spending) -> Decision:
        match self._on_error:
            case "open":
                return Decision(source="nowhere")
            case "local":
                return replace(await self._local.take(spending), source="local")
            case "closed":
                raise Unavailable("quotas cannot be counted now, so nothing is taken on", 1.0)

    def _unwanted(self, spending: Spending, asking: asyncio.Task[Decision]) -> None:
        """The caller went away while the store was asked."""
        if asking.cancelled() or asking.exception() is not None:
            self._doubt(spending)
        elif asking.result().refusal is None:
            self._begin(self._return(spending, asking.result()))

    def _lose(self, spending: Spending) -> None:
        self._observer.lost(spending.tenant)
        self._doubt(spending)

    def _doubt(self, spending: Spending) -> None:
        """It may hold a place, which is given back when the store is there again."""
        places = tuple(one for one in spending.charges if one.bucket.name == "concurrency")
        if places and len(self._unsure) < _MOST_UNSURE:
            self._unsure.append(replace(spending, charges=places))

    def _begin(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
