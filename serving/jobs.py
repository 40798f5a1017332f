"""The one door where a request is checked against its model. Pure: no tokenizer, no I/O."""

from __future__ import annotations

from serving.errors import InvalidInput, ModalityNotSupported, TaskNotFound
from serving.models.spec import ModelSpec, TaskSpec
from serving.values import Ask, Image, Item, Job, Output

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


def plan(spec: ModelSpec, ask: Ask, max_inputs: int) -> Job:
    """A job that needs nothing but its tokens counted.

    Raises `InvalidInput`, `TaskNotFound` or `ModalityNotSupported`, which name field and choices.
    """
    if not ask.items:
        raise InvalidInput("input is empty; give at least one text", "input")
    if len(ask.items) > max_inputs:
        raise InvalidInput(
            f"input has {len(ask.items)} items; at most {max_inputs} fit one request", "input"
        )
    _refuse_images(spec, ask.items)
    return Job(
        model=spec.id,
        items=ask.items,
        task=_task(spec, ask),
        output=_output(spec, ask.output),
        truncate=ask.truncate,
        service_class=ask.service_class,
    )


def _refuse_images(spec: ModelSpec, items: tuple[Item, ...]) -> None:
    if "image" in spec.modalities:
        return
    for index, item in enumerate(items):
        if isinstance(item, Image):
            raise ModalityNotSupported(
                f"input {index} is an image; {spec.id} embeds {' and '.join(spec.modalities)} only",
                f"input.{index}",
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
    wanted = output.dimensions if output.dimensions is not None else spec.default_dimensions
    if wanted is None or wanted == spec.dimensions:
        return Output(None, output.normalized)
    if wanted not in spec.matryoshka:
        sizes = ", ".join(str(size) for size in (*spec.matryoshka, spec.dimensions))
        raise InvalidInput(
            f"{spec.id} has no vectors of {wanted} dimensions; its sizes: {sizes}", "dimensions"
        )
    return Output(wanted, output.normalized)
