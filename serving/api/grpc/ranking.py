"""`Rerank` and `Classify`: messages to what `serving.ranking` is asked, and its scores back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import serving.protos.embeddings_pb2 as pb
from serving import ranking
from serving.api.classifying import no_documents, read_labels
from serving.api.fields import Fields
from serving.api.grpc.reading import read_item, read_items
from serving.api.grpc.rpc import Said
from serving.api.grpc.writing import write_usage, write_vector
from serving.api.models import find
from serving.calls import Call
from serving.errors import InvalidInput
from serving.ranking import SCORINGS, ClassifyAsk, RankAsk, Ranking, Scoring
from serving.service import Service
from serving.values import Floats, Image, Item, Text

__all__ = ["classify", "rerank"]


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
    items = read_items(request.inputs, "inputs", service.max_inputs)
    ask = ClassifyAsk(spec.id, items, _labels(request, items), request.truncate)
    found = await ranking.classify(service, call, ask)
    began = time.perf_counter()
    data = [pb.Classification(index=index) for index in range(len(items))]
    for name, rows in found.scores.items():
        for one, row in zip(data, rows, strict=True):
            _predict(one if name is None else one.groups.add(name=name), ask.labels[name], row)
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


def _predict(
    said: pb.Classification | pb.GroupClassification, labels: Sequence[str], row: Floats
) -> None:
    best = int(row.argmax())
    said.prediction, said.score = labels[best], float(row[best])
    for label, score in zip(labels, row.tolist(), strict=True):
        said.predictions.add(label=label, score=score)


def _labels(
    request: pb.ClassifyRequest, items: Sequence[Item]
) -> Mapping[str | None, tuple[str, ...]]:
    noted = Fields({}, {})
    no_documents(noted, "inputs", items)
    groups = {group.name: list(group.labels) for group in request.groups}
    if groups and request.labels:
        noted.problem("groups", "cannot be given beside labels", "groups")
    elif len(groups) < len(request.groups):
        noted.problem("groups", "must not have a name twice", "groups")
    labels = (
        read_labels(noted, "groups", groups)
        if groups
        else read_labels(noted, "labels", list(request.labels))
    )
    noted.check()
    return labels
