"""The promises of `RateStore`, kept by every file in `serving/limits/stores/` and a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import pytest

from serving.errors import InvalidConfig
from serving.limits.decision import Decision, Spending
from serving.limits.limit import Limits
from serving.limits.stores import STORES, RateStore, StoreOptions, open_store
from tests.serving.limits.shared import KINDS, Shared, left, sharing, waits

ALL = Limits(
    requests_per_minute=60,
    tokens_per_minute=6000,
    images_per_minute=30,
    concurrent_requests=2,
    monthly_tokens=100_000,
)


@pytest.fixture(params=KINDS, scope="module")
def module_shared(request: pytest.FixtureRequest) -> Iterator[Shared]:
    with sharing(request.param) as shared:
        yield shared


@pytest.fixture
def shared(module_shared: Shared) -> Shared:
    module_shared.clock.now = Shared(module_shared.connect).clock.now
    return Shared(module_shared.connect, module_shared.clock)


@pytest.fixture
async def store(shared: Shared) -> AsyncIterator[RateStore]:
    opened = shared.open()
    yield opened
    await opened.close()


async def take(store: RateStore, shared: Shared, limits: Limits, **costs: int) -> Decision:
    return await store.take(shared.spending(limits, **costs))


async def test_all_buckets_are_charged_together(store: RateStore, shared: Shared) -> None:
    found = await take(
        store, shared, ALL, requests=1, tokens=500, images=2, concurrency=1, month=500
    )
    assert found.refusal is None
    assert left(found) == {
        "requests": 59,
        "tokens": 5500,
        "images": 28,
        "concurrency": 1,
        "month": 99_500,
    }
    assert found.at_ms == shared.clock.now


@pytest.mark.parametrize(
    ("bucket", "cost"), [("requests", 61), ("tokens", 6001), ("images", 31), ("month", 100_001)]
)
async def test_a_refusal_charges_no_bucket(
    store: RateStore, shared: Shared, bucket: str, cost: int
) -> None:
    ones = {"requests": 1, "tokens": 1, "images": 1, "concurrency": 1, "month": 1}
    refused = await take(store, shared, ALL, **(ones | {bucket: cost}))
    assert waits(refused) == (bucket, None)
    untouched = await take(store, shared, ALL)
    assert left(refused) == left(untouched)
    assert set(left(untouched).values()) == {60, 6000, 30, 2, 100_000}


async def test_a_cost_of_nothing_looks_and_changes_nothing(
    store: RateStore, shared: Shared
) -> None:
    await take(store, shared, ALL, tokens=6000, concurrency=1)
    looks = [await take(store, shared, ALL) for _ in range(3)]
    assert all(look.refusal is None for look in looks)
    assert [left(look)["tokens"] for look in looks] == [0, 0, 0]
    assert left(looks[0])["concurrency"] == 1


async def test_a_refusal_says_when_such_a_request_fits(store: RateStore, shared: Shared) -> None:
    await take(store, shared, ALL, tokens=6000)
    assert waits(await take(store, shared, ALL, tokens=1)) == ("tokens", 10)
    assert waits(await take(store, shared, ALL, tokens=700)) == ("tokens", 7000)
    shared.clock.now += 6999
    assert waits(await take(store, shared, ALL, tokens=700)) == ("tokens", 1)
    shared.clock.now += 1
    assert (await take(store, shared, ALL, tokens=700)).refusal is None


async def test_the_bucket_that_is_waited_for_longest_is_named(
    store: RateStore, shared: Shared
) -> None:
    await take(store, shared, ALL, requests=60, tokens=6000)
    assert waits(await take(store, shared, ALL, requests=1, tokens=500)) == ("tokens", 5000)
    assert waits(await take(store, shared, ALL, requests=10, tokens=500)) == ("requests", 10_000)
    assert waits(await take(store, shared, ALL, requests=1, month=100_001)) == ("month", None)


async def test_it_says_when_a_bucket_is_full_again(store: RateStore, shared: Shared) -> None:
    found = await take(store, shared, ALL, requests=3, tokens=1)
    resets = {one.bucket.name: one.reset_ms for one in found.standings}
    assert (resets["requests"], resets["tokens"], resets["images"]) == (3000, 10, 0)
    shared.clock.now += 2999
    again = {one.bucket.name: one.reset_ms for one in (await take(store, shared, ALL)).standings}
    assert (again["requests"], again["tokens"]) == (1, 0)


async def test_a_limit_that_does_not_divide_a_minute_is_exact(
    store: RateStore, shared: Shared
) -> None:
    limits = Limits(requests_per_minute=7)
    await take(store, shared, limits, requests=7)
    for _ in range(20):
        assert waits(await take(store, shared, limits, requests=7)) == ("requests", 60_000)
        shared.clock.now += 60_000
        assert (await take(store, shared, limits, requests=7)).refusal is None


async def test_a_limit_of_nothing_refuses_everything(store: RateStore, shared: Shared) -> None:
    for limits, cost in [
        (Limits(requests_per_minute=0), "requests"),
        (Limits(concurrent_requests=0), "concurrency"),
        (Limits(monthly_tokens=0), "month"),
    ]:
        assert waits(await take(store, shared, limits, **{cost: 1})) == (cost, None)
        assert (await take(store, shared, limits)).refusal is None


async def test_the_largest_limit_is_counted_exactly(store: RateStore, shared: Shared) -> None:
    limits = Limits(tokens_per_minute=10**11, monthly_tokens=10**11)
    found = await take(store, shared, limits, tokens=10**11 - 1, month=10**11 - 1)
    assert left(found) == {"tokens": 1, "month": 1}
    assert waits(await take(store, shared, limits, tokens=10**11)) == ("tokens", 60_000)
    assert (await take(store, shared, limits, tokens=1, month=1)).refusal is None


async def test_what_is_given_back_can_be_taken_again(store: RateStore, shared: Shared) -> None:
    spent = shared.spending(ALL, tokens=6000, images=30, concurrency=1, month=6000)
    admitted = await store.take(spent)
    await store.give_back(spent, admitted)
    again = await take(store, shared, ALL)
    assert left(again) == {
        "requests": 60,
        "tokens": 6000,
        "images": 30,
        "concurrency": 2,
        "month": 100_000,
    }


async def test_what_has_leaked_is_not_given_back_twice(store: RateStore, shared: Shared) -> None:
    limits = Limits(tokens_per_minute=100)
    failed = shared.spending(limits, tokens=100)
    admitted = await store.take(failed)
    shared.clock.now += 30_000
    assert (await take(store, shared, limits, tokens=50)).refusal is None
    await store.give_back(failed, admitted)
    assert left(await take(store, shared, limits)) == {"tokens": 50}


async def test_a_new_month_starts_at_nothing_and_the_old_one_takes_its_refunds(
    store: RateStore, shared: Shared
) -> None:
    limits = Limits(monthly_tokens=10)
    shared.clock.now = ms(2026, 12, 31, 23, 59)
    late = shared.spending(limits, month=10)
    admitted = await store.take(late)
    [standing] = admitted.standings
    assert (standing.remaining, standing.reset_ms) == (0, 60_000)
    assert waits(await take(store, shared, limits, month=1)) == ("month", None)
    shared.clock.now = ms(2027, 1, 1)
    assert left(await take(store, shared, limits, month=4)) == {"month": 6}
    await store.give_back(late, admitted)
    assert left(await take(store, shared, limits)) == {"month": 6}
    shared.clock.now = ms(2027, 2, 1)
    assert left(await take(store, shared, limits)) == {"month": 10}


async def test_places_are_taken_and_given_back(store: RateStore, shared: Shared) -> None:
    first, second = (shared.spending(ALL, concurrency=1, place=name) for name in "ab")
    held = await store.take(first)
    await store.take(second)
    full = await store.take(shared.spending(ALL, concurrency=1, place="c"))
    assert waits(full) == ("concurrency", 1000)
    for _ in range(2):  # the second time there is nothing to give
        await store.give_back(first, held)
    assert left(await take(store, shared, ALL))["concurrency"] == 1


async def test_a_place_whose_gateway_died_comes_back_by_itself(
    store: RateStore, shared: Shared
) -> None:
    first, second, third = (shared.spending(ALL, concurrency=1, place=name) for name in "abc")
    dead = await store.take(first)
    shared.clock.now += 1
    await store.take(second)
    shared.clock.now += 9_998
    assert (await store.take(third)).refusal is not None
    shared.clock.now += 1
    assert (await store.take(third)).refusal is None
    await store.give_back(first, dead)  # it was only slow; nobody else's place is given
    assert left(await take(store, shared, ALL))["concurrency"] == 0


async def test_where_it_is_unknown_what_was_charged_only_the_place_is_given_back(
    store: RateStore, shared: Shared
) -> None:
    spent = shared.spending(ALL, tokens=6000, concurrency=1, month=10)
    await store.take(spent)
    await store.give_back(spent, Decision())
    found = left(await take(store, shared, ALL))
    assert (found["tokens"], found["concurrency"], found["month"]) == (0, 2, 99_990)


async def test_a_model_with_numbers_of_its_own_is_counted_apart(
    store: RateStore, shared: Shared
) -> None:
    limits = Limits(
        requests_per_minute=10,
        tokens_per_minute=100,
        models={"big": Limits(tokens_per_minute=20)},
    )

    async def ask(model: str, tokens: int) -> Decision:
        return await store.take(shared.spending(limits, model=model, requests=1, tokens=tokens))

    assert left(await ask("small", 100)) == {"requests": 9, "tokens": 0}
    assert left(await ask("big", 15)) == {"requests": 8, "tokens": 5}
    assert waits(await ask("big", 6)) == ("tokens:big", 3000)


async def test_a_plan_that_changes_keeps_what_was_used(store: RateStore, shared: Shared) -> None:
    await take(store, shared, Limits(tokens_per_minute=100), tokens=80)
    assert left(await take(store, shared, Limits(tokens_per_minute=200))) == {"tokens": 120}
    assert left(await take(store, shared, Limits(tokens_per_minute=50))) == {"tokens": 0}


async def test_a_clock_that_jumps_back_freezes_nobody(store: RateStore, shared: Shared) -> None:
    limits = Limits(requests_per_minute=60)
    await take(store, shared, limits, requests=60)
    shared.clock.now -= 3_600_000
    assert (await take(store, shared, limits, requests=1)).refusal is not None
    shared.clock.now += 3_600_000 + 60_000
    assert left(await take(store, shared, limits)) == {"requests": 60}


async def test_tenants_do_not_share(store: RateStore, shared: Shared) -> None:
    limits = Limits(requests_per_minute=1)
    ours = shared.spending(limits, requests=1)
    await store.take(ours)
    for name in (shared.tenant + "x", "}", "{}", "a b:c\n", "ü"):
        theirs = Spending(f"{name}-{shared.tenant}", ours.charges)
        assert (await store.take(theirs)).refusal is None


@pytest.mark.parametrize(
    ("limits", "costs"),
    [
        (Limits(requests_per_minute=100), {"requests": 1}),
        (Limits(tokens_per_minute=700), {"tokens": 7}),
        (Limits(monthly_tokens=300), {"month": 3}),
        (Limits(concurrent_requests=100), {"concurrency": 1}),
        (Limits(requests_per_minute=900, monthly_tokens=100), {"requests": 1, "month": 1}),
    ],
    ids=str,
)
async def test_of_500_at_once_exactly_100_are_admitted_by_two_that_share(
    shared: Shared, limits: Limits, costs: dict[str, int]
) -> None:
    two = [shared.open(), shared.open()]
    asked = (two[i % 2].take(shared.spending(limits, place=str(i), **costs)) for i in range(500))
    decisions = await asyncio.gather(*asked)
    assert sum(one.refusal is None for one in decisions) == 100
    for one in two:
        await one.close()


async def test_its_own_clock_is_this_time(shared: Shared) -> None:
    store = shared.open(own_clock=True)
    decisions = [await take(store, shared, ALL, month=1) for _ in range(2)]
    now = datetime.now(UTC).timestamp() * 1000
    assert abs(decisions[0].at_ms - now) < 600_000
    assert decisions[0].at_ms <= decisions[1].at_ms
    assert left(decisions[1])["month"] == 99_998
    await store.close()


def test_every_store_is_under_contract() -> None:
    aliases = {"rediss", "valkeys"}  # with TLS
    assert set(STORES.names()) == set(KINDS) | aliases


@pytest.mark.parametrize("url", ["postgres://x", "", "redis", "cluster://", "redis://h:port"])
def test_a_url_that_cannot_be_used_says_why(url: str) -> None:
    with pytest.raises(InvalidConfig, match=r"store of quotas|in none"):
        open_store(url, StoreOptions())


def ms(*date: int) -> int:
    return round(datetime(*date, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc,arg-type]
