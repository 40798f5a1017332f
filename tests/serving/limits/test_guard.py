"""A real Redis stopped, paused and started again: nobody hangs, the policy holds, it recovers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from serving.errors import ConcurrencyExceeded, LimitExceeded, Unavailable
from serving.limits.decision import Decision
from serving.limits.guard import Guarded, OnStoreError
from serving.limits.limit import Limits
from serving.limits.limiter import Limiter
from serving.limits.observing import Unobserved
from serving.limits.options import QuotaOptions, open_limiter
from serving.limits.stores import StoreOptions, open_store
from serving.limits.stores.memory import MemoryStore
from tests.serving.limits.servers import Server, binary
from tests.serving.limits.shared import left

POLICIES: list[OnStoreError] = ["open", "closed", "local"]
LIMITS = Limits(monthly_tokens=10)
LONG_S = 20.0  # what a test waits for before it says that something hangs
SHORT_S = 0.1  # what a store that is paused is waited for


@dataclass
class Told(Unobserved):
    """What an observer hears of a store."""

    store_is: list[bool] = field(default_factory=list)
    not_given_back: list[str] = field(default_factory=list)

    def store(self, up: bool, reason: str) -> None:
        assert up or reason
        self.store_is.append(up)

    def lost(self, tenant: str) -> None:
        self.not_given_back.append(tenant)


@dataclass
class Rig:
    """A limiter over a guarded store; `seconds` is the guard's clock."""

    server: Server
    policy: OnStoreError
    timeout_s: float
    seconds: float = 0.0
    told: Told = field(default_factory=Told)

    def __post_init__(self) -> None:
        self.guard = Guarded(
            open_store(self.server.url, StoreOptions(self.timeout_s)),
            self.policy,
            timeout_s=self.timeout_s,
            observer=self.told,
            clock=lambda: self.seconds,
            local=MemoryStore(),
        )
        self.limiter = Limiter(self.guard, observer=self.told, clock=lambda: self.seconds)

    async def ask(self, limits: Limits = LIMITS) -> Decision:
        async with self.limiter.admit("t", limits, "m", 1) as admission:
            return admission.decision

    async def crowd(self) -> list[str]:
        """Who decided on 30 requests at once, or why each failed; nobody may hang."""
        async with asyncio.timeout(LONG_S):
            found = await asyncio.gather(*(self.ask() for _ in range(30)), return_exceptions=True)
        return sorted(one.source if isinstance(one, Decision) else _code(one) for one in found)

    async def back_at_the_store(self) -> None:
        """Ask, every time after the rest a failed store is given, until it decides again."""
        async with asyncio.timeout(LONG_S):
            while True:
                self.seconds += 0.5
                try:
                    if (await self.ask(Limits(requests_per_minute=10**6))).source == "store":
                        return
                except Unavailable:
                    await asyncio.sleep(0)


def _code(error: BaseException) -> str:
    assert isinstance(error, LimitExceeded | Unavailable), error
    return error.code


EXPECTED = {
    "open": ["nowhere"] * 30,
    "closed": ["SERVICE_UNAVAILABLE"] * 30,
    "local": ["RATE_MONTHLY_TOKEN_LIMIT_EXCEEDED"] * 20 + ["local"] * 10,
}


@pytest.fixture(params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    path = binary(request.param)
    if path is None:
        pytest.skip(f"no {request.param}-server here: install the extra `test`")
    with Server(path) as running:
        yield running


@asynccontextmanager
async def over(
    server: Server, policy: OnStoreError, timeout_s: float = LONG_S
) -> AsyncIterator[Rig]:
    rig = Rig(server, policy, timeout_s)
    yield rig
    async with asyncio.timeout(LONG_S):
        await rig.limiter.close()


@pytest.mark.parametrize("policy", POLICIES)
async def test_with_the_store_stopped_the_policy_holds_and_then_it_recovers(
    server: Server, policy: OnStoreError
) -> None:
    async with over(server, policy) as rig:
        assert (await rig.ask(Limits(monthly_tokens=1000))).source == "store"
        server.kill()
        assert await rig.crowd() == EXPECTED[policy]
        assert not rig.told.store_is[-1]
        server.start()
        await rig.back_at_the_store()
        assert rig.told.store_is[-1]
        rig.seconds += 1  # what is known to be refused is asked for again
        assert await rig.crowd() == ["RATE_MONTHLY_TOKEN_LIMIT_EXCEEDED"] * 20 + ["store"] * 10


@pytest.mark.parametrize("policy", POLICIES)
async def test_with_the_store_paused_the_policy_holds_and_then_it_recovers(
    server: Server, policy: OnStoreError
) -> None:
    async with over(server, policy, SHORT_S) as rig:
        await rig.back_at_the_store()
        server.pause()
        try:
            assert await rig.crowd() == EXPECTED[policy]
        finally:
            server.resume()
        await rig.back_at_the_store()


async def test_a_store_that_failed_is_left_alone_for_a_while_and_then_tried_by_one(
    server: Server,
) -> None:
    async with over(server, "open") as rig:
        server.kill()
        await rig.ask()
        assert rig.told.store_is == [False]
        await rig.crowd()
        assert rig.told.store_is == [False]
        rig.seconds += 0.5
        await rig.crowd()
        assert rig.told.store_is == [False, False]


async def test_under_load_a_restart_fails_no_request_and_nobody_hangs(server: Server) -> None:
    async with over(server, "local") as rig:
        many, sources, done = Limits(requests_per_minute=10**6), set[str](), False

        async def load() -> None:
            while not done:
                sources.add((await rig.ask(many)).source)
                rig.seconds += 0.01
                await asyncio.sleep(0)

        async with asyncio.timeout(LONG_S), asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(load())
            for _ in range(2):
                sources.clear()
                await _until(lambda: "store" in sources)
                server.kill()
                sources.clear()
                await _until(lambda: "local" in sources)
                await asyncio.to_thread(server.start)
            sources.clear()
            await _until(lambda: "store" in sources)
            done = True


async def test_places_that_a_paused_store_gave_to_nobody_come_back(server: Server) -> None:
    limits = Limits(concurrent_requests=1)
    async with over(server, "closed", SHORT_S) as rig:
        await rig.back_at_the_store()
        server.pause()
        try:
            with pytest.raises(Unavailable):
                await rig.ask(limits)  # redis takes the place when it goes on
        finally:
            server.resume()
        async with asyncio.timeout(LONG_S):
            while True:
                rig.seconds += 0.5
                try:
                    await rig.ask(limits)
                    break
                except (ConcurrencyExceeded, Unavailable):
                    await asyncio.sleep(0)


async def test_what_a_cancelled_caller_was_charged_is_given_back(server: Server) -> None:
    limits = Limits(tokens_per_minute=10, concurrent_requests=1, monthly_tokens=10)
    async with over(server, "closed") as rig:
        assert (await rig.limiter.standing("t", limits, "m")).refusal is None
        server.pause()
        try:
            asking = asyncio.create_task(rig.ask(limits))
            for _ in range(20):  # turns of the loop, in which the script call leaves
                await asyncio.sleep(0)
            assert rig.guard.under_way
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        finally:
            server.resume()
        async with asyncio.timeout(LONG_S):
            while rig.guard.under_way:
                await asyncio.sleep(0)
        assert left(await rig.limiter.standing("t", limits, "m")) == {
            "tokens": 10,
            "concurrency": 1,
            "month": 10,
        }


async def test_a_caller_that_is_cancelled_while_it_gives_back_has_given_back(
    server: Server,
) -> None:
    limits = Limits(concurrent_requests=1, monthly_tokens=10)
    async with over(server, "closed") as rig:
        failing = rig.limiter.admit("t", limits, "m", 10)
        await failing.__aenter__()
        server.pause()
        try:
            leaving = asyncio.create_task(failing.__aexit__(ZeroDivisionError, None, None))
            await asyncio.sleep(0)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
        finally:
            server.resume()
        async with asyncio.timeout(LONG_S):
            while rig.guard.under_way:
                await asyncio.sleep(0)
        found = await rig.limiter.standing("t", limits, "m")
        assert left(found) == {"concurrency": 1, "month": 10}


async def test_what_cannot_be_given_back_is_told(server: Server) -> None:
    async with over(server, "open") as rig:
        for _ in range(2):  # the second time the store is not even asked
            failing = rig.limiter.admit("t", LIMITS, "m", 1)
            await failing.__aenter__()
            failing.decision = Decision()  # as if the store had still been there
            server.kill()
            await failing.__aexit__(ZeroDivisionError, None, None)
        assert rig.told.not_given_back == ["t", "t"]


async def test_a_store_that_never_answers_is_not_waited_for() -> None:
    async def call(verb: str, *arguments: object) -> object:
        await asyncio.Event().wait()
        return None

    store = open_store("cluster://", StoreOptions(call=call))
    limiter = Limiter(Guarded(store, "open", timeout_s=0.01))
    async with asyncio.timeout(LONG_S), limiter.admit("t", LIMITS, "m", 1) as admission:
        assert admission.decision == Decision(source="nowhere")


async def test_what_was_decided_here_is_given_back_here(server: Server) -> None:
    server.kill()
    limits = Limits(concurrent_requests=1)
    async with over(server, "local") as rig:
        for _ in range(3):
            assert (await rig.ask(limits)).source == "local"


async def test_a_limiter_is_opened_from_options(server: Server) -> None:
    for store in ("memory://", server.url):
        limiter = open_limiter(QuotaOptions(store, on_store_error="closed", timeout_s=LONG_S))
        async with limiter.admit("t", LIMITS, "m", 10) as admission:
            assert left(admission.decision) == {"month": 0}
        with pytest.raises(LimitExceeded):
            await limiter.admit("t", LIMITS, "m", 1).__aenter__()
        await limiter.close()


async def _until(happened: Callable[[], bool]) -> None:
    while not happened():
        await asyncio.sleep(0)


async def test_how_long_a_store_took_is_told_where_it_answered(server: Server) -> None:
    took: list[float] = []
    limiter = open_limiter(QuotaOptions(server.url, "open"), took=took.append)
    async with limiter.admit("t", Limits(requests_per_minute=5), "m", 1):
        pass
    assert len(took) == 1 and 0 < took[0] < LONG_S
    server.kill()
    async with limiter.admit("t", Limits(requests_per_minute=5), "m", 1):
        pass
    assert len(took) == 1
    await limiter.close()
