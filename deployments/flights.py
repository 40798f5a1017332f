"""What crosses a hop: tuples of numbers and bytes, never lists of floats or objects with methods.

Pickling a tuple of bytes costs a fraction of pickling a dataclass of arrays, and a flight holds
dozens of them. Deadlines cross as seconds left, since two machines do not share a clock. What most
requests do not have (spans, images, multi-vectors, sparse weights) is one None in the tuple.
"""

from __future__ import annotations

import time
from typing import Any, TypeAlias

import numpy as np

from serving.telemetry.carrying import Carrier
from serving.values import (
    Output,
    Pixels,
    Prepared,
    Ragged,
    ServiceClass,
    Sparse,
    Usage,
    Vectors,
)

__all__ = [
    "PackedPrepared",
    "PackedVectors",
    "pack_prepared",
    "pack_vectors",
    "unpack_prepared",
    "unpack_vectors",
]

# dense, multi, sparse; spans; places and token counts of images, and where their pixels are.
_MorePrepared: TypeAlias = tuple[
    bool, bool, bool, bytes | None, tuple[tuple[int, int], ...], tuple[Any, ...]
]
# Rows of the array; values, counts and width of multi-vectors; ids, weights, counts of sparse ones.
_MoreVectors: TypeAlias = tuple[
    int, tuple[bytes, bytes, int] | None, tuple[bytes, bytes, bytes] | None
]
PackedPrepared: TypeAlias = tuple[
    bytes,
    bytes,
    int | None,
    bool,
    str | None,
    int,
    ServiceClass,
    float,
    _MorePrepared | None,
    Carrier | None,
    str,
]
PackedVectors: TypeAlias = tuple[bytes, int, float, float, _MoreVectors | None]


def pack_prepared(
    prepared: Prepared, deadline: float, carrier: Carrier | None = None
) -> PackedPrepared:
    """For the hop to a replica; `deadline` is a `time.monotonic()` here, `carrier` whose it is.

    The usage and the tokens' text stay behind.
    """
    output = prepared.output
    plain = prepared.spans is None and output.dense and not (output.multi or output.sparse)
    return (
        prepared.ids.tobytes(),
        prepared.lengths.tobytes(),
        output.dimensions,
        output.normalized,
        prepared.adapter,
        prepared.skip,
        prepared.service_class,
        deadline - time.monotonic(),
        None if plain and not prepared.pixels else _more_prepared(prepared),
        carrier,
        prepared.tenant,
    )


def unpack_prepared(packed: PackedPrepared) -> tuple[Prepared, float, Carrier | None]:
    """What was packed, its deadline as a `time.monotonic()` here, and whose it is."""
    ids, lengths, dimensions, normalized, adapter, skip, service_class = packed[:7]
    left_s, more, carrier, tenant = packed[7:]
    spans = None
    pixels: tuple[Pixels, ...] = ()
    if more is None:
        output = Output(dimensions, normalized)
    else:
        dense, multi, sparse, raw, places, arrays = more
        output = Output(dimensions, normalized, dense, multi, sparse)
        spans = None if raw is None else np.frombuffer(raw, np.int32).reshape(-1, 4)
        pixels = tuple(Pixels(*place, array) for place, array in zip(places, arrays, strict=True))
    prepared = Prepared(
        ids=np.frombuffer(ids, np.int32),
        lengths=np.frombuffer(lengths, np.int32),
        usage=Usage(),
        output=output,
        adapter=adapter,
        skip=skip,
        service_class=service_class,
        spans=spans,
        pixels=pixels,
        tenant=tenant,
    )
    return prepared, time.monotonic() + left_s, carrier


def _more_prepared(prepared: Prepared) -> _MorePrepared:
    output, spans, pixels = prepared.output, prepared.spans, prepared.pixels
    return (
        output.dense,
        output.multi,
        output.sparse,
        None if spans is None else spans.tobytes(),
        tuple((one.at, one.tokens) for one in pixels),
        tuple(one.array for one in pixels),
    )


def pack_vectors(vectors: Vectors) -> PackedVectors:
    """For the hop back: the array's bytes and its width."""
    array = vectors.array
    plain = vectors.multi is None and vectors.sparse is None
    more = None if plain else _more_vectors(vectors)
    return array.tobytes(), array.shape[1], vectors.queue_s, vectors.infer_s, more


def unpack_vectors(packed: PackedVectors) -> Vectors:
    """`[vectors, width]` float32 over the received bytes, without a copy."""
    raw, width, queue_s, infer_s, more = packed
    array = np.frombuffer(raw, np.float32)
    if more is None:
        return Vectors(array.reshape(-1, width), queue_s, infer_s)
    rows, packed_multi, packed_sparse = more
    multi = sparse = None
    if packed_multi is not None:
        values, counts, columns = packed_multi
        shaped = np.frombuffer(values, np.float32).reshape(-1, columns)
        multi = Ragged(shaped, np.frombuffer(counts, np.int32))
    if packed_sparse is not None:
        ids, weights, counts = packed_sparse
        sparse = Sparse(
            np.frombuffer(ids, np.int32),
            np.frombuffer(weights, np.float32),
            np.frombuffer(counts, np.int32),
        )
    return Vectors(array.reshape(rows, width), queue_s, infer_s, multi, sparse)


def _more_vectors(vectors: Vectors) -> _MoreVectors:
    multi, sparse = vectors.multi, vectors.sparse
    return (
        vectors.array.shape[0],
        None
        if multi is None
        else (multi.values.tobytes(), multi.counts.tobytes(), multi.values.shape[1]),
        None
        if sparse is None
        else (sparse.ids.tobytes(), sparse.weights.tobytes(), sparse.counts.tobytes()),
    )
