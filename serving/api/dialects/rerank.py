"""Jina's `POST /v1/rerank`, which Voyage's clients use too, and `POST /v1/classify`."""

from __future__ import annotations

import time
from dataclasses import replace

from serving.api import classifying, reranking
from serving.api.classifying import entries, read_classes
from serving.api.exchange import Reply
from serving.api.fields import Fields, ranked, refuse
from serving.api.models import find
from serving.api.replies import reply
from serving.api.reranking import rank_as_wanted, read_ranking, results, usage_value
from serving.api.reranking_schemas import (
    ClassifyRequest,
    ClassifyResponse,
    RerankRequest,
    RerankResponse,
)
from serving.api.routes import Route, Sent
from serving.calls import Call
from serving.ranking import classify
from serving.service import Service

__all__ = ["ROUTES"]

_RANKS = ranked(reranking.NAMES)
_CLASSES = ranked(classifying.NAMES)

_DOCUMENTS = [
    "Berlin has a population of 3.5 million people.",
    "Bread is baked from flour and water.",
    "The capital of Germany is Berlin.",
]
_RERANKING: dict[str, dict[str, object]] = {
    "Jina": {
        "model": "all-MiniLM-L6-v2",
        "query": "How many people live in Berlin?",
        "documents": _DOCUMENTS,
        "top_n": 2,
    },
    "Reranker": {
        "model": "Qwen3-Reranker-0.6B",
        "query": "How many people live in Berlin?",
        "documents": [{"text": text} for text in _DOCUMENTS],
        "return_documents": False,
    },
    "Late interaction": {
        "model": "jina-embeddings-v4",
        "query": "sales in the third quarter",
        "documents": [{"image": "https://example.com/chart.png"}, "A chart of sales"],
        "scoring": "maxsim",
    },
}
_CLASSIFYING: dict[str, dict[str, object]] = {
    "Labels": {
        "model": "all-MiniLM-L6-v2",
        "input": ["The food was delicious.", "The train was an hour late."],
        "labels": ["restaurants", "travel"],
    },
    "Groups": {
        "model": "all-MiniLM-L6-v2",
        "input": "The food was delicious.",
        "labels": {"topic": ["restaurants", "travel"], "mood": ["praise", "complaint"]},
    },
}


async def _rerank(service: Service, call: Call, sent: Sent) -> Reply:
    wanted = read_ranking(Fields(sent.body, _RANKS), service.max_inputs)
    spec, ranking = await rank_as_wanted(service, call, wanted)
    began = time.perf_counter()
    value: dict[str, object] = {
        "model": spec.id,
        "object": "list",
        "usage": usage_value(ranking.usage),
        "results": results(wanted, ranking),
    }
    if "top_k" in sent.body:
        value["data"] = value["results"]
    return await reply(call, value, ranking.stages, began)


async def _classify(service: Service, call: Call, sent: Sent) -> Reply:
    wanted = read_classes(Fields(sent.body, _CLASSES), service.max_inputs)
    spec = find(service.catalog, wanted.ask.model)
    refuse(wanted.refusals, spec.id)
    classes = await classify(service, call, replace(wanted.ask, model=spec.id))
    began = time.perf_counter()
    value: dict[str, object] = {
        "usage": usage_value(classes.usage),
        "data": entries(wanted.ask, classes),
    }
    return await reply(call, value, classes.stages, began)


ROUTES = (
    Route(
        "POST",
        "/v1/rerank",
        _rerank,
        "rerank",
        "Rank documents by a query",
        RerankRequest,
        RerankResponse,
        _RERANKING,
    ),
    Route(
        "POST",
        "/v1/classify",
        _classify,
        "classify",
        "Classify by labels, zero-shot",
        ClassifyRequest,
        ClassifyResponse,
        _CLASSIFYING,
    ),
)
