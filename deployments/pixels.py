"""Pixels lie in the object store where they were made, and travel once, to the replica.

A gateway has only where they are. Their owner is the preprocessor: where it dies, they are lost,
and the gateway has the job prepared once more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import ray
from ray.exceptions import RayError

from serving.errors import DeadlinePassed, Overloaded, Unavailable
from serving.values import Pixels, Prepared

if TYPE_CHECKING:
    from ray import ObjectRef

__all__ = ["Elsewhere", "PixelsLost", "fetched", "left_here", "prepared_again", "with_remedy"]


class PixelsLost(Unavailable):
    """`PixelsLost(message)`: the preprocessor that had them is gone, or its memory is."""


@dataclass(frozen=True, slots=True, eq=False)
class Elsewhere:
    """In place of an image's array: `at` in the tuple of arrays that `ref` refers to.

    `again` prepares the job once more; it is there in the gateway only.
    """

    ref: ObjectRef[Any]
    at: int
    again: Callable[[], Awaitable[Prepared]] | None = None

    def __reduce__(self) -> tuple[type[Elsewhere], tuple[object, ...]]:
        return Elsewhere, (self.ref, self.at)


async def left_here(prepared: Prepared) -> Prepared:
    """The same, its pixels put into the object store; `Overloaded` where it has no room."""
    if not prepared.pixels:
        return prepared
    arrays = tuple(one.array for one in prepared.pixels)
    try:
        ref = await asyncio.to_thread(ray.put, arrays)
    except RayError as full:
        raise Overloaded("there is no room for more images now", 2.0) from full
    return _replaced(prepared, [Elsewhere(ref, at) for at in range(len(arrays))])


def with_remedy(prepared: Prepared, again: Callable[[], Awaitable[Prepared]]) -> Prepared:
    """The same, with what to do where its pixels are lost."""
    if not prepared.pixels:
        return prepared
    places = (cast("Elsewhere", one.array) for one in prepared.pixels)
    return _replaced(prepared, [Elsewhere(one.ref, one.at, again) for one in places])


async def prepared_again(prepared: Prepared) -> Prepared | None:
    """The job of `prepared` once more, or None where there is no remedy."""
    for one in prepared.pixels:
        place = one.array
        if isinstance(place, Elsewhere) and place.again is not None:
            return await place.again()
    return None


async def fetched(prepared: Prepared, deadline: float) -> Prepared:
    """The same with its pixels; `PixelsLost`, or `DeadlinePassed` where they take too long."""
    places = [cast("Elsewhere", one.array) for one in prepared.pixels]
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            arrays = await cast("Awaitable[tuple[Any, ...]]", places[0].ref)
    except TimeoutError as late:
        raise DeadlinePassed("the request's time ran out while its images travelled") from late
    except RayError:
        raise PixelsLost("the request's images were lost on the way; send it again") from None
    return _replaced(prepared, [arrays[one.at] for one in places])


def _replaced(prepared: Prepared, arrays: list[Any]) -> Prepared:
    pairs = zip(prepared.pixels, arrays, strict=True)
    return replace(
        prepared, pixels=tuple(Pixels(one.at, one.tokens, array) for one, array in pairs)
    )
