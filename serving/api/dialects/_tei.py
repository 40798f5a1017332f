"""The wire of text-embeddings-inference as pydantic models: they describe, and parse nothing."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from serving.api.schemas import Inputs

__all__ = [
    "TeiEmbedRequest",
    "TeiInfo",
    "TeiRank",
    "TeiRequest",
    "TeiRerankRequest",
    "TeiToken",
    "TeiTokenizeRequest",
    "TeiWeight",
]


class TeiRequest(BaseModel):
    """Fields that are not named here are ignored."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})

    model: str | None = Field(None, description="A model's id. Default: the first one.")
    inputs: Inputs
    prompt_name: str | None = Field(None, description="One of the model's tasks.")
    truncate: bool | None = Field(None, description="Whether to cut what is too long.")
    truncation_direction: str | None = Field(None, description="right, which is all there is.")


class TeiEmbedRequest(TeiRequest):
    """The request of text-embeddings-inference. Fields that are not named here are ignored."""

    normalize: bool | None = Field(None, description="Whether of unit length. Default true.")
    dimensions: int | str | None = None


class TeiTokenizeRequest(TeiRequest):
    """The request of text-embeddings-inference, whose texts are under `inputs`."""

    add_special_tokens: bool | None = Field(None, description="True, which is all there is.")


class TeiRerankRequest(BaseModel):
    """The request of text-embeddings-inference, whose documents are under `texts`."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})

    model: str | None = Field(None, description="A model's id. Default: the first one.")
    query: str
    texts: list[str] = Field(min_length=1)
    truncate: bool | None = Field(None, description="Whether to cut what is too long.")
    truncation_direction: str | None = Field(None, description="right, which is all there is.")
    raw_scores: bool | None = Field(None, description="Whether to give logits. Default false.")
    return_text: bool | None = Field(None, description="Whether to give `text`. Default false.")


class TeiRank(BaseModel):
    """One result."""

    index: int
    score: float
    text: str | None = None


class TeiToken(BaseModel):
    """One token of an input; where it stands in the text is not told."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class TeiWeight(BaseModel):
    """A token id and its weight."""

    index: int
    value: float


class TeiInfo(BaseModel):
    """What the first model is, and how much it takes."""

    model_id: str
    model_sha: str | None
    served_model_name: str
    model_type: dict[str, dict[str, str]]
    max_input_length: int
    max_client_batch_size: int
    auto_truncate: bool
    version: str
