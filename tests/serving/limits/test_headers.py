"""Header fields as OpenAI writes them and as the IETF's draft does; when to come back."""

from __future__ import annotations

import pytest

from serving.limits.decision import Decision, Refusal, Standing
from serving.limits.headers import duration, rate_headers
from serving.limits.limit import Limits

LIMITS = Limits(
    requests_per_minute=60,
    tokens_per_minute=150_000,
    images_per_minute=30,
    concurrent_requests=4,
    monthly_tokens=1_000_000,
)
REQUESTS, TOKENS, IMAGES, CONCURRENCY, MONTH = LIMITS.buckets("m")


@pytest.mark.parametrize(
    ("milliseconds", "written"),
    [
        (0, b"0s"),
        (1, b"1ms"),
        (120, b"120ms"),
        (1000, b"1s"),
        (1005, b"1.005s"),
        (8640, b"8.64s"),
        (10_000, b"10s"),
        (60_000, b"1m0s"),
        (90_500, b"1m30.5s"),
        (360_000, b"6m0s"),
        (2_592_000_000, b"720h0m0s"),
    ],
)
def test_a_duration_is_written_as_go_does(milliseconds: int, written: bytes) -> None:
    assert duration(milliseconds) == written


def test_every_bucket_is_told_in_both_ways() -> None:
    standings = (
        Standing(REQUESTS, 59, 1000),
        Standing(TOKENS, 149_984, 7),
        Standing(IMAGES, 30, 0),
        Standing(CONCURRENCY, 3, 0),
        Standing(MONTH, 999_984, 864_000_000),
    )
    assert dict(rate_headers(Decision(standings, 5))) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"1s",
        b"x-ratelimit-limit-tokens": b"150000",
        b"x-ratelimit-remaining-tokens": b"149984",
        b"x-ratelimit-reset-tokens": b"7ms",
        b"ratelimit-policy": b'"requests";q=60;w=60, "tokens";q=150000;qu="tokens";w=60, '
        b'"images";q=30;qu="images";w=60, "concurrency";q=4;qu="concurrent-requests", '
        b'"month";q=1000000;qu="tokens"',
        b"ratelimit": b'"requests";r=59;t=1, "tokens";r=149984;t=1, "images";r=30;t=0, '
        b'"concurrency";r=3, "month";r=999984;t=864000',
    }


def test_a_refusal_says_when_to_come_back_in_seconds_and_exactly() -> None:
    refused = Decision((Standing(TOKENS, 0, 60_000),), 5, Refusal(TOKENS, 9, 0, 1_201))
    headers = dict(rate_headers(refused))
    assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (b"2", b"1201")
    assert b"x-should-retry" not in headers


def test_where_no_wait_helps_a_client_is_told_not_to_retry() -> None:
    refused = Decision((Standing(MONTH, 0, 864_000_000),), 5, Refusal(MONTH, 9, 0, None))
    headers = dict(rate_headers(refused))
    assert headers[b"x-should-retry"] == b"false"
    assert not {b"retry-after", b"retry-after-ms"} & set(headers)


def test_where_nothing_is_limited_nothing_is_said() -> None:
    assert rate_headers(Decision()) == []
