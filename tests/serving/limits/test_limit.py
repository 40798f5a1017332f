"""What a plan allows, a model's own numbers, a tenant's over a plan's, and what a file may say."""

from __future__ import annotations

import pytest

from serving.errors import InvalidConfig
from serving.limits.limit import LARGEST, Bucket, Limits, read_limits


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


def test_a_tenants_numbers_go_over_the_plans() -> None:
    plan = Limits(
        requests_per_minute=10,
        tokens_per_minute=100,
        models={"a": Limits(tokens_per_minute=7, images_per_minute=8)},
    )
    tenant = Limits(
        tokens_per_minute=500,
        models={"a": Limits(tokens_per_minute=9), "b": Limits(requests_per_minute=0)},
    )
    assert tenant.over(plan) == Limits(
        requests_per_minute=10,
        tokens_per_minute=500,
        models={
            "a": Limits(tokens_per_minute=9, images_per_minute=8),
            "b": Limits(requests_per_minute=0),
        },
    )
    assert Limits().over(plan) == plan


def test_limits_are_read_from_a_file() -> None:
    said = {
        "requests_per_minute": 5,
        "monthly_tokens": None,
        "models": {"m": {"images_per_minute": 0}},
    }
    assert read_limits(said, "plans.free") == Limits(
        requests_per_minute=5, models={"m": Limits(images_per_minute=0)}
    )
    assert read_limits({}, "plans.free") == Limits()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            {"request_per_minute": 5},
            r"plans\.free\.request_per_minute is not a limit.*monthly_tokens",
        ),
        ({"requests_per_minute": "5"}, r"plans\.free\.requests_per_minute is a whole number"),
        ({"requests_per_minute": True}, r"plans\.free\.requests_per_minute is a whole number"),
        ({"requests_per_minute": -1}, r"plans\.free\.requests_per_minute is -1"),
        ({"monthly_tokens": LARGEST + 1}, r"plans\.free\.monthly_tokens is 100000000001"),
        ({"models": ["m"]}, r"plans\.free\.models is a mapping"),
        ({"models": {"m": 5}}, r"plans\.free\.models\.m is a mapping"),
        ({"models": {"m": {"models": {}}}}, r"plans\.free\.models\.m\.models is not a limit"),
        ({"models": {"m": {"tokens_per_minute": -2}}}, r"free\.models\.m\.tokens_per_minute is -2"),
        (None, r"plans\.free is a mapping"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_its_key(said: object, why: str) -> None:
    with pytest.raises(InvalidConfig, match=why):
        read_limits(said, "plans.free")


def test_private_names_are_no_limits() -> None:
    with pytest.raises(InvalidConfig, match="_shared is not a limit"):
        read_limits({"_shared": 5}, "plans.free")
