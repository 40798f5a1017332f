"""Many messages of one stream at once, no more of them than the client takes answers for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

__all__ = ["answers"]

Q = TypeVar("Q")
A = TypeVar("A")


async def answers(
    questions: AsyncIterator[Q], answer: Callable[[Q], Awaitable[A]], in_flight: int
) -> AsyncGenerator[A, None]:
    """An answer for every question, as they are ready.

    At most `in_flight` questions are read whose answers have not been taken, so that a client that
    reads nothing is not read from either. What is under way when the iterator is closed is
    cancelled.
    """
    running: set[asyncio.Future[A]] = set()
    reading: asyncio.Future[Q | None] | None = None
    ended = False
    try:
        while True:
            if not ended and reading is None and len(running) < in_flight:
                reading = asyncio.ensure_future(_next(questions))
            waiting: set[asyncio.Future[Any]] = {*running, *([reading] if reading else [])}
            if not waiting:
                return
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if reading is not None and reading in done:
                question, reading = reading.result(), None
                if question is None:
                    ended = True
                else:
                    running.add(asyncio.ensure_future(answer(question)))
            for task in done & running:
                running.discard(task)
                yield task.result()
    finally:
        left: list[asyncio.Future[Any]] = [*running, *([reading] if reading else [])]
        for future in left:
            future.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _next(questions: AsyncIterator[Q]) -> Q | None:
    return await anext(questions, None)
