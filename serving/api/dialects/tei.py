"""text-embeddings-inference: `/embed` and its kin, `/rerank`, `/tokenize`, `/info` and `POST /`.

Its server has one model; here it is the configuration's first where a body names none.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from serving import __version__
from serving.api.dialects._tei import (
    TeiEmbedRequest,
    TeiInfo,
    TeiRank,
    TeiRequest,
    TeiRerankRequest,
    TeiToken,
    TeiTokenizeRequest,
    TeiWeight,
)
from serving.api.embedding import check_whole, embed, with_model
from serving.api.exchange import Reply
from serving.api.fields import Fields, ranked, refuse
from serving.api.inputs import read_inputs
from serving.api.models import find
from serving.api.replies import reply
from serving.api.reranking import rank_as_wanted, read_ranking
from serving.api.routes import Body, Route, Sent
from serving.api.vectors import array, arrays, rows
from serving.calls import Call
from serving.errors import InvalidInput
from serving.models.spec import ModelSpec
from serving.service import Service
from serving.values import Answer, Ask, Output, Prepared, Stages

__all__ = ["ROUTES"]

_TAG = "text-embeddings-inference"

_NAMES = ("model", "inputs", "prompt_name", "truncate", "truncation_direction", "normalize")
_RANKS = ranked({name: (name,) for name in (*_NAMES, "dimensions", "add_special_tokens")})
_RERANKING = ranked(
    {
        "model": ("model",),
        "query": ("query",),
        "documents": ("texts",),
        "truncate": ("truncate",),
        "truncation_direction": ("truncation_direction",),
        "raw_scores": ("raw_scores",),
        "echo": ("return_text",),
    }
)
_WORDS = {"task": "prompt_name", "documents": "texts"}
_ONCE = Stages()


def _read(fields: Fields, sent: Sent, most: int) -> Ask:
    """What is asked for, of a model that is as the caller has it."""
    model = fields.needed_name("model")
    name, value = fields.first("inputs")
    items = read_inputs(fields, name, value, most, sent.token_ids)
    _check_direction(fields)
    ask = Ask(
        model,
        items,
        fields.name("prompt_name"),
        output=Output(fields.integer("dimensions", 1), fields.flag("normalize", True)),
        truncate=fields.flag("truncate", False),
        field="inputs",
    )
    fields.check()
    return ask


def _check_direction(fields: Fields) -> None:
    name, value = fields.first("truncation_direction")
    if value is not None and str(value).lower() != "right":
        fields.problem(name, "may be right; no model is cut on the left", "enum", value)


async def _embed(service: Service, call: Call, sent: Sent) -> Reply:
    answer = await _answer(service, call, sent)
    began = time.perf_counter()
    return await _reply(answer, await rows(answer.vectors), began)


async def _embed_all(service: Service, call: Call, sent: Sent) -> Reply:
    answer = await _answer(service, call, sent, multi=True)
    began = time.perf_counter()
    assert answer.multi is not None  # asked for
    entries = arrays(await rows(answer.multi.values), answer.multi.counts)
    return await _reply(answer, entries, began)


async def _embed_sparse(service: Service, call: Call, sent: Sent) -> Reply:
    answer = await _answer(service, call, sent, sparse=True)
    began = time.perf_counter()
    assert answer.sparse is not None  # asked for
    pairs = zip(answer.sparse.ids.tolist(), answer.sparse.weights.tolist(), strict=True)
    weights = [b'{"index":%d,"value":%.9g}' % pair for pair in pairs]
    return await _reply(answer, arrays(weights, answer.sparse.counts), began)


async def _answer(
    service: Service, call: Call, sent: Sent, multi: bool = False, sparse: bool = False
) -> Answer:
    fields = Fields(with_model(service, sent.body), _RANKS)
    ask = _read(fields, sent, service.max_inputs)
    spec = find(service.catalog, ask.model)
    if (multi and spec.multi is None) or (sparse and spec.sparse is None):
        raise InvalidInput(f"{spec.id} gives one vector per input: ask /embed for it", "model")
    if multi or sparse:
        ask = replace(ask, output=Output(dense=False, multi=multi, sparse=sparse))
    _, answer = await embed(service, call, ask, fields.refusals)
    return answer


async def _reply(answer: Answer, entries: Sequence[bytes], began: float) -> Reply:
    return Reply(await array(entries), answer.stages, time.perf_counter() - began)


async def _rerank(service: Service, call: Call, sent: Sent) -> Reply:
    fields = Fields(with_model(service, sent.body), _RERANKING)
    _check_direction(fields)
    raw, echo = fields.flag("raw_scores", False), fields.flag("echo", False)
    wanted = read_ranking(fields, service.max_inputs)
    _, ranking = await rank_as_wanted(service, call, wanted)
    began = time.perf_counter()
    scores, documents = ranking.raw if raw else ranking.scores, wanted.ask.documents
    value = [
        {"index": index, "score": float(scores[index])}
        | ({"text": getattr(documents[index], "text", "")} if echo else {})
        for index in ranking.order
    ]
    return await reply(call, value, ranking.stages, began)


def _is_ranking(body: Body) -> bool:
    return "texts" in body


def _is_inputs(body: Body) -> bool:
    return "inputs" in body


async def _tokenize(service: Service, call: Call, sent: Sent) -> Reply:
    fields = Fields(with_model(service, sent.body), _RANKS)
    check_whole(fields)
    ask = _read(fields, sent, service.max_inputs)
    spec = find(service.catalog, ask.model)
    refuse(fields.refusals, spec.id)
    ask = replace(ask, model=spec.id, output=Output(tokens=True))
    prepared = await service.prepare(call, ask)
    return await reply(call, _tokens(prepared), _ONCE, time.perf_counter())


def _tokens(prepared: Prepared) -> list[list[dict[str, object]]]:
    ids, start, found = prepared.ids.tolist(), 0, []
    for length, texts in zip(prepared.lengths.tolist(), prepared.tokens or (), strict=True):
        some = zip(ids[start : start + length], texts, strict=True)
        start += length
        found.append(
            [
                {"id": one, "text": text, "special": one in prepared.special}
                | {"start": None, "stop": None}
                for one, text in some
            ]
        )
    return found


async def _info(service: Service, call: Call, sent: Sent) -> Reply:
    spec = service.catalog.specs[0]
    value = {
        "model_id": spec.source,
        "model_sha": spec.revision,
        "served_model_name": spec.id,
        "model_type": _kind(spec),
        "max_input_length": spec.max_tokens,
        "max_client_batch_size": service.max_inputs,
        "auto_truncate": False,
        "version": __version__,
    }
    return await reply(call, value, _ONCE, time.perf_counter())


def _kind(spec: ModelSpec) -> dict[str, dict[str, str]]:
    if spec.reranker is not None:
        return {"reranker": {}}
    return {"embedding": {"pooling": spec.pooling.modes[0]}}


_TEXTS = ["Organic skincare for sensitive skin", "Bread is baked from flour and water."]
_EMBEDDING: dict[str, dict[str, object]] = {"TEI": {"inputs": _TEXTS, "truncate": True}}
_ALL: dict[str, dict[str, object]] = {"TEI": {"model": "jina-embeddings-v4", "inputs": _TEXTS}}
_RANKING: dict[str, dict[str, object]] = {
    "TEI, ranking": {"query": "How is bread made?", "texts": _TEXTS, "return_text": True}
}
_COUNTING: dict[str, dict[str, object]] = {"TEI": {"inputs": "Hello"}}


def _embeds(path: str, name: str) -> Route:
    return Route(
        "POST",
        path,
        _embed,
        name,
        "Embed, as text-embeddings-inference does",
        TeiEmbedRequest,
        list[list[float]],
        _EMBEDDING,
        words=_WORDS,
        tag=_TAG,
    )


def _ranks(path: str, name: str) -> Route:
    return Route(
        "POST",
        path,
        _rerank,
        name,
        "Rank texts, as text-embeddings-inference does",
        TeiRerankRequest,
        list[TeiRank],
        _RANKING,
        claims=_is_ranking,
        words=_WORDS,
        tag=_TAG,
    )


ROUTES = (
    _embeds("/embed", "tei_embed"),
    _embeds("/", "tei_predict"),
    _ranks("/", "tei_predict_ranks"),
    _ranks("/rerank", "tei_rerank"),
    Route(
        "POST",
        "/embed_all",
        _embed_all,
        "tei_embed_all",
        "A vector for every token, as text-embeddings-inference does",
        TeiRequest,
        list[list[list[float]]],
        _ALL,
        words=_WORDS,
        tag=_TAG,
    ),
    Route(
        "POST",
        "/embed_sparse",
        _embed_sparse,
        "tei_embed_sparse",
        "Sparse weights, as text-embeddings-inference does",
        TeiRequest,
        list[list[TeiWeight]],
        _ALL,
        words=_WORDS,
        tag=_TAG,
    ),
    Route(
        "POST",
        "/tokenize",
        _tokenize,
        "tei_tokenize",
        "The tokens of texts, as text-embeddings-inference does",
        TeiTokenizeRequest,
        list[list[TeiToken]],
        _COUNTING,
        claims=_is_inputs,
        words=_WORDS,
        tag=_TAG,
    ),
    Route(
        "GET",
        "/info",
        _info,
        "tei_info",
        "What the first model is",
        None,
        TeiInfo,
        errors=(401, 403, 408, 413, 422, 429, 500),
        tag=_TAG,
    ),
)
