"""What a preparer tells of images."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from serving.telemetry import Telemetry, metrics
from serving.values import Job, Prepared

__all__ = ["ObservedPreparer"]


class ObservedPreparer:
    """A `Preparer` by another one's `prepare`, that tells of every job with images."""

    def __init__(
        self, prepare: Callable[[Job], Awaitable[Prepared]], telemetry: Telemetry, model: str
    ) -> None:
        self._prepare = prepare
        self._pixels = telemetry.series(metrics.IMAGE_PIXELS).bind(model)
        self._seconds = telemetry.series(metrics.STAGE_DURATION).bind("image", model)

    async def prepare(self, job: Job) -> Prepared:
        """See `Preparer.prepare`."""
        began = time.perf_counter()
        prepared = await self._prepare(job)
        if prepared.pixels:
            self._seconds(time.perf_counter() - began)
            for one in prepared.pixels:
                height, width, _ = one.array.shape
                self._pixels(height * width)
        return prepared
