"""What a service uses: `admit` takes what a request costs before the engine, and gives back after.

A request is charged once, when its tokens are known: its place, the request, its tokens and images
in one decision. So a refusal charges nothing at all. `arrive` costs no round trip and refuses,
before anything is tokenized, what is known not to fit.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from types import TracebackType

from serving.limits.decision import Charge, Decision, Spending
from serving.limits.limit import Bucket, Limits
from serving.limits.observing import DecidedBy, Observer, Unobserved
from serving.limits.refusals import Refusals
from serving.limits.refusing import refused
from serving.limits.stores import RateStore

__all__ = ["Admission", "Limiter"]

_NOTHING = Decision(source="nowhere")
_CLAIMS = 65_536


class Limiter:
    """The quotas of every tenant, over one store.

    `shadow` decides and tells the observer, and refuses nobody. A place comes back by itself after
    `hold_s`, which must be longer than a request may take.
    """

    def __init__(
        self,
        store: RateStore,
        *,
        shadow: bool = False,
        hold_s: float = 120.0,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._shadow = store, shadow
        self._hold_ms = round(hold_s * 1000)
        self._observer: Observer = observer or Unobserved()
        self._refusals = Refusals(clock)
        self._own, self._number = uuid.uuid4().hex[:16], count()
        self._claimed: dict[tuple[str, str], None] = {}

    def arrive(self, tenant: str, limits: Limits, model: str) -> None:
        """Raise what `admit` would for the least of requests, where that is known without asking.

        Charges nothing and waits for nothing; that it returns promises nothing.
        """
        known = self._refusals.find(tenant, _charges(limits.buckets(model), 1, 0))
        if known is not None:
            self._settle(tenant, known, "cache")

    def admit(
        self, tenant: str, limits: Limits, model: str, tokens: int, images: int = 0
    ) -> Admission:
        """Take one request's cost for an `async with` block; enter it before the engine is asked.

        Entering raises a `LimitExceeded` with the decision as its fourth argument, or `Unavailable`
        where the store is down and the policy is `closed`.
        """
        charges = _charges(limits.buckets(model), tokens, images)
        return Admission(self, tenant, charges)

    async def standing(self, tenant: str, limits: Limits, model: str) -> Decision:
        """What the tenant has left for `model`, in every bucket. Charges nothing."""
        charges = tuple(Charge(bucket, 0) for bucket in limits.buckets(model))
        return await self._store.take(Spending(tenant, charges)) if charges else _NOTHING

    async def claim(self, tenant: str, name: str) -> bool:
        """Whether nobody has claimed that name of this tenant before, in any gateway.

        A store remembers it for a minute, this process for its latest 65 536.
        """
        known = (tenant, name)
        if known in self._claimed:
            return False
        self._claimed[known] = None
        if len(self._claimed) > _CLAIMS:
            del self._claimed[next(iter(self._claimed))]
        once = Charge(Bucket("requests", 1, f"claim:{name}"), 1)
        return (await self._store.take(Spending(tenant, (once,)))).refusal is None

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    async def take(self, spending: Spending) -> Decision:
        """Charge or raise; for `Admission`."""
        known = self._refusals.find(spending.tenant, spending.charges)
        if known is not None:
            return self._settle(spending.tenant, known, "cache")
        decision = await self._store.take(spending)
        if decision.refusal is not None:
            self._refusals.note(spending, decision)
        return self._settle(spending.tenant, decision, decision.source)

    async def give_back(self, spending: Spending, decision: Decision) -> None:
        """Undo charges; for `Admission`."""
        await self._store.give_back(spending, decision)
        self._refusals.forget(spending)

    def spending(self, tenant: str, charges: tuple[Charge, ...]) -> Spending:
        """A spending with a place of its own; for `Admission`."""
        return Spending(tenant, charges, f"{self._own}.{next(self._number)}", self._hold_ms)

    def _settle(self, tenant: str, decision: Decision, by: DecidedBy) -> Decision:
        refusal = decision.refusal
        if refusal is None:
            self._observer.decided(tenant, "admitted", None, by)
            return decision
        if self._shadow:
            self._observer.decided(tenant, "shadowed", refusal.bucket.name, by)
            return replace(
                decision, refusal=None, source="nowhere"
            )  # there is nothing to give back
        self._observer.decided(tenant, "refused", refusal.bucket.name, by)
        raise refused(decision)


class Admission:
    """One request's charges, while it is under way.

    A block that raises gives its tokens, images and place back; one that ends gives back its place.
    The request itself stays charged. A class, because a generator costs three times as much.
    """

    __slots__ = ("_limiter", "_spending", "decision")

    def __init__(self, limiter: Limiter, tenant: str, charges: tuple[Charge, ...]) -> None:
        self._limiter = limiter
        self._spending = limiter.spending(tenant, charges)
        self.decision = _NOTHING

    async def __aenter__(self) -> Admission:
        if self._spending.charges:
            self.decision = await self._limiter.take(self._spending)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.decision.source == "nowhere":
            return
        failed = kind is not None
        back = tuple(
            charge
            for charge in self._spending.charges
            if charge.bucket.name == "concurrency" or (failed and charge.bucket.name != "requests")
        )
        if back:
            await self._limiter.give_back(replace(self._spending, charges=back), self.decision)


def _charges(buckets: tuple[Bucket, ...], tokens: int, images: int) -> tuple[Charge, ...]:
    """What is charged where; no images touch no bucket of images."""
    costs = {"requests": 1, "tokens": tokens, "images": images, "concurrency": 1, "month": tokens}
    return tuple(
        Charge(bucket, costs[bucket.name])
        for bucket in buckets
        if images or bucket.name != "images"
    )
