"""What a client gets: arrays and numbers, whatever wire they came by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import serving.protos.embeddings_pb2 as pb
from serving.errors import InvalidInput
from serving.values import Usage

__all__ = [
    "Chosen",
    "Classified",
    "Embedded",
    "Model",
    "Ranked",
    "dtype_of",
    "joined",
    "read_classified",
    "read_embedded",
    "read_model",
    "read_ranked",
]

_DTYPES = {"float": "<f4", "int8": "i1", "uint8": "u1", "binary": "i1", "ubinary": "u1"}

Numbers = npt.NDArray[Any]  # of the type that was asked for


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """`vectors` is `[inputs, width]`, a row for every input, page or chunk, in order.

    `multi` has an array `[tokens, width]` for each, `sparse` token ids and their weights, where
    they were asked for; `vectors` is `[inputs, 0]` where no single vectors were.
    """

    vectors: Numbers
    usage: Usage
    model: str
    multi: tuple[Numbers, ...] = ()
    sparse: tuple[tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]], ...] = ()


@dataclass(frozen=True, slots=True)
class Ranked:
    """`order` has the documents' places, the most relevant first, and `scores` theirs."""

    order: tuple[int, ...]
    scores: tuple[float, ...]
    usage: Usage
    model: str


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """`labels` has every input's likeliest; `scores` is `[inputs, labels]`."""

    labels: tuple[str, ...]
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Classified(Chosen):
    """What was chosen for every input: in `groups` by name, where labels were given in groups."""

    usage: Usage
    model: str
    groups: Mapping[str, Chosen]


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is served. Vectors have any of `sizes` dimensions, the last one by default."""

    id: str
    aliases: tuple[str, ...]
    max_tokens: int
    sizes: tuple[int, ...]
    tasks: tuple[str, ...]
    modalities: tuple[str, ...]


def _usage(usage: pb.Usage) -> Usage:
    return Usage(usage.total_tokens - usage.image_tokens, usage.image_tokens)


def dtype_of(encoding: str) -> np.dtype[Any]:
    """The numbers of a number type, as they are packed. Raises `InvalidInput`."""
    if encoding not in _DTYPES:
        raise InvalidInput(f"encoding must be one of {', '.join(_DTYPES)}", "encoding")
    return np.dtype(_DTYPES[encoding])


def read_embedded(answer: pb.EmbedResponse, encoding: str) -> Embedded:
    """An answer that has vectors of one number type."""
    dtype = dtype_of(encoding)
    rows = [np.frombuffer(one.vectors[0].packed, dtype) for one in answer.data if one.vectors]
    multi = [
        np.frombuffer(one.packed, dtype).reshape(one.num_vectors, -1)
        for entry in answer.data
        for one in entry.multi_vectors
    ]
    sparse = [
        (np.array(one.ids, np.uint32), np.array(one.weights, np.float32))
        for one in (entry.sparse_vector for entry in answer.data)
    ]
    return Embedded(
        vectors=np.stack(rows) if rows else np.empty((len(answer.data), 0), dtype),
        usage=_usage(answer.usage),
        model=answer.model,
        multi=tuple(multi),
        sparse=tuple(sparse) if any(len(ids) for ids, _ in sparse) else (),
    )


def read_ranked(answer: pb.RerankResponse) -> Ranked:
    """A ranking."""
    return Ranked(
        tuple(one.index for one in answer.results),
        tuple(one.relevance_score for one in answer.results),
        _usage(answer.usage),
        answer.model,
    )


def read_classified(answer: pb.ClassifyResponse) -> Classified:
    """Labels, and the scores of all in the order that they were given."""
    names = [group.name for group in answer.data[0].groups] if answer.data else []
    chosen = _chosen(answer.data)
    return Classified(
        chosen.labels if not names else (),
        chosen.scores,
        _usage(answer.usage),
        answer.model,
        {name: _chosen([one.groups[at] for one in answer.data]) for at, name in enumerate(names)},
    )


def _chosen(said: Sequence[pb.Classification | pb.GroupClassification]) -> Chosen:
    return Chosen(
        tuple(one.prediction for one in said),
        np.array([[label.score for label in one.predictions] for one in said]),
    )


def read_model(model: pb.Model) -> Model:
    """A model."""
    return Model(
        model.id,
        tuple(model.aliases),
        model.max_input_tokens,
        tuple(model.matryoshka_dimensions),
        tuple(model.tasks),
        tuple(model.input_modalities),
    )


def joined(parts: Sequence[Embedded]) -> Embedded:
    """The parts of one list, together."""
    return Embedded(
        vectors=np.concatenate([part.vectors for part in parts]),
        usage=sum((part.usage for part in parts), Usage()),
        model=parts[0].model,
        multi=tuple(one for part in parts for one in part.multi),
        sparse=tuple(one for part in parts for one in part.sparse),
    )
