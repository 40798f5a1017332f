"""What a plan allows, and a model's own numbers."""

from __future__ import annotations

import pytest

from serving.errors import InvalidConfig
from serving.limits.limit import LARGEST, Bucket, Limits


def test_what_is_not_limited_has_no_bucket() -> None:
    assert Limits().buckets("m") == ()
    assert Limits(monthly_tokens=0).buckets("m") == (Bucket("month", 0, "month"),)


def test_a_models_own_numbers_replace_the_plans_and_are_counted_apart() -> None:
    own = Limits(tokens_per_minute=5, images_per_minute=1)
    limits = Limits(requests_per_minute=10, tokens_per_minute=100, models={"m": own})
    assert limits.buckets("m") == (
        Bucket("requests", 10, "requests"),
        Bucket("tokens", 5, "tokens:m"),
        Bucket("images", 1, "images:m"),
    )
    assert limits.buckets("other") == (
        Bucket("requests", 10, "requests"),
        Bucket("tokens", 100, "tokens"),
    )


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"requests_per_minute": -1}, "requests_per_minute is -1"),
        ({"monthly_tokens": LARGEST + 1}, "monthly_tokens is 100000000001"),
    ],
)
def test_a_number_that_cannot_be_is_refused_by_its_name(said: dict[str, int], why: str) -> None:
    with pytest.raises(InvalidConfig, match=why):
        Limits(**said)
