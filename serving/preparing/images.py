"""The files of one job to pixels, a few of them at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

from serving.media.media import Media
from serving.media.resizing import Sizing
from serving.models.spec import Vision
from serving.preparing.layout import Array
from serving.values import Job

__all__ = ["Images", "together"]

_T = TypeVar("_T")

# Files of one job that are under way at a time: it bounds the bytes that are held encoded.
_AT_ONCE = 8


class Images:
    """Reads what a job names, sized as the model takes it. Errors are those of `Media`."""

    def __init__(self, media: Media, vision: Vision, job: Job) -> None:
        self._media = media
        self._gate = asyncio.Semaphore(_AT_ONCE)
        most = vision.max_pixels
        if job.max_pixels is not None:
            most = min(most, job.max_pixels)
        self._sizing = Sizing(vision.patch * vision.merge, vision.min_pixels, most)

    async def image(self, source: str, field: str) -> Array:
        """`[height, width, 3]` uint8; `field` is what the request calls it."""
        async with self._gate:
            return await self._media.image(source, self._sizing, field)

    async def pages(self, source: str, field: str) -> list[Array]:
        """The same of every page of a PDF."""
        async with self._gate:
            return await self._media.pages(source, self._sizing, field)


async def together(calls: Iterable[Awaitable[_T]]) -> list[_T]:
    """What all of them give, in order; where one fails, the others are given up."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
