"""Voyage's `POST /v1/embeddings`, known by its `output_dtype`, and `/v1/multimodalembeddings`.

Its `/v1/rerank` is Jina's, which knows Voyage's `top_k`.
"""

from __future__ import annotations

import time
from typing import Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field

from serving.api.embedding import embed
from serving.api.exchange import Reply
from serving.api.fields import Fields, ranked
from serving.api.inputs import read_inputs
from serving.api.routes import Body, Route, Sent
from serving.api.schemas import EmbeddingsResponse, ImageUrlInput, TextInput
from serving.api.vectors import PACKED, write_list
from serving.calls import Call
from serving.models.spec import ModelSpec
from serving.service import Service
from serving.values import Ask, Output, Usage

__all__ = [
    "ROUTES",
    "VoyageContent",
    "VoyageImage",
    "VoyageMultimodalRequest",
    "VoyageMultimodalResponse",
    "VoyageRequest",
    "VoyageUsage",
]

_TAG = "Voyage"

# With these two, output_dtype is what no other dialect has: its SDK sends it always, if null.
_OWN = "output_dtype"
_NAMES = ("model", "input_type", "truncation", "output_dimension", "encoding_format", _OWN)
_RANKS = ranked({name: (name,) for name in (*_NAMES, "input")})
_MULTIMODAL = ranked({name: (name,) for name in (*_NAMES, "inputs")})
_WORDS = {"dimensions": "output_dimension"}

NumberType: TypeAlias = Literal["float", "int8", "uint8", "binary", "ubinary"]


class VoyageImage(BaseModel):
    """An image in base64, as a data URI."""

    type: Literal["image_base64"]
    image_base64: str


class VoyageContent(BaseModel):
    """One input of several parts, which become one vector together."""

    content: list[TextInput | ImageUrlInput | VoyageImage] = Field(min_length=1)


class _Common(BaseModel):
    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})

    model: str = Field(min_length=1)
    input_type: Literal["query", "document"] | None = None
    truncation: bool | None = Field(None, description="Whether to cut long texts. Default true.")
    output_dimension: int | str | None = None
    encoding_format: Literal["base64"] | None = Field(
        None, description="base64: the bytes of the numbers, of the type that `output_dtype` is."
    )


class VoyageRequest(_Common):
    """Voyage's request, known by its `output_dtype`, which may be null."""

    input: str | list[str]
    output_dtype: NumberType | None = Field(description="Default float.")


class VoyageMultimodalRequest(_Common):
    """Texts and images, mixed in each input as one likes."""

    inputs: list[VoyageContent] = Field(min_length=1)
    output_dtype: NumberType | None = Field(None, description="Default float.")


class VoyageUsage(BaseModel):
    """Tokens in all and of texts, and the pixels that the model saw."""

    text_tokens: int
    image_pixels: int
    video_pixels: int
    total_tokens: int


class VoyageMultimodalResponse(EmbeddingsResponse):
    """Vectors in the order of the inputs."""

    usage: VoyageUsage  # type: ignore[assignment]  # described only, never made


def _claims(body: Body) -> bool:
    return _OWN in body


def _read(fields: Fields, field: str, most: int) -> tuple[Ask, str]:
    """What is asked for, of a model that is as the caller has it, and the vectors' number type."""
    model = fields.needed_name("model")
    name, value = fields.first(field)
    items = read_inputs(fields, name, value, most)
    number = fields.choice(_OWN, tuple(PACKED), "float")
    if fields.choice("encoding_format", ("base64",), "") == "base64":
        number = PACKED[number]
    output = Output(fields.integer("output_dimension", 1))
    truncate = fields.flag("truncation", True)
    role = fields.name("input_type")
    fields.check()
    return Ask(model, items, None, role, output, truncate, field=field), number


async def _embed(service: Service, call: Call, sent: Sent) -> Reply:
    fields = Fields(sent.body, _RANKS)
    ask, number = _read(fields, "input", service.max_inputs)
    spec, answer = await embed(service, call, ask, fields.refusals)
    began = time.perf_counter()
    written = await write_list(spec.id, answer, (number,))
    return Reply(written, answer.stages, time.perf_counter() - began)


async def _embed_mixed(service: Service, call: Call, sent: Sent) -> Reply:
    fields = Fields(sent.body, _MULTIMODAL)
    ask, number = _read(fields, "inputs", service.max_inputs)
    spec, answer = await embed(service, call, ask, fields.refusals)
    began = time.perf_counter()
    usage = orjson.dumps(_usage(spec, answer.usage))
    written = await write_list(spec.id, answer, (number,), usage)
    return Reply(written, answer.stages, time.perf_counter() - began)


def _usage(spec: ModelSpec, usage: Usage) -> dict[str, int]:
    """A token of an image is a square of pixels, of the image as the model saw it."""
    vision, pixels = spec.vision, 0
    if vision is not None:
        tokens = usage.image_tokens // vision.token_multiplier
        pixels = tokens * (vision.patch * vision.merge) ** 2
    return {
        "text_tokens": usage.text_tokens,
        "image_pixels": pixels,
        "video_pixels": 0,
        "total_tokens": usage.total_tokens,
    }


_EMBEDDING: dict[str, dict[str, object]] = {
    "Voyage": {
        "model": "all-MiniLM-L6-v2",
        "input": ["Organic skincare for sensitive skin"],
        "input_type": "document",
        "output_dtype": "int8",
        "encoding_format": "base64",
    },
}
_MIXED: dict[str, dict[str, object]] = {
    "Voyage": {
        "model": "jina-embeddings-v4",
        "inputs": [
            {
                "content": [
                    {"type": "text", "text": "A chart of sales"},
                    {"type": "image_url", "image_url": "https://example.com/chart.png"},
                ]
            }
        ],
    },
}

ROUTES = (
    Route(
        "POST",
        "/v1/embeddings",
        _embed,
        "voyage_embeddings",
        "Embed, as Voyage's clients ask",
        VoyageRequest,
        EmbeddingsResponse,
        _EMBEDDING,
        claims=_claims,
        words=_WORDS,
        tag=_TAG,
    ),
    Route(
        "POST",
        "/v1/multimodalembeddings",
        _embed_mixed,
        "voyage_multimodal_embeddings",
        "Embed texts with images, as Voyage's clients ask",
        VoyageMultimodalRequest,
        VoyageMultimodalResponse,
        _MIXED,
        words=_WORDS,
        tag=_TAG,
    ),
)
