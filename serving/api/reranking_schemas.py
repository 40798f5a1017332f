"""The wire of reranking and classification as pydantic models: they describe, and parse nothing."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from serving.api.schemas import (
    BytesInput,
    FusedInput,
    ImageInput,
    ImageUrlInput,
    TextInput,
    UrlInput,
    Usage,
)

__all__ = [
    "Classification",
    "ClassifyRequest",
    "ClassifyResponse",
    "LabelScore",
    "RankedDocument",
    "RerankRequest",
    "RerankResponse",
]

One: TypeAlias = str | TextInput | ImageInput | UrlInput | BytesInput | ImageUrlInput
Document: TypeAlias = One | FusedInput
Whole: TypeAlias = int | str


class RerankRequest(BaseModel):
    """Jina's request, with the names of Cohere's and Voyage's fields.

    Every optional field may be null; fields that are not named here are ignored.
    """

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})

    model: str = Field(
        description="A reranker, or a model that embeds; see `GET /v1/models`.", min_length=1
    )
    query: One
    documents: list[Document] = Field(min_length=1)
    top_n: Whole | None = Field(None, description="How many results at most. Default: all.")
    top_k: Whole | None = Field(
        None, description="Voyage's name of `top_n`; the results are then under `data` too."
    )
    return_documents: bool | None = Field(
        None, description="Whether to give `document` in every result. Default true."
    )
    return_embeddings: bool | None = Field(
        None, description="Whether to give `embedding`, of unit length, where there is one."
    )
    truncation: bool | None = Field(
        None, description="Whether to cut what is too long instead of refusing it. Default false."
    )
    truncate: bool | None = Field(None, description="Another name of `truncation`.")
    max_doc_length: Whole | None = Field(
        None, description="Tokens of a document at most; the rest is cut off, always."
    )
    max_tokens_per_doc: Whole | None = Field(None, description="Cohere's name of `max_doc_length`.")
    scoring: Literal["cosine", "maxsim"] | None = Field(
        None,
        description="How a model that embeds compares: by its vectors (the default), or by its "
        "multi-vectors, token by token (late interaction). Not for rerankers.",
    )
    instruction: str | None = Field(
        None, description="What makes a document relevant, for rerankers that take instructions."
    )
    max_pixels: Whole | None = Field(
        None, description="Pixels of an image at most, up to the model's own `max_pixels`."
    )


class RankedDocument(BaseModel):
    """One document and how relevant it is."""

    index: int = Field(description="Its place among the documents of the request.")
    relevance_score: float = Field(
        description="From 0 to 1 for a reranker; a cosine, or a mean of cosines, else."
    )
    document: TextInput | ImageInput | FusedInput | None = Field(
        None, description="An object also where a string was sent."
    )
    embedding: list[float] | None = None


class RerankResponse(BaseModel):
    """Documents, the most relevant first."""

    object: Literal["list"]
    model: str = Field(description="The model's id, also where an alias was asked for.")
    usage: Usage
    results: list[RankedDocument]
    data: list[RankedDocument] | None = Field(
        None, description="The same, where `top_k` was sent: Voyage's clients read it."
    )


class ClassifyRequest(BaseModel):
    """Zero-shot classification by the embeddings of inputs and labels.

    Fields that are not named here are ignored.
    """

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})

    model: str = Field(description="A model that embeds; see `GET /v1/models`.", min_length=1)
    input: Document | list[Document]
    labels: list[str] | dict[str, list[str]] = Field(
        description="Up to 512 labels, or up to 8 groups of up to 64 each, by name."
    )
    truncation: bool | None = Field(
        None, description="Whether to cut what is too long instead of refusing it. Default false."
    )
    truncate: bool | None = Field(None, description="Another name of `truncation`.")


class LabelScore(BaseModel):
    """A label and its share."""

    label: str
    score: float


class Classification(BaseModel):
    """The label that fits an input best, and all of them; by group where the labels are."""

    object: Literal["classification"]
    index: int
    prediction: str | dict[str, str]
    score: float | dict[str, float]
    predictions: list[LabelScore] | dict[str, list[LabelScore]] = Field(
        description="In the order of the labels; the softmax of cosines, which adds up to 1."
    )


class ClassifyResponse(BaseModel):
    """Classes in the order of the inputs."""

    usage: Usage
    data: list[Classification]
