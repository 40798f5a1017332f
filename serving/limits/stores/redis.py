"""Shared over a Redis or Valkey server: one script call a decision, by the server's own clock.

All keys of a tenant have one hash tag, so a cluster keeps them on one node. Losing them forgives
what was used, so an eviction policy other than `noeviction` is lenient, not wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Sequence
from typing import cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis import RedisError
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from serving.errors import InvalidConfig
from serving.limits.buckets import month_of
from serving.limits.decision import Decision, Outcome, Spending, decide
from serving.limits.stores import RateStore, StoreOptions, StoreUnavailable
from serving.limits.stores._scripts import GIVE_BACK, TAKE

__all__ = ["RedisStore", "open_store"]

Word = str | int


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
        self._free = asyncio.Semaphore(options.connections)  # in order, unlike redis-py's own pool
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
        await self._redis.aclose()

    async def _run(self, script: _Script, spending: Spending, made: int) -> object:
        tag = f"polyvec:limits:{{t:{spending.tenant}}}:"
        keys: list[Word] = [tag + charge.bucket.key for charge in spending.charges]
        words = self._words(spending, made)
        async with self._free:
            try:
                try:
                    return await self._evaluate("EVALSHA", script.digest, keys, words)
                except NoScriptError:  # a server that started anew has no scripts
                    return await self._evaluate("EVAL", script.text, keys, words)
            except (RedisError, OSError) as error:
                raise StoreUnavailable(f"the store of quotas does not answer: {error}") from error

    def _evaluate(
        self, command: str, script: str, keys: Sequence[Word], words: Sequence[Word]
    ) -> Awaitable[object]:
        asked = self._redis.execute_command(command, script, len(keys), *keys, *words)
        return cast("Awaitable[object]", asked)

    def _words(self, spending: Spending, made: int) -> list[Word]:
        now = self._clock() if self._clock else 0
        words: list[Word] = [now, *self._starts(now), spending.place, spending.hold_ms, made]
        for bucket, cost in spending.charges:
            words += (bucket.name, bucket.limit, cost)
        return words

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


class _Script:
    def __init__(self, text: str) -> None:
        self.text, self.digest = text, hashlib.sha1(text.encode()).hexdigest()


_TAKE, _GIVE_BACK = _Script(TAKE), _Script(GIVE_BACK)
