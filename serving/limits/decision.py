"""What a store is asked and what it says: a spending, and the decision on all of its buckets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from serving.limits.limit import Bucket

__all__ = ["Charge", "Decision", "Outcome", "Refusal", "Source", "Spending", "Standing", "decide"]

Source: TypeAlias = Literal["store", "local", "nowhere"]


class Charge(NamedTuple):
    """`cost` units of a bucket; a cost of 0 looks and takes nothing."""

    bucket: Bucket
    cost: int


@dataclass(frozen=True, slots=True)
class Spending:
    """What one request takes: all of its charges or none.

    `place` is the request's own id in a bucket of concurrency; the place comes back by itself after
    `hold_ms`, for a gateway that was killed gives nothing back.
    """

    tenant: str
    charges: tuple[Charge, ...]
    place: str = ""
    hold_ms: int = 0


class Outcome(NamedTuple):
    """What a store found in one bucket, after the charge where all fitted.

    `wait_ms` is 0 where the charge fits, and None where waiting does not help.
    """

    remaining: int
    reset_ms: int
    wait_ms: int | None


class Standing(NamedTuple):
    """One bucket after a decision: what is left, and when it is full again (0: it is)."""

    bucket: Bucket
    remaining: int
    reset_ms: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """The bucket that a request waits for longest, and for how long.

    `wait_ms` is when such a request fits in every bucket; None where it never does, or not this
    month.
    """

    bucket: Bucket
    cost: int
    remaining: int
    wait_ms: int | None


@dataclass(frozen=True, slots=True)
class Decision:
    """`standings` in the order of the charges; `refusal` is None where all were charged.

    `at_ms` is the store's clock. `source` says who decided: the store, a gateway's own counting in
    its stead, or nobody.
    """

    standings: tuple[Standing, ...] = ()
    at_ms: int = 0
    refusal: Refusal | None = None
    source: Source = "store"


def decide(spending: Spending, at_ms: int, outcomes: Iterable[Outcome]) -> Decision:
    """The decision that a store's findings amount to, one outcome for each charge."""
    standings, refusal = [], None
    for charge, found in zip(spending.charges, outcomes, strict=True):
        bucket = charge.bucket
        standings.append(Standing(bucket, found.remaining, found.reset_ms))
        if found.wait_ms != 0 and (refusal is None or _longer(found.wait_ms, refusal.wait_ms)):
            refusal = Refusal(bucket, charge.cost, found.remaining, found.wait_ms)
    return Decision(tuple(standings), at_ms, refusal)


def _longer(wait: int | None, other: int | None) -> bool:
    return other is not None and (wait is None or wait > other)
