"""What was refused a moment ago and cannot fit yet: a flood is answered without asking a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from serving.limits.buckets import WINDOW_MS
from serving.limits.decision import Charge, Decision, Refusal, Spending

__all__ = ["Refusals"]

# Another gateway may give back what would let a request in sooner than was foreseen.
_LONGEST_S = 1.0
_PLACE_S = 0.02
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class _Refused:
    """Costs of `least` and more do not fit in this bucket before `until`."""

    decision: Decision
    limit: int
    least: int
    fits: float | None
    until: float


class Refusals:
    """The last refusal of each tenant's bucket, while it holds. At most 10 000 are kept."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._refused: dict[tuple[str, str], _Refused] = {}

    def __len__(self) -> int:
        return len(self._refused)

    def find(self, tenant: str, charges: tuple[Charge, ...]) -> Decision | None:
        """The refusal that a spending would meet in a store, or None if it must be asked."""
        if not self._refused:
            return None
        for charge in charges:
            known = self._refused.get((tenant, charge.bucket.key))
            if known is None or known.limit != charge.bucket.limit:
                continue
            now = self._clock()
            if now >= known.until:
                del self._refused[tenant, charge.bucket.key]
            elif charge.cost >= known.least:
                return _again(known, charge, now)
        return None

    def note(self, spending: Spending, decision: Decision) -> None:
        """Remember a refusal."""
        refusal = decision.refusal
        if refusal is None:
            return
        now, bucket = self._clock(), refusal.bucket
        fits = None if refusal.wait_ms is None else now + refusal.wait_ms / 1000
        until = now + (_PLACE_S if bucket.name == "concurrency" else _LONGEST_S)
        if len(self._refused) >= _MOST:
            self._refused.clear()
        self._refused[spending.tenant, bucket.key] = _Refused(
            decision, bucket.limit, refusal.cost, fits, until if fits is None else min(until, fits)
        )

    def forget(self, spending: Spending) -> None:
        """Something was given back, so that what was refused may fit."""
        if self._refused:
            for charge in spending.charges:
                self._refused.pop((spending.tenant, charge.bucket.key), None)


def _again(known: _Refused, charge: Charge, now: float) -> Decision:
    """The same refusal, for a request that came later and may cost more."""
    refusal = known.decision.refusal
    assert refusal is not None
    wait = None if known.fits is None else max(1, round((known.fits - now) * 1000))
    if wait is not None and charge.bucket.name != "concurrency":
        more = (charge.cost - known.least) * WINDOW_MS
        wait = wait - (-more // charge.bucket.limit) if charge.cost <= charge.bucket.limit else None
    later = Refusal(charge.bucket, charge.cost, refusal.remaining, wait)
    return replace(known.decision, refusal=later)
