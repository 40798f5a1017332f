"""Threads for what blocks: a disk that hangs must not hold the threads that others wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["Threads"]

_T = TypeVar("_T")


class Threads:
    """`await threads(call)` is what `call()` gives, made in one of so many threads."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, "batches")

    async def __call__(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def close(self) -> None:
        """End the threads; what waits for one is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
