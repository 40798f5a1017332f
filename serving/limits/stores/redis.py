"""Shared over a Redis or Valkey server: one script call a decision, by the server's own clock.

Decisions of one event-loop turn, and those that gather while others are under way, share a round
trip: each stays atomic by itself, and fails by itself.

All keys of a tenant have one hash tag, so a cluster keeps them on one node. Losing them forgives
what was used, so an eviction policy other than `noeviction` is lenient, not wrong.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import orjson
from redis import RedisError
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from serving.coalescing import Coalescer, Flight, Lane
from serving.errors import InvalidConfig
from serving.limits.buckets import month_of
from serving.limits.decision import Decision, Outcome, Spending, decide
from serving.limits.stores import RateStore, StoreOptions, StoreUnavailable
from serving.limits.stores._scripts import GIVE_BACK, TAKE

__all__ = ["RedisStore", "open_store"]

Word: TypeAlias = str | bytes | int

# Scripts of one round trip: they take the server some 20 µs each, and the last waits for all.
_TOGETHER = 64


def open_store(url: str, options: StoreOptions) -> RateStore:
    """`redis://[[user]:password@]host[:port][/database]`; `rediss://` and `valkeys://` with TLS.

    `?cluster=true` for a Redis Cluster, of which the URL names one node. Other options in the URL
    are redis-py's, such as `ssl_ca_certs`.
    """
    try:
        return RedisStore(url.replace("valkey", "redis", 1), options)
    except ValueError as wrong:
        raise InvalidConfig(
            f"the store of quotas has a URL that is not understood: {wrong}"
        ) from wrong


class RedisStore:
    """A pool of connections that are made when needed and made again when they break."""

    def __init__(self, url: str, options: StoreOptions) -> None:
        self._redis = _client(url, options)
        lane = Lane(options.connections, _TOGETHER)
        self._asked: Coalescer[_Asked, object] = Coalescer(self._send, lane, weigh=lambda asked: 1)
        self._clock = options.clock
        self._months: tuple[int, ...] = ()

    async def take(self, spending: Spending) -> Decision:
        """See `RateStore`."""
        reply = cast("list[int]", await self._run(_TAKE, spending, 0))
        outcomes = [
            Outcome(reply[i], reply[i + 1], None if reply[i + 2] < 0 else reply[i + 2])
            for i in range(1, len(reply), 3)
        ]
        return decide(spending, reply[0], outcomes)

    async def give_back(self, spending: Spending, decision: Decision) -> None:
        """See `RateStore`."""
        if spending.charges:
            await self._run(_GIVE_BACK, spending, decision.at_ms)

    async def close(self) -> None:
        """See `RateStore`."""
        await self._asked.close()
        await self._redis.aclose()

    async def _run(self, script: _Script, spending: Spending, made: int) -> object:
        tag = f"polyvec:limits:{{t:{spending.tenant}}}:"
        keys: list[Word] = [tag + charge.bucket.key for charge in spending.charges]
        now = self._clock() if self._clock else 0
        charges = [(bucket.name, bucket.limit, cost) for bucket, cost in spending.charges]
        told = (now, self._starts(now), spending.place, spending.hold_ms, made, charges)
        return await self._asked(_Asked(script, [len(keys), *keys, orjson.dumps(told)]))

    async def _send(self, flight: Flight[_Asked, object]) -> Sequence[object | BaseException]:
        try:
            replies = await self._replies("EVALSHA", flight.items)
            unknown = [at for at, one in enumerate(replies) if isinstance(one, NoScriptError)]
            if unknown:  # a server that started anew has no scripts
                again = await self._replies("EVAL", [flight.items[at] for at in unknown])
                for at, reply in zip(unknown, again, strict=True):
                    replies[at] = reply
        except (RedisError, OSError) as error:
            return [_unavailable(error) for _ in flight.items]
        return [_unavailable(one) if isinstance(one, RedisError) else one for one in replies]

    async def _replies(self, command: str, asked: Sequence[_Asked]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for one in asked:
            script = one.script.digest if command == "EVALSHA" else one.script.text
            pipeline.execute_command(command, script, *one.words)
        return await pipeline.execute(raise_on_error=False)

    def _starts(self, now: int) -> tuple[int, ...]:
        """Starts of last month, this one, and the next two: the server's clock chooses."""
        now = now or time.time_ns() // 1_000_000
        if not self._months or not self._months[1] <= now < self._months[2]:
            start, end = month_of(now)
            self._months = month_of(start - 1)[0], start, end, month_of(end)[1]
        return self._months


def _client(url: str, options: StoreOptions) -> Redis | RedisCluster:
    parts = urlsplit(url)
    queries = dict(parse_qsl(parts.query))
    in_cluster = queries.pop("cluster", "false") == "true"
    url = urlunsplit(parts._replace(query=urlencode(queries)))
    once = Retry(NoBackoff(), 0)  # a second try may charge twice
    timeout_s = options.timeout_s
    if in_cluster:
        return RedisCluster.from_url(
            url,
            protocol=2,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=once,
            max_connections=options.connections,
        )
    return Redis.from_url(
        url,
        protocol=2,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=once,
    )


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"the store of quotas does not answer: {error}")


class _Script:
    def __init__(self, text: str) -> None:
        self.text, self.digest = text, hashlib.sha1(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Asked:
    """A script, the number of its keys, its keys and its argument: redis-py packs word by word."""

    script: _Script
    words: Sequence[Word]


_TAKE, _GIVE_BACK = _Script(TAKE), _Script(GIVE_BACK)
