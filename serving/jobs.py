"""The one door where a request is checked against its model. Pure: no tokenizer, no I/O."""

from __future__ import annotations

from serving.errors import InvalidInput, ModalityNotSupported, TaskNotFound
from serving.models.spec import Listwise, ModelSpec, Pairwise, TaskSpec
from serving.values import (
    Ask,
    Fused,
    Image,
    Item,
    Job,
    Output,
    Pair,
    Pdf,
    ServiceClass,
    Text,
    TokenIds,
)

__all__ = ["plan"]

# What the hints of Cohere, Voyage and Jina mean in Jina's task names (api.md 1.1), and in those of
# sentence-transformers checkpoints. The first that a model has is meant.
_QUERY = ("retrieval.query", "query", "search_query")
_PASSAGE = ("retrieval.passage", "document", "passage", "search_document")
_ROLES: dict[str, tuple[str, ...]] = {
    "query": _QUERY,
    "search_query": _QUERY,
    "document": _PASSAGE,
    "passage": _PASSAGE,
    "search_document": _PASSAGE,
    "classification": ("classification",),
    "clustering": ("clustering", "separation"),
    "image": (),
}
_KINDS: dict[type[Item], str] = {
    Image: "an image",
    Pdf: "a PDF",
    Fused: "an image with text",
    Pair: "a query with a document",
    TokenIds: "token ids",
}


def plan(
    spec: ModelSpec, ask: Ask, max_inputs: int, service_class: ServiceClass = "interactive"
) -> Job:
    """A job that needs nothing but its tokens counted.

    Raises `InvalidInput`, `TaskNotFound` or `ModalityNotSupported`, which name field and choices.
    """
    if not ask.items:
        raise InvalidInput("input is empty; give at least one text", "input")
    if len(ask.items) > max_inputs:
        raise InvalidInput(
            f"input has {len(ask.items)} items; at most {max_inputs} fit one request", "input"
        )
    media = [(index, item) for index, item in enumerate(ask.items) if type(item) is not Text]
    if spec.reranker is not None:
        _check_pairs(spec, spec.reranker, ask)
    else:
        for index, item in media:
            _check_item(spec, index, item, ask)
    _check_outputs(spec, ask.output)
    if ask.late_chunking:
        _check_late_chunking(spec, ask, bool(media))
    if ask.max_pixels is not None:
        _check_pixels(spec, ask.max_pixels)
    return Job(
        model=spec.id,
        items=ask.items,
        task=_task(spec, ask),
        output=_output(spec, ask.output),
        truncate=ask.truncate,
        service_class=service_class,
        late_chunking=ask.late_chunking,
        max_pixels=ask.max_pixels,
        document_tokens=ask.document_tokens,
        field=ask.field,
    )


def _check_item(spec: ModelSpec, index: int, item: Item, ask: Ask) -> None:
    field = f"{ask.field}.{index}"
    if type(item) is TokenIds:
        if any(type(one) is not TokenIds for one in ask.items):
            raise InvalidInput(f"{ask.field} {index} is token ids; the others are not", field)
        return
    if "image" not in spec.modalities or type(item) is Pair:
        raise ModalityNotSupported(
            f"{ask.field} {index} is {_KINDS[type(item)]}; "
            f"{spec.id} embeds {' and '.join(spec.modalities)} only",
            field,
        )
    if len(ask.items) > 1 and type(item) is Pdf:
        raise InvalidInput(
            f"{ask.field} {index} is a PDF, which must be the only input of its request", field
        )


def _check_pairs(spec: ModelSpec, reranker: Pairwise | Listwise, ask: Ask) -> None:
    """A cross-encoder takes pairs and nothing else, of the kinds that it has read in training."""
    kinds = " and ".join(spec.modalities)
    for index, item in enumerate(ask.items):
        if not isinstance(item, Pair):
            raise ModalityNotSupported(
                f"{spec.id} embeds nothing: it ranks documents by a query (POST /v1/rerank)",
                "model",
            )
        for field, part in (("query", item.query), (f"{ask.field}.{index}", item.document)):
            if isinstance(part, Image) and "image" not in spec.modalities:
                named = field.replace(".", " ")
                raise ModalityNotSupported(
                    f"{named} is an image; {spec.id} ranks {kinds} only", field
                )
        if item.instruction is not None and not reranker.instructed:
            name = "instruction"
            raise InvalidInput(f"{spec.id} takes no {name}; leave it out", name)


def _check_outputs(spec: ModelSpec, output: Output) -> None:
    if output.multi:
        _check_multi(spec, output)
    elif output.tokens:
        name = "return_tokenized_input"
        raise InvalidInput(f"{name} needs return_multivector: true", name)
    if output.sparse and spec.sparse is None:
        name = "return_sparse"
        raise InvalidInput(f"{spec.id} has no sparse weights; leave {name} out", name)
    if not (output.dense or output.multi or output.sparse):
        name = "return_dense"
        raise InvalidInput(f"nothing is asked for; leave {name} out", name)


def _check_multi(spec: ModelSpec, output: Output) -> None:
    name = "return_multivector"
    if spec.multi is None:
        raise InvalidInput(f"{spec.id} gives one vector per input; leave {name} out", name)
    if output.dimensions is not None:
        raise InvalidInput(
            f"dimensions cannot go with {name}: "
            f"its vectors always have {spec.multi.dimensions} dimensions",
            "dimensions",
        )
    if not (output.normalized or output.dense):
        raise InvalidInput(f"the vectors of {name} are always of unit length", "normalized")


def _check_late_chunking(spec: ModelSpec, ask: Ask, media: bool) -> None:
    name, output = "late_chunking", ask.output
    if not spec.late_chunking:
        raise InvalidInput(f"{spec.id} has no late chunking; leave {name} out", name)
    if media:
        raise InvalidInput(f"{name} takes texts only: the chunks of one document", name)
    if output.multi or output.sparse:
        other = "return_multivector" if output.multi else "return_sparse"
        raise InvalidInput(f"{name} gives one vector a chunk; leave {other} out", other)


def _check_pixels(spec: ModelSpec, pixels: int) -> None:
    if spec.vision is None:
        raise InvalidInput(f"{spec.id} embeds no images; leave max_pixels out", "max_pixels")
    if not 1 <= pixels <= spec.vision.max_pixels:
        raise InvalidInput(
            f"max_pixels must be between 1 and {spec.vision.max_pixels}, the bound of {spec.id}",
            "max_pixels",
        )


def _named(spec: ModelSpec, name: str) -> TaskSpec | None:
    for task in spec.tasks:
        if name == task.name or name in task.aliases:
            return task
    return None


def _task(spec: ModelSpec, ask: Ask) -> str | None:
    if ask.task is not None:
        task = _named(spec, ask.task)
        if task is None:
            has = ", ".join(t.name for t in spec.tasks) or "none: leave task out"
            raise TaskNotFound(f"{spec.id} has no task {ask.task!r}; its tasks: {has}", "task")
        return task.name
    if ask.role is not None:
        if ask.role not in _ROLES:
            raise InvalidInput(
                f"input_type {ask.role!r} is unknown; it may be {', '.join(_ROLES)}", "input_type"
            )
        for name in _ROLES[ask.role]:
            if task := _named(spec, name):
                return task.name
    return spec.default_task


def _output(spec: ModelSpec, output: Output) -> Output:
    """With the width that the engine is to cut to: None for the full one."""
    wanted = output.dimensions if output.dimensions is not None else spec.default_dimensions
    if wanted == spec.dimensions:
        wanted = None
    if wanted is not None and not _has_width(spec, wanted):
        raise InvalidInput(
            f"{spec.id} has no vectors of {wanted} dimensions; its sizes: {_sizes(spec)}",
            "dimensions",
        )
    return Output(
        wanted, output.normalized, output.dense, output.multi, output.sparse, output.tokens
    )


def _has_width(spec: ModelSpec, wanted: int) -> bool:
    least = spec.least_dimensions
    return wanted in spec.matryoshka or (least is not None and least <= wanted < spec.dimensions)


def _sizes(spec: ModelSpec) -> str:
    if spec.least_dimensions is not None:
        return f"{spec.least_dimensions} to {spec.dimensions}"
    return ", ".join(str(size) for size in (*spec.matryoshka, spec.dimensions))
