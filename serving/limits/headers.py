"""Where a tenant stands, as header fields: OpenAI's names, the IETF draft's, and when to retry."""

from __future__ import annotations

from functools import lru_cache

from serving.limits.decision import Decision
from serving.limits.limit import Bucket

__all__ = ["duration", "rate_headers"]

Header = tuple[bytes, bytes]


def rate_headers(decision: Decision) -> list[Header]:
    """Header fields, names in lower case; none for buckets that the tenant's plan does not limit.

    `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` are OpenAI's, with Go durations until
    the bucket is full. `ratelimit-policy` and `ratelimit` are draft-ietf-httpapi-ratelimit-headers.
    A refusal adds `retry-after` and `retry-after-ms`, both until the same request fits, or
    `x-should-retry: false`, which OpenAI's clients obey, where no wait helps.
    """
    if not decision.standings:
        return []
    headers: list[Header] = []
    policy, state = [], []
    for bucket, remaining, reset_ms in decision.standings:
        if bucket.name in ("requests", "tokens"):
            limit_name, remaining_name, reset_name = _NAMES[bucket.name]
            headers.append((limit_name, b"%d" % bucket.limit))
            headers.append((remaining_name, b"%d" % remaining))
            headers.append((reset_name, duration(reset_ms)))
        policy.append(_policy(bucket))
        state.append(_state(bucket, remaining, reset_ms))
    headers.append((b"ratelimit-policy", b", ".join(policy)))
    headers.append((b"ratelimit", b", ".join(state)))
    if decision.refusal is not None:
        headers += _retry(decision.refusal.wait_ms)
    return headers


def duration(milliseconds: int) -> bytes:
    """As Go writes a duration: `120ms`, `1s`, `17.442s`, `6m0s`, `720h0m0s`."""
    if milliseconds < 1000:
        return b"%dms" % milliseconds if milliseconds > 0 else b"0s"
    minutes, rest = divmod(milliseconds, 60_000)
    seconds = b"%d" % (rest // 1000)
    if rest % 1000:
        seconds += b".%03d" % (rest % 1000)
        seconds = seconds.rstrip(b"0")
    if not minutes:
        return seconds + b"s"
    hours, minutes = divmod(minutes, 60)
    return (b"%dh" % hours if hours else b"") + b"%dm%ss" % (minutes, seconds)


def _retry(wait_ms: int | None) -> list[Header]:
    if wait_ms is None:
        return [(b"x-should-retry", b"false")]
    return [(b"retry-after", b"%d" % -(-wait_ms // 1000)), (b"retry-after-ms", b"%d" % wait_ms)]


def _state(bucket: Bucket, remaining: int, reset_ms: int) -> bytes:
    if bucket.name == "concurrency":  # when a place is free is not known
        return b'"concurrency";r=%d' % remaining
    return b'"%s";r=%d;t=%d' % (bucket.name.encode(), remaining, -(-reset_ms // 1000))


@lru_cache(maxsize=1024)
def _policy(bucket: Bucket) -> bytes:
    match bucket.name:
        case "concurrency":
            return b'"concurrency";q=%d;qu="concurrent-requests"' % bucket.limit
        case "month":  # its window has no one length
            return b'"month";q=%d;qu="tokens"' % bucket.limit
        case "requests":
            return b'"requests";q=%d;w=60' % bucket.limit
        case _:
            name = bucket.name.encode()
            return b'"%s";q=%d;qu="%s";w=60' % (name, bucket.limit, name)


_NAMES = {
    name: tuple(
        b"x-ratelimit-%s-%s" % (part, name.encode()) for part in (b"limit", b"remaining", b"reset")
    )
    for name in ("requests", "tokens")
}
