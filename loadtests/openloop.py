"""Requests by the clock: so many a second, whether or not earlier ones were answered.

A closed loop waits for a slow server and so never shows it more than it can do; this one does. The
wait for an answer is counted from when the request was due.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import orjson

from loadtests.client import Connection, Target, percentile
from loadtests.mixes import Question

__all__ = ["Pool", "Step", "offer", "requests_of"]

_LATE_S = 90.0  # what is not answered by then has failed
_TOKENS = re.compile(rb'"total_tokens":(\d+)')
_REFUSALS = (429, 503)


@dataclass(slots=True)
class Step:
    """What came of `rate` requests a second for `seconds`.

    `answered` and `tokens` are of answers within those seconds; `latencies_s` of all of them.
    """

    rate: float
    seconds: float
    sent: int = 0
    answered: int = 0
    refused: int = 0
    tokens: int = 0
    latencies_s: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    client_cpu: float = 0.0

    @property
    def answered_per_s(self) -> float:
        """Requests answered a second, while requests came."""
        return self.answered / self.seconds

    @property
    def tokens_per_s(self) -> float:
        """Tokens answered a second, while requests came."""
        return self.tokens / self.seconds

    def quantile(self, share: float) -> float:
        """Seconds that `share` of all answers took no longer than."""
        return percentile(self.latencies_s, share)


class Pool:
    """Connections to one server, as many as are needed at a time."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._idle: list[Connection] = []

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer; OSError where there is none."""
        while self._idle and not self._idle[-1].open:
            self._idle.pop()
        connection = self._idle.pop() if self._idle else await self._opened()
        answer = await connection.ask(request)
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Hang up."""
        while self._idle:
            self._idle.pop().close()

    async def _opened(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, opened = await loop.create_connection(Connection, self._target.host, self._target.port)
        return opened


def requests_of(target: Target, supply: Iterator[Question], count: int) -> list[bytes]:
    """Whole requests, made before they are needed: making them costs the client's core."""
    made = []
    for _ in range(count):
        question = next(supply)
        body = orjson.dumps(question.body(target.model))
        made.append(target.whole(body, {"X-Service-Class": question.service_class}))
    return made


async def offer(pool: Pool, requests: Sequence[bytes], rate: float) -> Step:
    """Send the requests, `rate` of them a second, and wait for what is still under way."""
    step = Step(rate, len(requests) / rate)
    cpu, began = time.process_time(), time.perf_counter()
    tasks = set()
    for number, request in enumerate(requests):
        due = began + number / rate
        if (left := due - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        task = asyncio.create_task(_one(pool, request, due, began + step.seconds, step))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if number % 16 == 0:  # a client that is behind reads answers all the same
            await asyncio.sleep(0)
    step.client_cpu = (time.process_time() - cpu) / max(time.perf_counter() - began, 1e-9)
    await asyncio.gather(*tasks)
    return step


async def _one(pool: Pool, request: bytes, due: float, end: float, step: Step) -> None:
    step.sent += 1
    try:
        async with asyncio.timeout(_LATE_S):
            status, body = await pool.ask(request)
    except (OSError, TimeoutError) as error:
        step.failed[type(error).__name__] += 1
        return
    now = time.perf_counter()
    if status == 200:
        step.latencies_s.append(now - due)
        if now <= end:
            found = _TOKENS.search(body)
            step.answered += 1
            step.tokens += int(found[1]) if found else 0
    elif status in _REFUSALS:
        step.refused += 1
    else:
        step.failed[f"HTTP {status}"] += 1
