"""The one client of a fault run: asks at a steady rate, and repeats under the same key.

Requests leave by the clock whether or not earlier ones were answered, so that an outage shows in
full. Each repeats as Polyvec's own client does, as long as its patience lasts.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from types import TracebackType

import httpx
import orjson

from loadtests.faults.books import Asked
from loadtests.mixes import Question
from serving.client.retrying import Retries, error_of
from serving.errors import PolyvecError, Unavailable
from serving.metering.events import event_id

__all__ = ["Asker"]

_ENDPOINT = "/v1/embeddings"
_TIMEOUT_S = 70.0
_RETRIES = Retries(attempts=1000, first_s=0.1, longest_s=4.0)


class Asker:
    """Asks `url` with a tenant's key, from a thread of its own, while the `with` block lasts.

    Leaving the block waits until each request has its answer, or has none. `requests` has all that
    was asked.
    """

    def __init__(
        self,
        url: str,
        model: str,
        tenant: str,
        key: str,
        supply: Iterator[Question],
        rate: float,
        patience_s: float,
    ) -> None:
        self._model, self._tenant, self._supply = model, tenant, supply
        self._rate, self._patience_s = rate, patience_s
        self._url, self._headers = url, {"authorization": f"Bearer {key}"}
        self._chance = random.Random(0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="asker")
        self.requests: list[Asked] = []

    def __enter__(self) -> Asker:
        self._stop = False
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop = True
        self._thread.join()

    def ask(self, question: Question, patience_s: float) -> Future[Asked]:
        """Ask one thing more, which is none of `requests`."""
        asking = self._pursue(*self._made(question), patience_s)
        return asyncio.run_coroutine_threadsafe(asking, self._loop)

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._keep_asking())

    async def _keep_asking(self) -> None:
        limits = httpx.Limits(max_connections=None)
        async with (
            httpx.AsyncClient(base_url=self._url, headers=self._headers, timeout=_TIMEOUT_S,
                              limits=limits) as self._client,
            asyncio.TaskGroup() as group,
        ):  # fmt: skip
            began, number = time.monotonic(), 0
            while not self._stop:
                asked, key, body = self._made(next(self._supply))
                self.requests.append(asked)
                group.create_task(self._pursue(asked, key, body, self._patience_s))
                number += 1
                await asyncio.sleep(max(0.0, began + number / self._rate - time.monotonic()))

    def _made(self, question: Question) -> tuple[Asked, str, bytes]:
        key = f"fault-{self._chance.getrandbits(128):x}"
        body = orjson.dumps(question.body(self._model))
        return Asked(event_id("", self._tenant, _ENDPOINT, key, body), time.monotonic()), key, body

    async def _pursue(self, asked: Asked, key: str, body: bytes, patience_s: float) -> Asked:
        until = asked.sent + patience_s
        for attempt in range(1, _RETRIES.attempts):
            try:
                asked.tokens = await self._once(key, body)
                asked.answered = time.monotonic()
                return asked
            except PolyvecError as error:
                asked.trouble.append(_kind(error))
                pause_s = _RETRIES.pause_s(error, min(attempt, 6), self._chance.random())
                if pause_s is None or time.monotonic() + pause_s > until:
                    asked.refusal = f"{_kind(error)}: {error.message}"
                    return asked
            await asyncio.sleep(pause_s)
        return asked

    async def _once(self, key: str, body: bytes) -> int:
        try:
            headers = {"idempotency-key": key, "content-type": "application/json"}
            answer = await self._client.post(_ENDPOINT, content=body, headers=headers)
        except httpx.TransportError as error:
            raise Unavailable(type(error).__name__, 0.1) from None
        if answer.status_code == 200:
            return int(orjson.loads(answer.content)["usage"]["total_tokens"])
        raise _error(answer)


def _error(answer: httpx.Response) -> PolyvecError:
    try:
        body = orjson.loads(answer.content)
        code, message = str(body["code"]), str(body["detail"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        code, message = "", f"{answer.status_code} {answer.text[:80]}"
    sent = answer.headers.get("retry-after", "")
    return error_of(answer.status_code, code, message, None, float(sent) if sent else None)


def _kind(error: PolyvecError) -> str:
    """A word for a count: a status, or how the connection ended."""
    if isinstance(error, Unavailable) and error.message.isidentifier():
        return error.message
    return f"{error.status} {error.code}"
