"""Answers to messages. Vectors are packed bytes, or numbers where those are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

import serving.protos.embeddings_pb2 as pb
from serving.encodings import encoding
from serving.models.spec import ModelSpec
from serving.values import Answer, Floats, Ragged, Sparse, Usage

__all__ = ["write_embeddings", "write_model", "write_usage", "write_vector"]

# Numbers that are packed in one go: some 2 ms of the event loop where they are numbers of Python's.
_SLICE_NUMBERS = 65_536
_LITTLE = np.dtype("<f4")


async def write_embeddings(
    answer: Answer, types: Sequence[str], as_values: bool
) -> list[pb.Embedding]:
    """An embedding for every input, page or chunk, in order, with all that was asked for."""
    rows = max(len(answer.vectors), len(answer.multi.counts) if answer.multi is not None else 0)
    data = [pb.Embedding(index=index) for index in range(rows)]
    if answer.vectors.shape[1]:
        for name in types:
            await _write_vectors(data, answer.vectors, name, as_values)
    if answer.multi is not None:
        for name in types:
            await _write_multi(data, answer.multi, name, as_values)
        for embedding, tokens in zip(data, answer.tokens or (), strict=False):
            for multi in embedding.multi_vectors:
                multi.tokens.extend(tokens)
    if answer.sparse is not None:
        await _write_sparse(data, answer.sparse)
    return data


def write_usage(usage: Usage) -> pb.Usage:
    """What is owed."""
    return pb.Usage(
        total_tokens=usage.total_tokens,
        text_tokens=usage.text_tokens,
        image_tokens=usage.image_tokens,
    )


def write_vector(vector: Floats) -> pb.Vector:
    """One vector of floats, `[dimensions]`."""
    packed = vector.astype(_LITTLE, copy=False).tobytes()
    return pb.Vector(type="float", packed=packed, dimensions=len(vector))


def write_model(spec: ModelSpec) -> pb.Model:
    """What a caller may know of a model, as `GET /v1/models` says it."""
    model = pb.Model(
        id=spec.id,
        aliases=spec.aliases,
        max_input_tokens=spec.max_tokens,
        dimensions=spec.dimensions,
        matryoshka_dimensions=[*spec.matryoshka, spec.dimensions],
        least_dimensions=spec.least_dimensions,
        tasks=[task.name for task in spec.tasks],
        default_task=spec.default_task,
        input_modalities=spec.modalities,
        multivector_dimensions=spec.multi.dimensions if spec.multi else None,
        sparse=spec.sparse is not None,
        late_chunking=spec.late_chunking,
    )
    model.created.FromSeconds(spec.created)
    return model


async def _write_vectors(
    data: list[pb.Embedding], vectors: Floats, name: str, as_values: bool
) -> None:
    width = vectors.shape[1]
    step = max(1, _SLICE_NUMBERS // width)
    for start in range(0, len(vectors), step):
        if start:
            await asyncio.sleep(0)
        encoded = _encoded(vectors[start : start + step], name)
        for embedding, row in zip(data[start:], encoded, strict=False):
            vector = embedding.vectors.add(type=name, dimensions=width)
            _fill(vector, row, name, as_values)


async def _write_multi(data: list[pb.Embedding], multi: Ragged, name: str, as_values: bool) -> None:
    width = multi.values.shape[1]
    written = 0
    for embedding, (start, end) in zip(data, _spans(multi.counts), strict=True):
        encoded = _encoded(multi.values[start:end], name)
        vector = embedding.multi_vectors.add(type=name, num_vectors=end - start, dimensions=width)
        _fill(vector, encoded, name, as_values)
        written += (end - start) * width
        if written >= _SLICE_NUMBERS:
            written = 0
            await asyncio.sleep(0)


async def _write_sparse(data: list[pb.Embedding], sparse: Sparse) -> None:
    written = 0
    for embedding, (start, end) in zip(data, _spans(sparse.counts), strict=True):
        embedding.sparse_vector.ids.extend(sparse.ids[start:end].tolist())
        embedding.sparse_vector.weights.extend(sparse.weights[start:end].tolist())
        written += end - start
        if written >= _SLICE_NUMBERS:
            written = 0
            await asyncio.sleep(0)


def _encoded(vectors: Floats, name: str) -> npt.NDArray[np.generic]:
    found = encoding(name).encode(vectors)
    return found.astype(_LITTLE, copy=False) if name == "float" else found


def _fill(
    vector: pb.Vector | pb.MultiVector, row: npt.NDArray[np.generic], name: str, as_values: bool
) -> None:
    if as_values and name == "float":
        vector.values.extend(row.ravel().tolist())
    else:
        vector.packed = row.tobytes()


def _spans(counts: npt.NDArray[np.int32]) -> list[tuple[int, int]]:
    return list(pairwise([0, *accumulate(counts.tolist())]))
