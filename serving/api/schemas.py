"""The wire as pydantic models: they describe, in `/openapi.json`; they parse nothing.

`tests/serving/api/test_schemas.py` holds them to the parsers beside them.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from serving.api.vectors import WIRE_TYPES

__all__ = [
    "EXAMPLES",
    "BytesInput",
    "Embedding",
    "EmbeddingsRequest",
    "EmbeddingsResponse",
    "ErrorBody",
    "FusedInput",
    "Health",
    "ImageAddress",
    "ImageInput",
    "ImageUrlInput",
    "InvalidBody",
    "Live",
    "ModelEntry",
    "ModelList",
    "OpenAIError",
    "Problem",
    "TextInput",
    "Unready",
    "UrlInput",
    "Usage",
]


class TextInput(BaseModel):
    """A text."""

    text: str


class ImageInput(BaseModel):
    """An image: an https address, a data URI or base64. Refused by models that embed text only."""

    image: str


class UrlInput(BaseModel):
    """An image by its address, as langchain and llama-index write it."""

    url: str


class BytesInput(BaseModel):
    """An image in base64, as langchain and llama-index write it."""

    bytes: str


class ImageAddress(BaseModel):
    """OpenAI's address of an image."""

    url: str


class ImageUrlInput(BaseModel):
    """An image as a content part of OpenAI's."""

    type: Literal["image_url"] | None = None
    image_url: ImageAddress | str


class FusedInput(BaseModel):
    """Several parts that become one vector; texts are joined by line breaks."""

    content: str | list[TextInput | ImageInput | ImageUrlInput | str] = Field(min_length=1)


InputItem: TypeAlias = (
    str | TextInput | ImageInput | UrlInput | BytesInput | ImageUrlInput | FusedInput
)
Inputs: TypeAlias = InputItem | list[InputItem]
Whole: TypeAlias = int | str
WireType: TypeAlias = str


_REFUSED = "Refused where true, by every model so far."


def _other_name(name: str) -> str:
    return f"Another name of `{name}`, which counts where both are given."


class EmbeddingsRequest(BaseModel):
    """The union of Jina's and OpenAI's requests.

    Every optional field may be null; fields that are not named here are ignored.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "additionalProperties": True,
            "anyOf": [{"required": [name]} for name in ("input", "content", "texts")],
        }
    )

    model: str = Field(description="A model's id or alias; see `GET /v1/models`.", min_length=1)
    input: Inputs | None = Field(
        None,
        description="What to embed: one item or a list. Required, here or as `content` or `texts`. "
        "An empty string is valid, an empty list and token ids are not.",
    )
    content: Inputs | None = Field(None, description=_other_name("input"))
    texts: Inputs | None = Field(None, description=_other_name("input"))
    task: str | None = Field(None, description="One of the model's tasks. None: its default.")
    task_type: str | None = Field(None, description=_other_name("task"))
    prompt_name: str | None = Field(None, description=_other_name("task"))
    input_type: str | None = Field(
        None, description="A hint where no task is given: query, document, clustering …"
    )
    dimensions: Whole | None = Field(
        None, description="Length of the vectors: one of the model's `matryoshka_dimensions`."
    )
    output_dimensionality: Whole | None = Field(None, description=_other_name("dimensions"))
    output_dimension: Whole | None = Field(None, description=_other_name("dimensions"))
    normalized: bool | None = Field(None, description="Whether of unit length. Default true.")
    truncate: bool | None = Field(
        None, description="Whether to cut an input that is too long instead of refusing it."
    )
    truncation: bool | None = Field(None, description=_other_name("truncate"))
    truncate_prompt_tokens: Whole | None = Field(
        None, description="vLLM's way to say `truncate`: -1 or at least the model's context."
    )
    embedding_type: WireType | list[WireType] | None = Field(
        None,
        description="Number type of the vectors, or several: `embedding` is then an object by "
        f"type. One of {', '.join(WIRE_TYPES)}; default float. `base64` is float32, little-endian; "
        "`binary` is `ubinary` minus 128.",
    )
    embedding_types: WireType | list[WireType] | None = Field(
        None, description=_other_name("embedding_type")
    )
    encoding_type: WireType | list[WireType] | None = Field(
        None, description=_other_name("embedding_type")
    )
    encoding_format: WireType | list[WireType] | None = Field(
        None, description="OpenAI's name of `embedding_type`, which counts where both are given."
    )
    late_chunking: bool | None = Field(None, description=_REFUSED)
    return_multivector: bool | None = Field(None, description=_REFUSED)
    return_tokenized_input: bool | None = Field(None, description=_REFUSED)
    user: str | None = Field(None, description="Ignored.")


EXAMPLES: dict[str, dict[str, object]] = {
    "OpenAI": {
        "model": "all-MiniLM-L6-v2",
        "input": ["The food was delicious.", "The waiter was kind."],
        "encoding_format": "float",
    },
    "Jina": {
        "model": "all-MiniLM-L6-v2",
        "input": [{"text": "Organic skincare for sensitive skin"}],
        "embedding_type": "base64",
        "normalized": True,
        "truncate": True,
    },
    "One text": {"model": "all-MiniLM-L6-v2", "input": "Hello"},
    "Several types": {
        "model": "all-MiniLM-L6-v2",
        "input": "Hello",
        "embedding_type": ["float", "ubinary"],
    },
}


class Embedding(BaseModel):
    """One vector, of the input with the same `index`."""

    object: Literal["embedding"]
    index: int
    embedding: str | list[float] | dict[str, str | list[float]] = Field(
        description="Numbers, base64, or an object keyed by type where several were asked for."
    )


class Usage(BaseModel):
    """Tokens as the model's own tokenizer counts them, special tokens and prompts included."""

    prompt_tokens: int
    total_tokens: int
    image_tokens: int | None = Field(None, description="The part of images, where any was sent.")


class EmbeddingsResponse(BaseModel):
    """Vectors in the order of the inputs."""

    object: Literal["list"]
    model: str = Field(description="The model's id, also where an alias was asked for.")
    data: list[Embedding]
    usage: Usage


class OpenAIError(BaseModel):
    """What OpenAI's clients read."""

    message: str
    type: str
    param: str | None
    code: str


class Problem(BaseModel):
    """One thing found wrong with a request."""

    field: str
    message: str
    type: str
    input: object = None


class ErrorBody(BaseModel):
    """The one error body, for the clients of every dialect."""

    detail: str = Field(description="What is wrong, for a person.")
    code: str = Field(description="What is wrong, for a program.")
    request_id: str
    message: str
    error: OpenAIError


class InvalidBody(ErrorBody):
    """The error body of a request that is not valid, with every problem found."""

    errors: list[Problem]


class ModelEntry(BaseModel):
    """One model, in the fields of OpenAI, Jina and vLLM."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    name: str
    hugging_face_id: str | None
    aliases: list[str]
    revision: str | None
    license: str | None
    licence: str | None
    input_modalities: list[str]
    output_modalities: list[str]
    context_length: int
    max_model_len: int
    dimensions: int
    default_dimensions: int
    matryoshka_dimensions: list[int]
    tasks: list[str]
    default_task: str | None


class ModelList(BaseModel):
    """Every model that is served."""

    object: Literal["list"]
    data: list[ModelEntry]


class Live(BaseModel):
    """It answers."""

    status: Literal["ok"]


class Health(BaseModel):
    """How every model is: `ok`, or why it does not answer."""

    status: Literal["ok", "degraded"]
    models: dict[str, str]


class Unready(ErrorBody):
    """The error body of a server that is not ready, with the reason by model."""

    reasons: dict[str, str]
