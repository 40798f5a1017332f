"""A refusal as an error of this house: its code, a sentence, and when to come back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from serving.errors import (
    ConcurrencyExceeded,
    ImageLimitExceeded,
    LimitExceeded,
    MonthlyLimitExceeded,
    RequestLimitExceeded,
    TokenRateExceeded,
)
from serving.limits.decision import Decision, Refusal
from serving.limits.limit import BucketName

__all__ = ["decision_of", "refused"]

_ERRORS: dict[BucketName, type[LimitExceeded]] = {
    "requests": RequestLimitExceeded,
    "tokens": TokenRateExceeded,
    "images": ImageLimitExceeded,
    "concurrency": ConcurrencyExceeded,
    "month": MonthlyLimitExceeded,
}
_WORDS: dict[BucketName, str] = {
    "requests": "{limit} requests per minute",
    "tokens": "{limit} tokens per minute",
    "images": "{limit} images per minute",
    "concurrency": "{limit} requests at the same time",
    "month": "{limit} tokens per calendar month",
}


def refused(decision: Decision) -> LimitExceeded:
    """The error that `decision.refusal` amounts to; `decision_of` gives the decision back."""
    refusal = decision.refusal
    assert refusal is not None
    wait_s = None if refusal.wait_ms is None else refusal.wait_ms / 1000
    message = f"{_limit(refusal)}: {_asked(refusal)}; {_when(decision, refusal)}"
    return _ERRORS[refusal.bucket.name](message, None, wait_s, decision)


def decision_of(error: LimitExceeded) -> Decision | None:
    """The decision behind an error that `refused` made, also after pickling; else None."""
    decision = error.args[3] if len(error.args) > 3 else None
    return decision if isinstance(decision, Decision) else None


def _limit(refusal: Refusal) -> str:
    _, _, model = refusal.bucket.key.partition(":")
    words = _WORDS[refusal.bucket.name].format(limit=refusal.bucket.limit)
    return f"the limit is {words}" + (f" for {model}" if model else "")


def _asked(refusal: Refusal) -> str:
    few = "none is" if refusal.remaining == 0 else "1 is" if refusal.remaining == 1 else None
    left = f"{few or f'{refusal.remaining} are'} left"
    return f"this request needs {refusal.cost} and {left}"


def _when(decision: Decision, refusal: Refusal) -> str:
    bucket = refusal.bucket
    if refusal.cost > bucket.limit:
        return "it never fits, so send less at once" if bucket.limit else "none are allowed"
    if refusal.wait_ms is not None:
        return f"it fits in {refusal.wait_ms / 1000:.3g} s"
    [reset] = [one.reset_ms for one in decision.standings if one.bucket == bucket]
    again = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=decision.at_ms + reset)
    return f"the next month begins at {again:%Y-%m-%d %H:%M} UTC"
