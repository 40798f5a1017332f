"""Cohere's `POST /v2/embed`, vectors by number type, and `POST /v2/rerank`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field

from serving.api import reranking
from serving.api.embedding import embed
from serving.api.exchange import Reply
from serving.api.fields import Fields, ranked
from serving.api.inputs import read_inputs
from serving.api.replies import reply
from serving.api.reranking import rank_as_wanted, read_ranking
from serving.api.routes import Route, Sent
from serving.api.schemas import ImageUrlInput, TextInput
from serving.api.vectors import WIRE_TYPES, array, rows
from serving.calls import Call
from serving.service import Service
from serving.values import Answer, Ask, Image, Item, Output, Text, Usage, parts_of

__all__ = [
    "ROUTES",
    "CohereContent",
    "CohereEmbedRequest",
    "CohereEmbedResponse",
    "CohereMeta",
    "CohereRankedDocument",
    "CohereRerankRequest",
    "CohereRerankResponse",
    "CohereUnits",
]

_TAG = "Cohere"

_INPUTS = ("texts", "images", "inputs")
_NAMES = ("model", *_INPUTS, "input_type", "embedding_types", "output_dimension", "max_tokens")
_RANKS = ranked({name: (name,) for name in (*_NAMES, "truncate")})
_RERANKING = ranked(
    {
        "model": ("model",),
        "query": ("query",),
        "documents": ("documents",),
        "top_n": ("top_n",),
        "document_tokens": ("max_tokens_per_doc",),
        "echo": ("return_documents",),  # false where Jina's is true
    }
)
_CUTS = ("END", "NONE", "START")

InputType: TypeAlias = Literal[
    "search_document", "search_query", "classification", "clustering", "image"
]


class CohereContent(BaseModel):
    """One input of several parts, which become one vector together."""

    content: list[TextInput | ImageUrlInput] = Field(min_length=1)


class CohereEmbedRequest(BaseModel):
    """Cohere's v2 request: exactly one of `texts`, `images` and `inputs`.

    Every other optional field may be null; fields that are not named here are ignored.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "additionalProperties": True,
            "oneOf": [
                {"required": [name], "properties": {name: {"type": "array"}}} for name in _INPUTS
            ],
        }
    )

    model: str = Field(min_length=1)
    texts: list[str] | None = None
    images: list[str] | None = Field(None, description="Data URIs, base64 or https addresses.")
    inputs: list[CohereContent] | None = None
    input_type: InputType | None = Field(None, description="What the vectors are for.")
    embedding_types: list[str] | None = Field(
        None, description=f"Some of {', '.join(WIRE_TYPES)}; default float."
    )
    output_dimension: int | str | None = None
    max_tokens: int | str | None = Field(None, description="Every text is cut to so many.")
    truncate: Literal["END", "NONE", "START"] | None = Field(
        None, description="Whether to cut what is too long. Default END; START is not served."
    )


class CohereUnits(BaseModel):
    """What is billed."""

    input_tokens: int | None = None
    image_tokens: int | None = None
    images: int | None = None
    search_units: int | None = None


class CohereMeta(BaseModel):
    """The version of the dialect, and what is billed."""

    api_version: dict[str, str]
    billed_units: CohereUnits


class CohereEmbedResponse(BaseModel):
    """Vectors by number type, each in the order of the inputs."""

    id: str
    embeddings: dict[str, list[list[float] | str]]
    texts: list[str]
    meta: CohereMeta
    response_type: Literal["embeddings_by_type"]


class CohereRerankRequest(BaseModel):
    """Cohere's v2 request. Fields that are not named here are ignored."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})

    model: str = Field(min_length=1)
    query: str
    documents: list[str | TextInput] = Field(min_length=1)
    top_n: int | str | None = None
    return_documents: bool | None = Field(None, description="Default false.")
    max_tokens_per_doc: int | str | None = None


class CohereRankedDocument(BaseModel):
    """One result; the document where it was asked for."""

    index: int
    relevance_score: float
    document: dict[str, object] | None = None


class CohereRerankResponse(BaseModel):
    """The documents, the most relevant first."""

    id: str
    results: list[CohereRankedDocument]
    meta: CohereMeta


def _read(fields: Fields, most: int) -> tuple[Ask, tuple[str, ...]]:
    """What is asked for, of a model that is as the caller has it, and the types of the answer."""
    model = fields.needed_name("model")
    field, items = _items(fields, most)
    types = fields.choices("embedding_types", WIRE_TYPES, ("float",))
    cut = fields.choice("truncate", _CUTS, "END")
    if cut == "START":
        fields.problem("truncate", "may be END or NONE; no model is cut at the start", "enum", cut)
    ask = Ask(
        model,
        items,
        role=fields.name("input_type"),
        output=Output(fields.integer("output_dimension", 1)),
        truncate=cut != "NONE",
        document_tokens=fields.integer("max_tokens", 1),
        field=field,
    )
    fields.check()
    return ask, types


def _items(fields: Fields, most: int) -> tuple[str, tuple[Item, ...]]:
    """Which of the three lists is given, and what is in it."""
    given = [name for name in _INPUTS if name in fields.present]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        message = f"(or else images or inputs) must be given, and only one of them; given: {found}"
        fields.problem("texts", message, "missing")
        return "texts", ()
    [field] = given
    _, value = fields.first(field)
    if type(value) is not list:
        fields.problem(field, "must be a list", "list_type", value)
        return field, ()
    items = read_inputs(fields, field, value, most)
    if field == "images":  # base64 without a data URI is no text here
        return field, tuple(Image(one.text) if isinstance(one, Text) else one for one in items)
    return field, items


async def _embed(service: Service, call: Call, sent: Sent) -> Reply:
    fields = Fields(sent.body, _RANKS)
    ask, types = _read(fields, service.max_inputs)
    _, answer = await embed(service, call, ask, fields.refusals)
    began = time.perf_counter()
    written = await _written(call, ask.items, answer, types)
    return Reply(written, answer.stages, time.perf_counter() - began)


async def _written(
    call: Call, items: Sequence[Item], answer: Answer, types: Sequence[str]
) -> bytes:
    columns = [
        b'"%b":%b' % (name.encode(), await array(await rows(answer.vectors, name)))
        for name in types
    ]
    texts = [item.text for item in items if isinstance(item, Text)]
    images = sum(isinstance(part, Image) for item in items for part in parts_of(item))
    return b'{"id":%b,"embeddings":{%b},"texts":%b,"meta":%b,"response_type":%b}' % (
        orjson.dumps(call.id),
        b",".join(columns),
        orjson.dumps(texts),
        orjson.dumps(_meta(answer.usage, images)),
        b'"embeddings_by_type"',
    )


def _meta(usage: Usage, images: int) -> dict[str, object]:
    units = {"input_tokens": usage.text_tokens}
    if images:
        units |= {"image_tokens": usage.image_tokens, "images": images}
    return {"api_version": {"version": "2"}, "billed_units": units}


async def _rerank(service: Service, call: Call, sent: Sent) -> Reply:
    fields = Fields(sent.body, _RERANKING)
    echo = fields.flag("echo", False)
    wanted = replace(read_ranking(fields, service.max_inputs), return_documents=echo)
    _, ranking = await rank_as_wanted(service, call, wanted)
    began = time.perf_counter()
    results = reranking.results(wanted, ranking)
    meta = _meta(ranking.usage, call.images)
    value = {"id": call.id, "results": results, "meta": meta}
    return await reply(call, value, ranking.stages, began)


_EMBEDDING: dict[str, dict[str, object]] = {
    "Cohere": {
        "model": "all-MiniLM-L6-v2",
        "texts": ["Organic skincare for sensitive skin"],
        "input_type": "search_document",
        "embedding_types": ["float", "ubinary"],
    },
    "Cohere, images": {
        "model": "jina-embeddings-v4",
        "inputs": [
            {
                "content": [
                    {"type": "text", "text": "A chart of sales"},
                    {"type": "image_url", "image_url": {"url": "https://example.com/chart.png"}},
                ]
            }
        ],
        "input_type": "search_document",
    },
}
_RANKING: dict[str, dict[str, object]] = {
    "Cohere": {
        "model": "all-MiniLM-L6-v2",
        "query": "How many people live in Berlin?",
        "documents": ["Berlin has a population of 3.5 million people.", "Bread is baked."],
        "top_n": 1,
    },
}

ROUTES = (
    Route(
        "POST",
        "/v2/embed",
        _embed,
        "cohere_embed",
        "Embed, as Cohere's clients ask",
        CohereEmbedRequest,
        CohereEmbedResponse,
        _EMBEDDING,
        words={"dimensions": "output_dimension"},
        tag=_TAG,
    ),
    Route(
        "POST",
        "/v2/rerank",
        _rerank,
        "cohere_rerank",
        "Rank documents, as Cohere's clients ask",
        CohereRerankRequest,
        CohereRerankResponse,
        _RANKING,
        tag=_TAG,
    ),
)
