"""A request's life in the limits: charged once, given back if it fails, refused for nothing."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from serving.errors import (
    ConcurrencyExceeded,
    ImageLimitExceeded,
    LimitExceeded,
    MonthlyLimitExceeded,
    RequestLimitExceeded,
    TokenRateExceeded,
)
from serving.limits.decision import Decision, Spending
from serving.limits.limit import Limits
from serving.limits.limiter import Limiter
from serving.limits.refusing import decision_of
from serving.limits.stores import RateStore
from serving.limits.stores.memory import MemoryStore
from tests.serving.limits.shared import KINDS, Clock, left, sharing

ALL = Limits(
    requests_per_minute=60,
    tokens_per_minute=600,
    images_per_minute=30,
    concurrent_requests=2,
    monthly_tokens=10_000,
)


class Counted:
    """A store that counts how often it is asked."""

    def __init__(self, store: RateStore) -> None:
        self._store, self.asked = store, 0

    async def take(self, spending: Spending) -> Decision:
        self.asked += 1
        return await self._store.take(spending)

    async def give_back(self, spending: Spending, decision: Decision) -> None:
        await self._store.give_back(spending, decision)

    async def close(self) -> None:
        await self._store.close()


@dataclass
class Seen:
    """An observer that remembers."""

    decisions: list[tuple[str, str, str | None, str]] = field(default_factory=list)

    def decided(self, tenant: str, verdict: str, bucket: str | None, by: str) -> None:
        self.decisions.append((tenant, verdict, bucket, by))

    def store(self, up: bool, reason: str) -> None: ...

    def lost(self, tenant: str) -> None: ...


@dataclass
class Rig:
    """A limiter over memory, with clocks that are set together."""

    clock: Clock = field(default_factory=Clock)
    seen: Seen = field(default_factory=Seen)
    shadow: bool = False

    def __post_init__(self) -> None:
        self.store = Counted(MemoryStore(self.clock))
        self.limiter = self.another()

    def another(self) -> Limiter:
        return Limiter(
            self.store,
            shadow=self.shadow,
            hold_s=10,
            observer=self.seen,
            clock=lambda: self.clock.now / 1000,
        )

    async def pass_through(self, tokens: int, images: int = 0, limits: Limits = ALL) -> Decision:
        async with self.limiter.admit("t", limits, "m", tokens, images) as admission:
            return admission.decision

    async def fail(self, tokens: int, images: int = 0) -> None:
        with pytest.raises(ZeroDivisionError):
            async with self.limiter.admit("t", ALL, "m", tokens, images):
                raise ZeroDivisionError

    async def left(self) -> dict[str, int]:
        return left(await self.limiter.standing("t", ALL, "m"))


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_an_answered_request_keeps_its_charge_and_gives_its_place_back(rig: Rig) -> None:
    async with rig.limiter.admit("t", ALL, "m", 100, 3) as admission:
        assert left(admission.decision)["concurrency"] == 1
    expected = {"requests": 59, "tokens": 500, "images": 27, "concurrency": 2, "month": 9900}
    assert await rig.left() == expected


async def test_a_failed_request_gives_everything_back_but_itself(rig: Rig) -> None:
    await rig.fail(100, 3)
    expected = {"requests": 59, "tokens": 600, "images": 30, "concurrency": 2, "month": 10_000}
    assert await rig.left() == expected


async def test_a_cancelled_request_has_failed(rig: Rig) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with rig.limiter.admit("t", ALL, "m", 100):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await rig.left())["tokens"] == 600
    assert (await rig.left())["concurrency"] == 2


@pytest.mark.parametrize(
    ("limits", "tokens", "images", "kind", "words", "retry_s"),
    [
        (
            Limits(requests_per_minute=2),
            1,
            0,
            RequestLimitExceeded,
            "the limit is 2 requests per minute: this request needs 1 and none is left; "
            "it fits in 30 s",
            30.0,
        ),
        (
            Limits(tokens_per_minute=100),
            40,
            0,
            TokenRateExceeded,
            "the limit is 100 tokens per minute: this request needs 40 and 20 are left; "
            "it fits in 12 s",
            12.0,
        ),
        (
            Limits(tokens_per_minute=100),
            101,
            0,
            TokenRateExceeded,
            "the limit is 100 tokens per minute: this request needs 101 and 100 are left; "
            "it never fits, so send less at once",
            None,
        ),
        (
            Limits(models={"m": Limits(images_per_minute=10)}),
            1,
            4,
            ImageLimitExceeded,
            "the limit is 10 images per minute for m: this request needs 4 and 2 are left; "
            "it fits in 12 s",
            12.0,
        ),
        (
            Limits(monthly_tokens=100),
            40,
            0,
            MonthlyLimitExceeded,
            "the limit is 100 tokens per calendar month: this request needs 40 and 20 are left; "
            "the next month begins at 2026-06-01 00:00 UTC",
            None,
        ),
        (
            Limits(monthly_tokens=0),
            1,
            0,
            MonthlyLimitExceeded,
            "the limit is 0 tokens per calendar month: this request needs 1 and none is left; "
            "none are allowed",
            None,
        ),
    ],
)
async def test_a_refusal_names_the_limit_what_was_asked_and_when_it_fits(
    rig: Rig,
    limits: Limits,
    tokens: int,
    images: int,
    kind: type[LimitExceeded],
    words: str,
    retry_s: float | None,
) -> None:
    async def three() -> None:
        for _ in range(3):
            await rig.pass_through(tokens, images, limits)

    with pytest.raises(LimitExceeded) as caught:
        await three()
    assert (type(caught.value), caught.value.message) == (kind, words)
    assert caught.value.retry_after_s == retry_s
    decision = decision_of(pickle.loads(pickle.dumps(caught.value)))
    assert decision == decision_of(caught.value)
    assert decision is not None and decision.refusal is not None


async def test_too_many_at_the_same_time_are_refused(rig: Rig) -> None:
    async with rig.limiter.admit("t", ALL, "m", 1), rig.limiter.admit("t", ALL, "m", 1):
        with pytest.raises(ConcurrencyExceeded, match="2 requests at the same time") as caught:
            await rig.pass_through(1)
        assert caught.value.retry_after_s == 1.0
    await rig.pass_through(1)


async def test_a_refusal_charges_nothing(rig: Rig) -> None:
    before = await rig.left()
    with pytest.raises(TokenRateExceeded):
        await rig.pass_through(601, 3)
    assert await rig.left() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_a_name_is_claimed_once_by_all_gateways_together(kind: str) -> None:
    with sharing(kind) as shared:
        one, other = (Limiter(shared.open(own_clock=True)) for _ in range(2))
        assert await one.claim(shared.tenant, "order")
        assert not await one.claim(shared.tenant, "order")
        assert not await other.claim(shared.tenant, "order")
        assert await other.claim(shared.tenant, "another order")
        assert await one.claim(f"{shared.tenant}-2", "order")
        for limiter in (one, other):
            await limiter.close()


async def test_without_limits_the_store_is_not_asked(rig: Rig) -> None:
    await rig.pass_through(10**9, 5, Limits())
    await rig.limiter.standing("t", Limits(), "m")
    rig.limiter.arrive("t", Limits(), "m")
    assert rig.store.asked == 0


async def test_texts_do_not_look_at_the_images(rig: Rig) -> None:
    assert "images" not in left(await rig.pass_through(1))


async def test_a_flood_is_answered_without_asking_the_store(rig: Rig) -> None:
    await rig.pass_through(600)
    asked = rig.store.asked
    for _ in range(1000):
        with pytest.raises(TokenRateExceeded) as caught:
            await rig.pass_through(5)
    assert rig.store.asked == asked + 1
    assert caught.value.retry_after_s == 0.5
    rig.clock.now += 499
    with pytest.raises(TokenRateExceeded, match=r"fits in 0\.001 s"):
        await rig.pass_through(5)
    rig.clock.now += 1
    await rig.pass_through(5)


async def test_a_larger_request_waits_longer_and_a_smaller_one_is_asked_about(rig: Rig) -> None:
    await rig.pass_through(595)
    for tokens, wait_s in [(10, 0.5), (105, 10.0), (600, 59.5), (601, None)]:
        with pytest.raises(TokenRateExceeded) as caught:
            await rig.pass_through(tokens)
        assert caught.value.retry_after_s == wait_s
    assert rig.store.asked == 2
    await rig.pass_through(5)


async def test_what_was_refused_fits_as_soon_as_something_is_given_back(rig: Rig) -> None:
    failing = rig.limiter.admit("t", ALL, "m", 600)
    await failing.__aenter__()
    with pytest.raises(TokenRateExceeded):
        await rig.pass_through(1)
    await failing.__aexit__(ZeroDivisionError, None, None)
    await rig.pass_through(600)


async def test_places_are_asked_for_again_soon(rig: Rig) -> None:
    """Another gateway may have given one back."""
    other = rig.another()
    async with other.admit("t", ALL, "m", 1):
        async with other.admit("t", ALL, "m", 1):
            with pytest.raises(ConcurrencyExceeded):
                await rig.pass_through(1)
        rig.clock.now += 20
        await rig.pass_through(1)


async def test_what_cannot_fit_is_refused_on_arrival(rig: Rig) -> None:
    limits = Limits(requests_per_minute=1)
    rig.limiter.arrive("t", limits, "m")
    await rig.pass_through(1, limits=limits)
    rig.limiter.arrive("t", limits, "m")  # not known yet
    with pytest.raises(RequestLimitExceeded):
        await rig.pass_through(1, limits=limits)
    asked = rig.store.asked
    with pytest.raises(RequestLimitExceeded):
        rig.limiter.arrive("t", limits, "m")
    rig.limiter.arrive("someone else", limits, "m")
    rig.limiter.arrive("t", Limits(requests_per_minute=2), "m")  # a new plan
    assert rig.store.asked == asked


async def test_a_place_of_a_gateway_that_was_killed_comes_back(rig: Rig) -> None:
    killed = [rig.limiter.admit("t", ALL, "m", 1) for _ in range(2)]
    for one in killed:
        await one.__aenter__()
    with pytest.raises(ConcurrencyExceeded):
        await rig.pass_through(1)
    rig.clock.now += 10_000
    await rig.pass_through(1)


async def test_in_shadow_everybody_is_let_in_and_what_would_be_refused_is_told() -> None:
    rig = Rig(shadow=True)
    limits = Limits(tokens_per_minute=600, concurrent_requests=1)
    for _ in range(3):
        await rig.pass_through(300, limits=limits)
    async with rig.limiter.admit("t", limits, "m", 0) as first:
        async with rig.limiter.admit("t", limits, "m", 0) as second:
            assert (first.decision.refusal, second.decision.refusal) == (None, None)
        # what was let in for nothing gives nothing back
        assert left(await rig.limiter.standing("t", limits, "m")) == {"tokens": 0, "concurrency": 0}
    assert [verdict for _, verdict, _, _ in rig.seen.decisions] == [
        "admitted",
        "admitted",
        "shadowed",
        "admitted",
        "shadowed",
    ]


async def test_the_observer_is_told_every_decision(rig: Rig) -> None:
    await rig.pass_through(600)
    for _ in range(2):
        with pytest.raises(TokenRateExceeded):
            await rig.pass_through(1)
    assert rig.seen.decisions == [
        ("t", "admitted", None, "store"),
        ("t", "refused", "tokens", "store"),
        ("t", "refused", "tokens", "cache"),
    ]


Plan = list[
    tuple[int, int, bool]
]  # tokens, turns of the event loop that it takes, whether it fails
PLANS = some.lists(
    some.tuples(some.integers(1, 40), some.integers(0, 5), some.booleans()), max_size=25
)


@settings(deadline=None)
@given(plan=PLANS)
def test_no_interleaving_over_admits_or_loses_a_refund(plan: Plan) -> None:
    with sharing("cluster") as shared:
        asyncio.run(interleaved(shared.open, plan, shared.tenant))


@pytest.fixture(scope="module", params=["redis", "valkey"])
def real(request: pytest.FixtureRequest) -> object:
    with sharing(request.param) as shared:
        yield shared


@pytest.mark.parametrize("seed", range(3))
def test_no_interleaving_over_a_real_server_does_either(real: object, seed: int) -> None:
    plan = [((7 * i + seed) % 40 + 1, (i * i + seed) % 6, (i + seed) % 3 == 0) for i in range(60)]
    asyncio.run(interleaved(real.open, plan, f"{real.tenant}-{seed}"))  # type: ignore[attr-defined]


async def interleaved(open_one: Callable[[], RateStore], plan: Plan, tenant: str) -> None:
    """Two gateways, all requests at once; no time passes, so every token is accounted for."""
    limits = Limits(tokens_per_minute=200, concurrent_requests=5, monthly_tokens=300)
    gateways = [Limiter(open_one()), Limiter(open_one())]
    under_way: list[int] = []
    answered: list[int] = []

    async def request(number: int, tokens: int, turns: int, fails: bool) -> None:
        async with gateways[number % 2].admit(tenant, limits, "m", tokens):
            under_way.append(tokens)
            assert len(under_way) <= 5
            assert sum(under_way) + sum(answered) <= 200
            for _ in range(turns):
                await asyncio.sleep(0)
            under_way.remove(tokens)
            if fails:
                raise ZeroDivisionError
            answered.append(tokens)

    asked: list[Awaitable[None]] = [request(i, *one) for i, one in enumerate(plan)]
    for error in await asyncio.gather(*asked, return_exceptions=True):
        assert error is None or isinstance(error, LimitExceeded | ZeroDivisionError)
    found = left(await gateways[0].standing(tenant, limits, "m"))
    spent = sum(answered)
    assert found == {"tokens": 200 - spent, "concurrency": 5, "month": 300 - spent}
    for gateway in gateways:
        await gateway.close()
