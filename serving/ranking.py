"""Documents ranked by a query, and texts by labels: what is asked of a model, and its scores.

A model that embeds compares vectors (`cosine`), or all tokens with all (`maxsim`); a cross-encoder
reads the query with the documents. All of it is one request: one admission, one bill.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from serving.calls import Call
from serving.errors import InvalidInput, PolyvecError
from serving.models.spec import Listwise, ModelSpec, Pairwise
from serving.service import Service
from serving.values import (
    Answer,
    Ask,
    Floats,
    Image,
    Item,
    Output,
    Pair,
    Ragged,
    Stages,
    Text,
    Usage,
)
from serving.vectors.listwise import list_scores
from serving.vectors.matryoshka import unit
from serving.vectors.maxsim import cosines, maxsims

__all__ = [
    "SCORINGS",
    "Classes",
    "ClassifyAsk",
    "RankAsk",
    "Ranking",
    "Scoring",
    "classify",
    "rank",
]

Scoring: TypeAlias = Literal["cosine", "maxsim"]
SCORINGS: tuple[Scoring, ...] = ("cosine", "maxsim")
"""How a model that embeds may compare; the first is meant where none is named."""

# Products of query and document tokens from which on MaxSim leaves the event loop: some 2 ms.
_INLINE_PRODUCTS = 1 << 17
_FIELD = "documents"


@dataclass(frozen=True, slots=True)
class RankAsk:
    """Documents to rank. `top_n` None: all of them; `scoring` None: the model's own way.

    `instruction` says what makes a document relevant. `truncate` cuts what is too long;
    `document_tokens` always cuts documents to that many. `vectors`: the documents' are wanted too.
    """

    model: str
    query: Text | Image
    documents: tuple[Item, ...]
    top_n: int | None = None
    scoring: Scoring | None = None
    instruction: str | None = None
    truncate: bool = False
    document_tokens: int | None = None
    max_pixels: int | None = None
    vectors: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """`order` has the places of the most relevant documents, those first; equals by their places.

    `scores` and `raw` are `[documents]`, in the order they were given. A score is a probability
    (the sigmoid of a cross-encoder's logit), a cosine, or the mean over the query's tokens of their
    cosines with what they match best. `raw` has the logit and, for MaxSim, the sum. `vectors` is
    `[documents, width]`, of unit length.
    """

    order: tuple[int, ...]
    scores: Floats
    raw: Floats
    usage: Usage
    stages: Stages
    vectors: Floats | None = None


@dataclass(frozen=True, slots=True)
class ClassifyAsk:
    """Items to classify by labels, in groups by name; a single group without one is None's."""

    model: str
    items: tuple[Item, ...]
    labels: Mapping[str | None, tuple[str, ...]]
    truncate: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """`scores` is `[items, labels]` for each group; a row adds up to 1."""

    scores: Mapping[str | None, Floats]
    usage: Usage
    stages: Stages


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    scores: Floats
    raw: Floats
    answers: Sequence[Answer]
    vectors: Floats | None = None


async def rank(service: Service, call: Call, ask: RankAsk) -> Ranking:
    """The ranking, by whatever the model can do. Errors are those of `Service.run`."""
    spec = service.catalog.spec(ask.model)
    _check(spec, ask)
    match spec.reranker:
        case None:
            found = await _by_vectors(service, call, ask)
        case Pairwise() as reranker:
            found = await _by_pairs(service, call, ask, reranker)
        case Listwise():
            found = await _by_list(service, call, ask)
    order = np.argsort(-found.scores, kind="stable")[: ask.top_n]
    return Ranking(
        order=tuple(order.tolist()),
        scores=found.scores,
        raw=found.raw,
        usage=_usage(found.answers),
        stages=_stages(found.answers),
        vectors=found.vectors if ask.vectors else None,
    )


async def classify(service: Service, call: Call, ask: ClassifyAsk) -> Classes:
    """How well each label fits each item: the softmax of its cosines with the group's labels.

    The cosines are not sharpened by a temperature, so that scores of good and bad labels lie close
    to each other, as those of Jina's own service do.
    """
    words = [Text(label) for labels in ask.labels.values() for label in labels]
    role = "classification"
    items, labels = await service.run(
        call,
        [
            Ask(ask.model, ask.items, role=role, truncate=ask.truncate),
            Ask(ask.model, tuple(words), role=role, truncate=ask.truncate, field="labels"),
        ],
    )
    alike = items.vectors.astype(np.float64) @ labels.vectors.astype(np.float64).T
    ends = np.cumsum([len(group) for group in ask.labels.values()])
    groups = np.split(alike, ends[:-1], axis=1)
    answers = (items, labels)
    scores = {name: _softmax(group) for name, group in zip(ask.labels, groups, strict=True)}
    return Classes(scores, _usage(answers), _stages(answers))


def _check(spec: ModelSpec, ask: RankAsk) -> None:
    """What no job can tell of."""
    if ask.scoring is not None and spec.reranker is not None:
        raise InvalidInput(f"{spec.id} has a way of its own to score; leave scoring out", "scoring")
    if ask.scoring == "maxsim" and spec.multi is None:
        raise InvalidInput(f"{spec.id} has no multi-vectors; scoring may be cosine", "scoring")
    if ask.instruction is not None and spec.reranker is None:
        name = "instruction"
        raise InvalidInput(f"{spec.id} takes no {name}; leave it out", name)
    if ask.vectors and (ask.scoring == "maxsim" or isinstance(spec.reranker, Pairwise)):
        name = "return_embeddings"
        raise InvalidInput(f"there is no one vector a document here; leave {name} out", name)


async def _by_vectors(service: Service, call: Call, ask: RankAsk) -> _Scored:
    multi = ask.scoring == "maxsim"
    output = Output(dense=not multi, multi=multi)
    query, documents = await service.run(
        call,
        [
            Ask(
                ask.model,
                items,
                role=role,
                output=output,
                truncate=ask.truncate,
                max_pixels=ask.max_pixels,
                document_tokens=most,
                field=field,
            )
            for items, role, most, field in (
                ((ask.query,), "query", None, "query"),
                (ask.documents, "document", ask.document_tokens, _FIELD),
            )
        ],
    )
    answers = (query, documents)
    if query.multi is None or documents.multi is None:
        scores = cosines(query.vectors[0], documents.vectors)
        return _Scored(scores, scores, answers, documents.vectors)
    sums = await _maxsims(query.multi.values, documents.multi)
    return _Scored(sums / np.float32(max(len(query.multi.values), 1)), sums, answers)


async def _by_pairs(service: Service, call: Call, ask: RankAsk, reranker: Pairwise) -> _Scored:
    answer = await service.embed(call, _pairs(ask))
    logits: Floats = np.ascontiguousarray(answer.vectors[:, 0])
    scores = (1 / (1 + np.exp(np.float32(reranker.shift) - logits))).astype(np.float32)
    return _Scored(scores, logits, (answer,))


async def _by_list(service: Service, call: Call, ask: RankAsk) -> _Scored:
    answer = await service.embed(call, _pairs(ask))
    if answer.spans is None:
        raise PolyvecError("the answer does not say which vectors are whose")
    scores, documents = list_scores(answer.vectors, answer.spans[:, 1])
    return _Scored(scores, scores, (answer,), unit(documents))


def _pairs(ask: RankAsk) -> Ask:
    """The query with every document, for a cross-encoder."""
    pairs = []
    for place, document in enumerate(ask.documents):
        if not isinstance(document, Text | Image):
            field = f"{_FIELD}.{place}"
            raise InvalidInput(f"{field} must be one text or one image", field)
        pairs.append(Pair(ask.query, document, ask.instruction))
    return Ask(
        ask.model,
        tuple(pairs),
        output=Output(normalized=False),
        truncate=ask.truncate,
        max_pixels=ask.max_pixels,
        document_tokens=ask.document_tokens,
        field=_FIELD,
    )


async def _maxsims(query: Floats, documents: Ragged) -> Floats:
    if len(query) * len(documents.values) <= _INLINE_PRODUCTS:
        return maxsims(query, documents)
    return await asyncio.to_thread(maxsims, query, documents)


def _softmax(values: npt.NDArray[np.float64]) -> Floats:
    """`[rows, columns]`, every row adding up to 1."""
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    shares: Floats = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def _usage(answers: Sequence[Answer]) -> Usage:
    return reduce(add, (answer.usage for answer in answers))


def _stages(answers: Sequence[Answer]) -> Stages:
    """They ran side by side: the longest of each."""
    every = [answer.stages for answer in answers]
    return Stages(
        max(one.prepare_s for one in every),
        max(one.queue_s for one in every),
        max(one.infer_s for one in every),
        max(one.embed_s for one in every),
    )
