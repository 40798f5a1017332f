"""In this process's memory: nothing to install, nothing shared, nothing kept over a restart."""

from __future__ import annotations

import time

from serving.limits.buckets import WINDOW_MS, Month, State, new_state
from serving.limits.decision import Charge, Decision, Spending, decide
from serving.limits.stores import Clock, RateStore, StoreOptions

__all__ = ["MemoryStore", "open_store"]

Key = tuple[str, str]


def open_store(url: str, options: StoreOptions) -> RateStore:
    """`memory://`; nothing follows the scheme."""
    return MemoryStore(options.clock)


class MemoryStore:
    """Atomic because it awaits nothing: one event loop, one decision at a time.

    Rates are kept in two generations that change places every minute. A rate that nobody has
    touched for as long is empty, so it is dropped unseen and no sweep is needed.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or _now
        self._young: dict[Key, State] = {}
        self._old: dict[Key, State] = {}
        self._turned = self._clock()
        self._lasting: dict[Key, State] = {}  # months and places

    def __len__(self) -> int:
        """Buckets that are remembered."""
        return len(self._young) + len(self._old) + len(self._lasting)

    async def take(self, spending: Spending) -> Decision:
        """See `RateStore`."""
        now = self._now()
        tenant, charges = spending.tenant, spending.charges
        states = [self._state(tenant, charge) for charge in charges]
        waits = [
            state.wait(charge.bucket.limit, charge.cost, now)
            for state, charge in zip(states, charges, strict=True)
        ]
        if not any(wait != 0 for wait in waits):
            for state, charge in zip(states, charges, strict=True):
                state.take(charge.cost, now, spending)
        found = zip(states, charges, waits, strict=True)
        outcomes = [state.outcome(charge.bucket.limit, now, wait) for state, charge, wait in found]
        return decide(spending, now, outcomes)

    async def give_back(self, spending: Spending, decision: Decision) -> None:
        """See `RateStore`."""
        now = self._now()
        for charge in spending.charges:
            state = self._state(spending.tenant, charge)
            state.give_back(charge.bucket.limit, charge.cost, decision.at_ms, now, spending)

    async def close(self) -> None:
        """Nothing is open."""

    def _now(self) -> int:
        now = self._clock()
        if now - self._turned >= WINDOW_MS:
            self._turn(now)
        return now

    def _turn(self, now: int) -> None:
        idle = now - self._turned >= 2 * WINDOW_MS  # then the young ones are empty too
        self._old, self._young = {} if idle else self._young, {}
        self._turned = now
        over = [
            key
            for key, state in self._lasting.items()
            if isinstance(state, Month) and now >= state.end
        ]
        for key in over:
            del self._lasting[key]

    def _state(self, tenant: str, charge: Charge) -> State:
        bucket = charge.bucket
        key = tenant, bucket.key
        if bucket.name in ("month", "concurrency"):
            kept = self._lasting.get(key)
            if kept is None:
                kept = self._lasting[key] = new_state(bucket.name)
            return kept
        state = self._young.get(key)
        if state is None:
            state = self._old.pop(key) if key in self._old else new_state(bucket.name)
            self._young[key] = state
        return state


def _now() -> int:
    return time.time_ns() // 1_000_000
