"""What crosses a hop: tuples of numbers and bytes, never lists of floats or objects with methods.

Pickling a tuple of bytes costs a fraction of pickling a dataclass of arrays, and a flight holds
dozens of them. Deadlines cross as seconds left, since two machines do not share a clock.
"""

from __future__ import annotations

import time
from typing import TypeAlias

import numpy as np

from serving.values import Output, Prepared, ServiceClass, Usage, Vectors

__all__ = [
    "PackedPrepared",
    "PackedVectors",
    "pack_prepared",
    "pack_vectors",
    "unpack_prepared",
    "unpack_vectors",
]

PackedPrepared: TypeAlias = tuple[
    bytes, bytes, int | None, bool, str | None, int, ServiceClass, float
]
PackedVectors: TypeAlias = tuple[bytes, int, float, float]


def pack_prepared(prepared: Prepared, deadline: float) -> PackedPrepared:
    """For the hop to a replica; `deadline` is a `time.monotonic()` here. The usage stays behind."""
    return (
        prepared.ids.tobytes(),
        prepared.lengths.tobytes(),
        prepared.output.dimensions,
        prepared.output.normalized,
        prepared.adapter,
        prepared.skip,
        prepared.service_class,
        deadline - time.monotonic(),
    )


def unpack_prepared(packed: PackedPrepared) -> tuple[Prepared, float]:
    """What was packed, and its deadline as a `time.monotonic()` here."""
    ids, lengths, dimensions, normalized, adapter, skip, service_class, left_s = packed
    prepared = Prepared(
        ids=np.frombuffer(ids, np.int32),
        lengths=np.frombuffer(lengths, np.int32),
        usage=Usage(),
        output=Output(dimensions, normalized),
        adapter=adapter,
        skip=skip,
        service_class=service_class,
    )
    return prepared, time.monotonic() + left_s


def pack_vectors(vectors: Vectors) -> PackedVectors:
    """For the hop back: the array's bytes and its width."""
    array = vectors.array
    return array.tobytes(), array.shape[1], vectors.queue_s, vectors.infer_s


def unpack_vectors(packed: PackedVectors) -> Vectors:
    """`[inputs, width]` float32 over the received bytes, without a copy."""
    raw, width, queue_s, infer_s = packed
    return Vectors(np.frombuffer(raw, np.float32).reshape(-1, width), queue_s, infer_s)
