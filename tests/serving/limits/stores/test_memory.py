"""Memory forgets what is over, and nothing before."""

from __future__ import annotations

import pytest

from serving.limits.decision import Charge, Decision, Spending
from serving.limits.limit import Limits
from serving.limits.stores.memory import MemoryStore
from tests.serving.limits.shared import Clock, left

LIMITS = Limits(requests_per_minute=600)
MONTH_MS = 31 * 86_400_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock)


async def take(store: MemoryStore, tenant: str, limits: Limits, cost: int) -> Decision:
    charges = tuple(Charge(bucket, cost) for bucket in limits.buckets("m"))
    return await store.take(Spending(tenant, charges, "p", 1000))


@pytest.mark.parametrize("step", [1000, 7000, 30_000, 59_999])
async def test_a_tenant_that_is_quiet_is_remembered_until_all_has_leaked(
    store: MemoryStore, clock: Clock, step: int
) -> None:
    await take(store, "busy", LIMITS, 1)
    clock.now += 500
    await take(store, "quiet", LIMITS, 600)
    passed = 0
    while passed + step < 60_000:
        passed += step
        clock.now += step
        await take(store, "busy", LIMITS, 1)
        assert left(await take(store, "other", LIMITS, 0)) == {"requests": 600}
    assert left(await take(store, "quiet", LIMITS, 0)) == {"requests": passed * 600 // 60_000}


async def test_tenants_that_are_gone_are_forgotten(store: MemoryStore, clock: Clock) -> None:
    for number in range(100):
        await take(store, str(number), LIMITS, 1)
    assert len(store) == 100
    for _ in range(2):
        clock.now += 60_000
        await take(store, "busy", LIMITS, 1)
    assert len(store) == 1


async def test_months_that_are_over_are_forgotten(store: MemoryStore, clock: Clock) -> None:
    await take(store, "quiet", Limits(monthly_tokens=5), 1)
    clock.now += 86_400_000
    await take(store, "busy", LIMITS, 1)
    assert len(store) == 2
    clock.now += MONTH_MS
    await take(store, "busy", LIMITS, 1)
    assert len(store) == 1
