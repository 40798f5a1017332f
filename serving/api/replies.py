"""A JSON value as a reply. Vectors are written by `vectors`, which is faster."""

from __future__ import annotations

import asyncio
import time

import orjson

from serving.api.exchange import Reply
from serving.calls import Call
from serving.values import Stages

__all__ = ["reply"]

# A body of so many bytes takes a millisecond to write.
_INLINE_BYTES = 1 << 20


async def reply(call: Call, value: object, stages: Stages, began: float) -> Reply:
    """What answers `call`, written since the `time.perf_counter()` of `began`."""
    if len(call.body) > _INLINE_BYTES:
        written = await asyncio.to_thread(orjson.dumps, value)
    else:
        written = orjson.dumps(value)
    return Reply(written, stages, time.perf_counter() - began)
