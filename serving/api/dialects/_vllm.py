"""The wire of vLLM as pydantic models: they describe, and parse nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from serving.api.schemas import ImageUrlInput, Inputs, TextInput, Usage

__all__ = [
    "VllmMessage",
    "VllmMessagesRequest",
    "VllmPooled",
    "VllmPoolingRequest",
    "VllmPoolingResponse",
    "VllmRanked",
    "VllmRerankRequest",
    "VllmRerankResponse",
    "VllmScore",
    "VllmScoreRequest",
    "VllmScoreResponse",
    "VllmTokenizeRequest",
    "VllmTokens",
]


class _Request(BaseModel):
    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})

    truncate_prompt_tokens: int | str | None = Field(
        None, description="Whether to cut: -1 or at least the model's context."
    )


class VllmMessage(BaseModel):
    """One message of a chat; who speaks does not matter."""

    role: str | None = None
    content: str | list[TextInput | ImageUrlInput]


class VllmMessagesRequest(_Request):
    """vLLM's chats to embed: one, or a list of them, each of which becomes one vector."""

    model: str | None = Field(None, description="A model's id. Default: the first one.")
    messages: list[VllmMessage] | list[list[VllmMessage]] = Field(min_length=1)
    dimensions: int | str | None = None
    encoding_format: Literal["float", "base64"] | None = None


class VllmPoolingRequest(_Request):
    """vLLM's request of what its pooler gives, of `input` or of `messages`."""

    model: str | None = Field(None, description="A model's id. Default: the first one.")
    input: Inputs | None = None
    messages: list[VllmMessage] | None = Field(None, description="A chat, instead of `input`.")
    task: Literal["embed", "token_embed"] | None = Field(
        None, description="Default: token_embed for a model that has a vector for every token."
    )
    dimensions: int | str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    use_activation: bool | None = Field(None, description="Whether of unit length. Default true.")


class VllmPooled(BaseModel):
    """A vector, a vector for every token, or the base64 of either."""

    object: Literal["pooling"]
    index: int
    data: list[float] | list[list[float]] | str


class VllmPoolingResponse(BaseModel):
    """What was pooled, in the order of the inputs."""

    id: str
    object: Literal["list"]
    model: str
    data: list[VllmPooled]
    usage: Usage


class VllmScoreRequest(_Request):
    """One text and others to score it with, by any of the names that vLLM has for the two."""

    model: str | None = Field(None, description="A model's id. Default: the first one.")
    queries: str | list[str] | None = None
    text_1: str | list[str] | None = None
    data_1: str | list[str] | None = None
    documents: str | list[str] | None = None
    items: str | list[str] | None = None
    text_2: str | list[str] | None = None
    data_2: str | list[str] | None = None


class VllmScore(BaseModel):
    """How well one of the others fits."""

    object: Literal["score"]
    index: int
    score: float


class VllmScoreResponse(BaseModel):
    """Scores in the order given."""

    id: str
    object: Literal["list"]
    model: str
    data: list[VllmScore]
    usage: Usage


class VllmRerankRequest(_Request):
    """vLLM's request to rank. Fields that are not named here are ignored."""

    model: str | None = Field(None, description="A model's id. Default: the first one.")
    query: str | TextInput
    documents: list[str | TextInput] = Field(min_length=1)
    top_n: int | str | None = Field(None, description="0, the default, is all of them.")


class VllmRanked(BaseModel):
    """One result."""

    index: int
    document: dict[str, object]
    relevance_score: float


class VllmRerankResponse(BaseModel):
    """The documents, the most relevant first."""

    id: str
    model: str
    usage: Usage
    results: list[VllmRanked]


class VllmTokenizeRequest(BaseModel):
    """vLLM's request of a text's tokens."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})

    model: str | None = Field(None, description="A model's id. Default: the first one.")
    prompt: str
    add_special_tokens: bool | None = Field(None, description="True, which is all there is.")
    return_token_strs: bool | None = Field(None, description="Whether to give their texts.")


class VllmTokens(BaseModel):
    """The tokens that the model sees of a text."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None
