"""vLLM's paths that embed: `/pooling`, `/score`, `/rerank`, `/tokenize`, and chats to embed.

Its server has one model; here it is the configuration's first where a body names none.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import orjson

from serving.api.dialects._vllm import (
    VllmMessagesRequest,
    VllmPoolingRequest,
    VllmPoolingResponse,
    VllmRerankRequest,
    VllmRerankResponse,
    VllmScoreRequest,
    VllmScoreResponse,
    VllmTokenizeRequest,
    VllmTokens,
)
from serving.api.embedding import check_whole, cuts, embed, with_model
from serving.api.exchange import Reply
from serving.api.fields import Fields, ranked
from serving.api.inputs import read_inputs
from serving.api.models import find
from serving.api.replies import reply
from serving.api.reranking import (
    Wanted,
    rank_as_wanted,
    read_ranking,
    results,
    usage_value,
)
from serving.api.routes import Route, Sent
from serving.api.schemas import EmbeddingsResponse
from serving.api.vectors import array, arrays, rows, write_list
from serving.calls import Call
from serving.models.spec import ModelSpec
from serving.ranking import Ranking
from serving.service import Service
from serving.values import Answer, Ask, Output, Stages, Text

__all__ = ["ROUTES"]

_TAG = "vLLM"

_QUERIES, _DOCUMENTS = ("queries", "text_1", "data_1"), ("documents", "items", "text_2", "data_2")
_CUT, _WHOLE = "truncate_prompt_tokens", "add_special_tokens"
_NAMES = ("model", "dimensions", "encoding_format", _CUT)
_RANKS = ranked(
    {name: (name,) for name in (*_NAMES, "task")}
    | {"input": ("input", "messages"), "normalized": ("use_activation",)}
)
_SCORING = ranked({"model": ("model",), "query": _QUERIES, "documents": _DOCUMENTS, _CUT: (_CUT,)})
_RERANKING = ranked({name: (name,) for name in ("model", "query", "documents", "top_n", _CUT)})
_TOKENIZING = ranked({name: (name,) for name in ("model", "prompt", "return_token_strs", _WHOLE)})
_TYPES = ("float", "base64")
_TASKS = ("embed", "token_embed")


def _read(fields: Fields, sent: Sent, service: Service) -> tuple[ModelSpec, Ask, str]:
    """The model, what is asked of it, and `float` or `base64`."""
    name, value = fields.first("input")
    if name == "messages":
        value = _conversations(value)
    model = fields.needed_name("model")
    items = read_inputs(fields, name, value, service.max_inputs, sent.token_ids)
    number = fields.choice("encoding_format", _TYPES, "float")
    output = Output(fields.integer("dimensions", 1), fields.flag("normalized", True))
    most = fields.integer(_CUT, -1)
    fields.check()
    spec = find(service.catalog, model)
    return spec, Ask(spec.id, items, output=output, truncate=cuts(spec, most), field=name), number


def _conversations(messages: object) -> object:
    """Each chat as one input of all its messages' parts."""
    if type(messages) is not list or not messages:
        return messages
    if type(messages[0]) is not list:
        messages = [messages]
    return [{"content": _parts(chat)} if type(chat) is list else chat for chat in messages]


def _parts(chat: list[object]) -> list[object]:
    found: list[object] = []
    for message in chat:
        content = message.get("content") if type(message) is dict else None
        found += content if type(content) is list else [content]
    return found


async def _embed_chats(service: Service, call: Call, sent: Sent) -> Reply:
    fields = Fields(with_model(service, sent.body), _RANKS)
    spec, ask, number = _read(fields, sent, service)
    _, answer = await embed(service, call, ask, fields.refusals)
    began = time.perf_counter()
    written = await write_list(spec.id, answer, (number,))
    return Reply(written, answer.stages, time.perf_counter() - began)


async def _pool(service: Service, call: Call, sent: Sent) -> Reply:
    fields = Fields(with_model(service, sent.body), _RANKS)
    task = fields.choice("task", _TASKS, "")
    spec, ask, number = _read(fields, sent, service)
    if task == "token_embed" or (not task and spec.multi is not None):
        ask = replace(ask, output=replace(ask.output, dense=False, multi=True))
    _, answer = await embed(service, call, ask, fields.refusals)
    began = time.perf_counter()
    entries = [
        b'{"object":"pooling","index":%d,"data":%b}' % entry
        for entry in enumerate(await _pooled(answer, number))
    ]
    written = b'{"id":%b,"object":"list","model":%b,"data":%b,"usage":%b}' % (
        orjson.dumps(f"pool-{call.id}"),
        orjson.dumps(spec.id),
        await array(entries),
        orjson.dumps(usage_value(answer.usage)),
    )
    return Reply(written, answer.stages, time.perf_counter() - began)


async def _pooled(answer: Answer, number: str) -> Sequence[bytes]:
    if answer.multi is None:
        return await rows(answer.vectors, number)
    values, counts = answer.multi.values, answer.multi.counts
    if number == "float":
        return arrays(await rows(values), counts)
    matrices = np.split(values, np.cumsum(counts)[:-1])
    return [one for matrix in matrices for one in await rows(matrix.reshape(1, -1), number)]


async def _score(service: Service, call: Call, sent: Sent) -> Reply:
    body = dict(with_model(service, sent.body))
    for name in _QUERIES:
        value = body.get(name)
        if type(value) is list and len(value) == 1:
            body[name] = value[0]
    for name in _DOCUMENTS:
        if type(body.get(name)) in (str, dict):
            body[name] = [body[name]]
    spec, ranking, _ = await _rank(service, call, Fields(body, _SCORING))
    began = time.perf_counter()
    value = {
        "id": f"score-{call.id}",
        "object": "list",
        "model": spec.id,
        "data": [
            {"object": "score", "index": index, "score": score}
            for index, score in enumerate(ranking.scores.tolist())
        ],
        "usage": usage_value(ranking.usage),
    }
    return await reply(call, value, ranking.stages, began)


async def _rerank(service: Service, call: Call, sent: Sent) -> Reply:
    asked = with_model(service, sent.body)
    body = {name: value for name, value in asked.items() if (name, value) != ("top_n", 0)}
    spec, ranking, wanted = await _rank(service, call, Fields(body, _RERANKING))
    began = time.perf_counter()
    value = {
        "id": f"rerank-{call.id}",
        "model": spec.id,
        "usage": usage_value(ranking.usage),
        "results": results(wanted, ranking),
    }
    return await reply(call, value, ranking.stages, began)


async def _rank(service: Service, call: Call, fields: Fields) -> tuple[ModelSpec, Ranking, Wanted]:
    most = fields.integer(_CUT, -1)
    wanted = read_ranking(fields, service.max_inputs)
    truncate = cuts(find(service.catalog, wanted.ask.model), most)
    wanted = replace(wanted, ask=replace(wanted.ask, truncate=truncate))
    return *await rank_as_wanted(service, call, wanted), wanted


async def _tokenize(service: Service, call: Call, sent: Sent) -> Reply:
    fields = Fields(with_model(service, sent.body), _TOKENIZING)
    check_whole(fields)
    prompt = fields.first("prompt")[1]
    if type(prompt) is not str:
        fields.problem("prompt", "must be a string", "string_type", prompt)
    told = fields.flag("return_token_strs", False)
    model = fields.needed_name("model")
    fields.check()
    spec = find(service.catalog, model)
    ask = Ask(spec.id, (Text(str(prompt)),), output=Output(tokens=told), field="prompt")
    prepared = await service.prepare(call, ask)
    value = {
        "count": len(prepared.ids),
        "max_model_len": spec.max_tokens,
        "tokens": prepared.ids.tolist(),
        "token_strs": None if prepared.tokens is None else prepared.tokens[0],
    }
    return await reply(call, value, Stages(), time.perf_counter())


_MODEL = "all-MiniLM-L6-v2"
_TEXTS = ["Bread is baked from flour and water.", "Berlin is a city."]
_CHATS: dict[str, dict[str, object]] = {
    "vLLM, chats": {
        "model": "jina-embeddings-v4",
        "messages": [
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                        {"type": "text", "text": "A chart of sales"},
                    ],
                }
            ]
        ],
    },
}
_POOLING: dict[str, dict[str, object]] = {"vLLM": {"model": _MODEL, "input": _TEXTS}}
_SCORES: dict[str, dict[str, object]] = {
    "vLLM": {"model": _MODEL, "queries": "How is bread made?", "documents": _TEXTS}
}
_RANKS_EXAMPLE: dict[str, dict[str, object]] = {
    "vLLM": {"model": _MODEL, "query": "How is bread made?", "documents": _TEXTS}
}
_TOKENS: dict[str, dict[str, object]] = {
    "vLLM": {"model": _MODEL, "prompt": "Hello", "return_token_strs": True}
}


def _scores(path: str, name: str) -> Route:
    summary = "Score texts by another, as vLLM does"
    return Route(
        "POST", path, _score, name, summary, VllmScoreRequest, VllmScoreResponse, _SCORES, tag=_TAG
    )


ROUTES = (
    Route(
        "POST",
        "/v1/embeddings",
        _embed_chats,
        "vllm_embeddings",
        "Embed chats, as vLLM does",
        VllmMessagesRequest,
        EmbeddingsResponse,
        _CHATS,
        claims=lambda body: body.get("messages") is not None,
        tag=_TAG,
    ),
    Route(
        "POST",
        "/pooling",
        _pool,
        "vllm_pooling",
        "What the pooler gives, as vLLM does",
        VllmPoolingRequest,
        VllmPoolingResponse,
        _POOLING,
        tag=_TAG,
    ),
    _scores("/score", "vllm_score"),
    _scores("/v1/score", "vllm_score_v1"),
    Route(
        "POST",
        "/rerank",
        _rerank,
        "vllm_rerank",
        "Rank documents, as vLLM does",
        VllmRerankRequest,
        VllmRerankResponse,
        _RANKS_EXAMPLE,
        tag=_TAG,
    ),
    Route(
        "POST",
        "/tokenize",
        _tokenize,
        "vllm_tokenize",
        "The tokens of a text",
        VllmTokenizeRequest,
        VllmTokens,
        _TOKENS,
        tag=_TAG,
    ),
)
