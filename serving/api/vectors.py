"""Vectors into a response body: base64 spliced in as bytes, lists written by orjson.

Nothing passes through Python floats, pydantic or a whole-body JSON encoder: for 32 vectors of 2048
dimensions that is 0.04 instead of 34 CPU-ms (peers.md, serialisation).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson
from pybase64 import b64encode

from serving.encodings import ENCODINGS, encoding
from serving.values import Answer, Floats, Ints, Sparse, Usage

__all__ = ["PACKED", "WIRE_TYPES", "array", "arrays", "rows", "write_list"]

# JSON not joined yet: a join of megabytes lets the interpreter lock go, formatting does not.
_Pieces: TypeAlias = tuple[bytes, ...]
_Spans: TypeAlias = list[tuple[int, int]]

_BASE64 = "base64"
_ENCODE = {name: encoding(name).encode for name in ENCODINGS.names()}
WIRE_TYPES = (*_ENCODE, _BASE64)
PACKED = {name: f"{_BASE64} of {name}" for name in _ENCODE} | {"float": _BASE64}
"""Of a number type, the one whose rows are base64 of its bytes, as Voyage's clients want them."""
_UNPACKED = {packed: name for name, packed in PACKED.items()}

# orjson and pybase64 keep the GIL, so in a thread they would hold the event loop up for 5 ms at a
# time; short slices on the loop do for 2 ms at most. Joining megabytes frees it, and is a thread's.
_SLICE_NUMBERS = 32_768
_INLINE_BYTES = 1 << 20


async def write_list(
    model: str, answer: Answer, types: tuple[str, ...], usage: bytes | None = None
) -> bytes:
    """The body of a list of embeddings, in input order; each of one type, or keyed by type.

    A vector is an `embedding`, a multi-vector `embeddings`, sparse weights a `sparse_embedding`; an
    entry has what was asked for, of one input, or of one page or chunk of it. `usage` is JSON, and
    by default the tokens in OpenAI's words.
    """
    head = b'{"object":"list","model":%b,"data":[' % orjson.dumps(model)
    tail = b'],"usage":%b}' % (usage or _usage(answer.usage))
    if answer.multi is not None or answer.sparse is not None:
        return await _write_several(head, answer, types, tail)
    vectors = answer.vectors
    count, width = vectors.shape
    step = max(1, _SLICE_NUMBERS // max(1, width))
    if count <= step:
        return b"".join((head, *_entries(vectors, 0, types), tail))
    parts = [head]
    for start in range(0, count, step):
        parts += _entries(vectors[start : start + step], start, types)
        await asyncio.sleep(0)
    parts.append(tail)
    return await asyncio.to_thread(b"".join, parts)


def _entries(vectors: Floats, first: int, types: tuple[str, ...]) -> list[bytes]:
    """`[n, dimensions]` to the JSON of n entries, numbered from `first`, commas included."""
    if len(types) == 1:
        values = _values(vectors, types[0])
    else:
        columns = [_values(vectors, name) for name in types]
        shape = b"{" + b",".join(b'"%b":%%b' % name.encode() for name in types) + b"}"
        values = [shape % row for row in zip(*columns, strict=True)]
    entries = [
        b',{"object":"embedding","index":%d,"embedding":%b}' % entry
        for entry in enumerate(values, first)
    ]
    if first == 0:
        entries[0] = entries[0][1:]
    return entries


def _values(vectors: Floats, name: str) -> list[bytes]:
    plain = _UNPACKED.get(name)
    if plain is None:
        return [_dumped(row) for row in _ENCODE[name](vectors)]
    numbers = _ENCODE[plain](vectors)
    little = numbers.astype(numbers.dtype.newbyteorder("<"), order="C", copy=False)
    return [b'"%b"' % b64encode(row.data) for row in little]


def _dumped(row: npt.NDArray[Any]) -> bytes:
    return orjson.dumps(np.ascontiguousarray(row), option=orjson.OPT_SERIALIZE_NUMPY)


async def _write_several(head: bytes, answer: Answer, types: tuple[str, ...], tail: bytes) -> bytes:
    """The body where entries have more than a vector, or something else."""
    columns: dict[bytes, list[_Pieces]] = {}
    if answer.vectors.shape[1]:
        vectors = [_whole(await rows(answer.vectors, name)) for name in types]
        columns[b"embedding"] = _by_type(types, vectors)
    if answer.multi is not None:
        written = [await rows(answer.multi.values, name) for name in types]
        spans = _spans(answer.multi.counts)
        lists = [await asyncio.to_thread(_lists, column, spans) for column in written]
        columns[b"embeddings"] = _by_type(types, lists)
    if answer.tokens is not None:
        columns[b"tokenized_input"] = _whole(map(orjson.dumps, answer.tokens))
    if answer.sparse is not None:
        columns[b"sparse_embedding"] = await _weights(answer.sparse)
    kind = b"embedding" if answer.multi is None else b"embeddings"
    parts = [head]
    for index, values in enumerate(zip(*columns.values(), strict=True)):
        parts.append(b'%b{"object":"%b","index":%d' % (b"," if index else b"", kind, index))
        for name, pieces in zip(columns, values, strict=True):
            parts += (b',"%b":' % name, *pieces)
        parts.append(b"}")
    parts.append(tail)
    return await asyncio.to_thread(b"".join, parts)


def _whole(values: Iterable[bytes]) -> list[_Pieces]:
    return [(value,) for value in values]


def _by_type(types: Sequence[str], columns: Sequence[list[_Pieces]]) -> list[_Pieces]:
    """Values as they are where there is one type, else an object by type for each."""
    if len(types) == 1:
        return columns[0]
    names = [b'%b"%b":' % (b"," if i else b"{", name.encode()) for i, name in enumerate(types)]

    def keyed(values: Sequence[_Pieces]) -> _Pieces:
        pairs = zip(names, values, strict=True)
        return (*(piece for name, pieces in pairs for piece in (name, *pieces)), b"}")

    return [keyed(row) for row in zip(*columns, strict=True)]


async def rows(vectors: Floats, name: str = "float") -> list[bytes]:
    """The JSON of every row, of the type `name`."""
    step = max(1, _SLICE_NUMBERS // max(1, vectors.shape[1]))
    written = _values(vectors[:step], name)
    for start in range(step, len(vectors), step):
        await asyncio.sleep(0)
        written += _values(vectors[start : start + step], name)
    return written


async def array(values: Sequence[bytes]) -> bytes:
    """One JSON array of them."""
    if sum(map(len, values)) < _INLINE_BYTES:
        return b"[%b]" % b",".join(values)
    return await asyncio.to_thread(b"".join, _listed(values))


def arrays(values: Sequence[bytes], counts: Ints) -> list[bytes]:
    """A JSON array for each input, of so many of the values."""
    return [b"[%b]" % b",".join(values[start:end]) for start, end in _spans(counts)]


def _listed(values: Sequence[bytes]) -> _Pieces:
    return (b"[", b",".join(values), b"]")


def _lists(rows: Sequence[bytes], spans: _Spans) -> list[_Pieces]:
    """The rows of each input as one JSON array."""
    return [_listed(rows[start:end]) for start, end in spans]


async def _weights(sparse: Sparse) -> list[_Pieces]:
    """Each input's token ids and weights as one JSON object."""
    values: list[_Pieces] = []
    written = 0
    for start, end in _spans(sparse.counts):
        indices, weights = _dumped(sparse.ids[start:end]), _dumped(sparse.weights[start:end])
        values.append((b'{"indices":', indices, b',"values":', weights, b"}"))
        written += end - start
        if written >= _SLICE_NUMBERS:
            written = 0
            await asyncio.sleep(0)
    return values


def _spans(counts: Ints) -> _Spans:
    """Where each input's part of a flat array starts and ends."""
    ends = [0, *accumulate(counts.tolist())]
    return list(pairwise(ends))


def _usage(usage: Usage) -> bytes:
    total = usage.total_tokens
    if usage.image_tokens:
        counts = (total, total, usage.image_tokens)
        return b'{"prompt_tokens":%d,"total_tokens":%d,"image_tokens":%d}' % counts
    return b'{"prompt_tokens":%d,"total_tokens":%d}' % (total, total)
