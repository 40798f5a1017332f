"""What quotas cost a gateway, in processor time of its own process for each request.

    python -m loadtests.limits [--store URL ...] [--requests 20000] [--at-once 16]

Each request is admitted in every bucket that a plan can have and gives its place back, as in the
service; `refused` is a flood that is over the limit; `headers` adds the header fields. Nothing else
runs in the process, so the loop itself, reported as `nothing`, is in every number.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from statistics import median
from uuid import uuid4

import uvloop

from serving.errors import LimitExceeded
from serving.limits.headers import rate_headers
from serving.limits.limit import Limits
from serving.limits.limiter import Limiter
from serving.limits.options import QuotaOptions, open_limiter

__all__ = ["main"]

_RATES = Limits(requests_per_minute=10**9, tokens_per_minute=10**10)
_PLANS = {
    "requests and tokens": _RATES,
    "and the month": replace(_RATES, monthly_tokens=10**10),
    "and places": replace(_RATES, monthly_tokens=10**10, concurrent_requests=10**6),
}
_REFUSING = replace(_RATES, monthly_tokens=0)

Request = Callable[[], Awaitable[None]]


def main() -> int:
    """The command: prints a table of CPU-milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", action="append", help="URL; again for another (memory://)")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{'store':32} {'request':28} {'CPU-ms':>8} {'ms':>8}   each; median of rounds")
    for url in options.store or ["memory://"]:
        uvloop.run(_measure(url, options.requests, options.at_once, options.rounds))
    return 0


async def _measure(url: str, requests: int, at_once: int, rounds: int) -> None:
    limiter, tenant = open_limiter(QuotaOptions(url, on_store_error="closed")), uuid4().hex
    for name, request in _kinds(limiter, tenant).items():
        await _round(request, at_once * 50, at_once)
        found = [await _round(request, requests, at_once) for _ in range(rounds)]
        cpu, wall = (median(column) for column in zip(*found, strict=True))
        print(f"{url:32} {name:28} {cpu:8.4f} {wall:8.4f}", flush=True)
    await limiter.close()


def _kinds(limiter: Limiter, tenant: str) -> dict[str, Request]:
    async def nothing() -> None:
        return None

    def admitted(limits: Limits, headers: bool) -> Request:
        async def request() -> None:
            async with limiter.admit(tenant, limits, "m", 12) as admission:
                if headers:
                    rate_headers(admission.decision)

        return request

    async def refused() -> None:
        try:
            await limiter.admit(tenant, _REFUSING, "m", 12).__aenter__()
        except LimitExceeded:
            return

    kinds: dict[str, Request] = {"nothing": nothing}
    kinds |= {name: admitted(limits, False) for name, limits in _PLANS.items()}
    kinds["and headers"] = admitted(_PLANS["and places"], True)
    kinds["refused"] = refused
    return kinds


async def _round(request: Request, requests: int, at_once: int) -> tuple[float, float]:
    async def client() -> None:
        for _ in range(requests // at_once):
            await request()

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(at_once)))
    done = requests // at_once * at_once / 1000
    return (time.process_time() - cpu) / done, (time.perf_counter() - wall) / done


if __name__ == "__main__":
    raise SystemExit(main())
