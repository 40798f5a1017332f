"""The wire as pydantic models: they describe, in `/openapi.json`; they parse nothing.

`tests/serving/api/test_schemas.py` holds them to the parsers beside them.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from serving.api.vectors import WIRE_TYPES

__all__ = [
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
    "Inputs",
    "InvalidBody",
    "Live",
    "ModelEntry",
    "ModelList",
    "OpenAIError",
    "PdfInput",
    "Problem",
    "SparseEmbedding",
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


class PdfInput(BaseModel):
    """A document, the only input of its request: an address, a data URI or base64.

    Every page becomes an image, with an entry of its own in the answer.
    """

    pdf: str


class FusedInput(BaseModel):
    """Texts and images that become one vector together; texts alone are joined by line breaks."""

    content: str | list[TextInput | ImageInput | ImageUrlInput | str] = Field(min_length=1)


InputItem: TypeAlias = (
    str | TextInput | ImageInput | UrlInput | BytesInput | ImageUrlInput | PdfInput | FusedInput
)
Inputs: TypeAlias = InputItem | list[InputItem]
Whole: TypeAlias = int | str
WireType: TypeAlias = str


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
        None,
        description="Length of the vectors: one of the model's `matryoshka_dimensions`, or any "
        "from its `least_dimensions` on. Not with `return_multivector`.",
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
    late_chunking: bool | None = Field(
        None,
        description="Whether the inputs are chunks of one document, each read with all the others "
        "in view: one vector a chunk. For the models that say so.",
    )
    return_dense: bool | None = Field(
        None,
        description="Whether to give `embedding`. Default: where `embeddings` is not given.",
    )
    return_multivector: bool | None = Field(
        None, description="Whether to give `embeddings`: a vector for every token."
    )
    return_colbert_vecs: bool | None = Field(None, description=_other_name("return_multivector"))
    return_sparse: bool | None = Field(
        None, description="Whether to give `sparse_embedding`: a weight for every token id."
    )
    return_tokenized_input: bool | None = Field(
        None, description="Whether to give the tokens' text beside `return_multivector`."
    )
    max_pixels: Whole | None = Field(
        None, description="Pixels of an image at most, up to the model's own `max_pixels`."
    )
    user: str | None = Field(None, description="Ignored.")


class SparseEmbedding(BaseModel):
    """Token ids, ascending, and the weight of each."""

    indices: list[int]
    values: list[float]


Numbers: TypeAlias = str | list[float]


class Embedding(BaseModel):
    """What was asked for, of one input, or of one page of a document."""

    object: Literal["embedding", "embeddings"] = Field(
        description="`embeddings` where multi-vectors were asked for."
    )
    index: int
    embedding: Numbers | dict[str, Numbers] | None = Field(
        None, description="Numbers, base64, or an object by type where several were asked for."
    )
    embeddings: list[Numbers] | dict[str, list[Numbers]] | None = Field(
        None, description="The multi-vector, a row a token, or an object by type of such."
    )
    tokenized_input: list[str] | None = Field(None, description="The text of every row's token.")
    sparse_embedding: SparseEmbedding | None = None


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
    least_dimensions: int | None = Field(
        description="Any size from it up to `dimensions` is given."
    )
    multivector_dimensions: int | None
    sparse: bool
    late_chunking: bool
    min_pixels: int | None
    max_pixels: int | None = Field(description="Larger images are made smaller, to this area.")
    image_token_multiplier: int | None
    tasks: list[str]
    default_task: str | None


class ModelList(BaseModel):
    """Every model that is served."""

    object: Literal["list"]
    data: list[ModelEntry]


class Live(BaseModel):
    """It answers; `problems` are of parts that it can do without for now."""

    status: Literal["ok"]
    problems: dict[str, str] = Field(default_factory=dict)


class Health(BaseModel):
    """How every model is: `ok`, or why it does not answer."""

    status: Literal["ok", "degraded"]
    models: dict[str, str]


class Unready(ErrorBody):
    """The error body of a server that is not ready, with the reason by model."""

    reasons: dict[str, str]
    problems: dict[str, str]
