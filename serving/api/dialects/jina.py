"""Jina's and OpenAI's `POST /v1/embeddings` at once: one request model, the union of both."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from serving.api.embedding import cuts
from serving.api.examples import EXAMPLES
from serving.api.exchange import Reply
from serving.api.fields import Fields, Refusal, ranked, refuse
from serving.api.inputs import read_inputs
from serving.api.models import find
from serving.api.routes import Body, Route, Sent
from serving.api.schemas import EmbeddingsRequest, EmbeddingsResponse
from serving.api.vectors import WIRE_TYPES, write_list
from serving.calls import Call
from serving.models.spec import ModelSpec
from serving.service import Service
from serving.values import Ask, Item, Output

__all__ = ["NAMES", "ROUTES", "Options", "Wanted", "ask", "read"]

# Every name of a field, the one that counts first (api.md 0.2 and 1.1); return_dense, return_sparse
# and return_colbert_vecs are FlagEmbedding's words.
NAMES = {
    "model": ("model",),
    "input": ("input", "content", "texts"),
    "task": ("task", "task_type", "prompt_name"),
    "input_type": ("input_type",),
    "dimensions": ("dimensions", "output_dimensionality", "output_dimension"),
    "normalized": ("normalized",),
    "truncate": ("truncate", "truncation"),
    "truncate_prompt_tokens": ("truncate_prompt_tokens",),
    "embedding_type": ("embedding_type", "embedding_types", "encoding_type", "encoding_format"),
    "late_chunking": ("late_chunking",),
    "return_dense": ("return_dense",),
    "return_multivector": ("return_multivector", "return_colbert_vecs"),
    "return_sparse": ("return_sparse",),
    "return_tokenized_input": ("return_tokenized_input",),
    "max_pixels": ("max_pixels",),
}
_RANKS = ranked(NAMES)
_PLAIN = frozenset({"model", "input", "embedding_type"})
_FLOAT = ("float",)


@dataclass(frozen=True, slots=True)
class Options:
    """What most requests leave out. `truncate_to` is vLLM's `truncate_prompt_tokens`."""

    task: str | None = None
    role: str | None = None
    output: Output = field(default_factory=Output)
    truncate: bool = False
    truncate_to: int | None = None
    late_chunking: bool = False
    max_pixels: int | None = None


_NO_OPTIONS = Options()


@dataclass(frozen=True, slots=True)
class Wanted:
    """The body, read: number types of the answer in `types`, what no model can do in `refusals`."""

    model: str
    items: tuple[Item, ...]
    types: tuple[str, ...] = _FLOAT
    options: Options = _NO_OPTIONS
    refusals: tuple[Refusal, ...] = ()


def read(body: Body, most: int, token_ids: bool = False) -> Wanted:
    """The request that `body` is, of at most `most` inputs, which may be `token_ids`.

    Raises `InvalidInput` with every problem.
    """
    fields = Fields(body, _RANKS)
    model = fields.needed_name("model")
    items = read_inputs(fields, *fields.first("input"), most, token_ids)
    types = fields.choices("embedding_type", WIRE_TYPES, _FLOAT)
    options = _NO_OPTIONS if fields.present <= _PLAIN else _options(fields)
    fields.check()
    return Wanted(model, items, types, options, tuple(fields.refusals))


def _options(fields: Fields) -> Options:
    return Options(
        fields.name("task"),
        fields.name("input_type"),
        _output(fields),
        fields.flag("truncate", False),
        fields.integer("truncate_prompt_tokens", -1),
        fields.flag("late_chunking", False),
        fields.integer("max_pixels", 1),
    )


def _output(fields: Fields) -> Output:
    """Multi-vectors take the single vector's place, as with Jina, unless that is asked for too."""
    dimensions = fields.integer("dimensions", 1)
    normalized = fields.flag("normalized", True)
    multi = fields.flag("return_multivector", False)
    dense = fields.flag("return_dense", not multi)
    sparse = fields.flag("return_sparse", False)
    tokens = fields.flag("return_tokenized_input", False)
    return Output(dimensions, normalized, dense, multi, sparse, tokens)


def ask(wanted: Wanted, spec: ModelSpec) -> Ask:
    """What to ask of that very model."""
    options = wanted.options
    truncate = cuts(spec, options.truncate_to) or options.truncate
    refuse(wanted.refusals, spec.id)
    return Ask(
        spec.id,
        wanted.items,
        options.task,
        options.role,
        options.output,
        truncate,
        options.late_chunking,
        options.max_pixels,
    )


async def _answer_multi(service: Service, call: Call, sent: Sent) -> Reply:
    """The path of Jina's ColBERT models, which Weaviate still uses."""
    body = {**sent.body, "return_multivector": True}
    return await _answer(service, call, replace(sent, body=body))


async def _answer(service: Service, call: Call, sent: Sent) -> Reply:
    wanted = read(sent.body, service.max_inputs, sent.token_ids)
    spec = find(service.catalog, wanted.model)
    answer = await service.embed(call, ask(wanted, spec))
    began = time.perf_counter()
    written = await write_list(spec.id, answer, wanted.types)
    return Reply(written, answer.stages, time.perf_counter() - began)


ROUTES = (
    Route(
        "POST",
        "/v1/embeddings",
        _answer,
        "create_embeddings",
        "Embed texts, images and documents",
        EmbeddingsRequest,
        EmbeddingsResponse,
        EXAMPLES,
    ),
    Route(
        "POST",
        "/v1/multi-vector",
        _answer_multi,
        "create_multi_vectors",
        "Embed with return_multivector",
        EmbeddingsRequest,
        EmbeddingsResponse,
    ),
)
