"""`Rerank` and `Classify`: messages to what `serving.ranking` is asked, and its scores back."""

from __future__ import annotations

import time

import serving.protos.embeddings_pb2 as pb
from serving import ranking
from serving.api.fields import Fields
from serving.api.grpc.reading import read_item, read_items
from serving.api.grpc.rpc import Said
from serving.api.grpc.writing import write_usage, write_vector
from serving.api.models import find
from serving.calls import Call
from serving.errors import InvalidInput
from serving.ranking import SCORINGS, ClassifyAsk, RankAsk, Ranking, Scoring
from serving.service import Service
from serving.values import Image, Text

__all__ = ["classify", "rerank"]

_MOST_LABELS = 512  # as Jina's (api.md 1.7)


async def rerank(
    service: Service, request: pb.RerankRequest, call: Call
) -> Said[pb.RerankResponse]:
    """The documents, the most relevant first."""
    ask = _rank_ask(service, request)
    found = await ranking.rank(service, call, ask)
    began = time.perf_counter()
    written = pb.RerankResponse(
        model=ask.model,
        results=[_result(request, found, place) for place in found.order],
        usage=write_usage(found.usage),
        request_id=call.id,
    )
    return Said(written, found.stages, time.perf_counter() - began)


async def classify(
    service: Service, request: pb.ClassifyRequest, call: Call
) -> Said[pb.ClassifyResponse]:
    """Every input's likeliest label, and the scores of all."""
    spec = find(service.catalog, request.model)
    labels = _labels(request)
    items = read_items(request.inputs, "inputs", service.max_inputs)
    ask = ClassifyAsk(spec.id, items, {None: labels}, request.truncate)
    found = await ranking.classify(service, call, ask)
    began = time.perf_counter()
    data = []
    for index, row in enumerate(found.scores[None].tolist()):
        best = max(range(len(row)), key=row.__getitem__)
        scores = [
            pb.LabelScore(label=label, score=score)
            for label, score in zip(labels, row, strict=True)
        ]
        data.append(
            pb.Classification(
                index=index, prediction=labels[best], score=row[best], predictions=scores
            )
        )
    usage = write_usage(found.usage)
    written = pb.ClassifyResponse(model=spec.id, data=data, usage=usage, request_id=call.id)
    return Said(written, found.stages, time.perf_counter() - began)


def _rank_ask(service: Service, request: pb.RerankRequest) -> RankAsk:
    spec = find(service.catalog, request.model)
    query = read_item(request.query, "query")
    if not isinstance(query, Text | Image):
        raise InvalidInput("query must be a text or an image", "query")
    for name in ("top_n", "max_doc_length", "max_pixels"):
        if request.HasField(name) and getattr(request, name) < 1:
            raise InvalidInput(f"{name} must be at least 1", name)
    return RankAsk(
        spec.id,
        query,
        read_items(request.documents, "documents", service.max_inputs),
        request.top_n or None,
        _scoring(request.scoring),
        request.instruction or None,
        request.truncate,
        request.max_doc_length or None,
        request.max_pixels or None,
        request.return_embeddings,
    )


def _scoring(name: str) -> Scoring | None:
    if not name:
        return None
    for known in SCORINGS:
        if name == known:
            return known
    raise InvalidInput(f"scoring must be one of {', '.join(SCORINGS)}", "scoring")


def _result(request: pb.RerankRequest, found: Ranking, place: int) -> pb.RerankResult:
    result = pb.RerankResult(index=place, relevance_score=float(found.scores[place]))
    if request.return_documents:
        result.document.CopyFrom(request.documents[place])
    if found.vectors is not None:
        result.embedding.CopyFrom(write_vector(found.vectors[place]))
    return result


def _labels(request: pb.ClassifyRequest) -> tuple[str, ...]:
    noted = Fields({}, {})
    if not 1 <= len(request.labels) <= _MOST_LABELS:
        noted.problem("labels", f"must have 1 to {_MOST_LABELS} labels", "length")
    for index, label in enumerate(request.labels):
        if not label:
            noted.problem(f"labels.{index}", "must not be empty", "too_short")
    noted.check()
    return tuple(request.labels)
