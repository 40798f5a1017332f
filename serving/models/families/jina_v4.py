"""jina-embeddings-v4: Qwen2.5-VL with a projector, and three tasks' adapters in one file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from serving.models import adapters
from serving.models.catalog import Entry
from serving.models.checkpoints import Checkpoint, Facts
from serving.models.families._facts import (
    context,
    created,
    known_adapters,
    tensor_of,
    viewed,
    widths,
)
from serving.models.families._qwen_vl import PLACEHOLDER, Frame, read_vision, write_config
from serving.models.families._tasks import with_extras
from serving.models.spec import ModelSpec, MultiVector, TaskSpec
from serving.models.tensors import Tensor, load
from serving.models.views import link_weights

__all__ = ["read", "recognises"]

_ARCHITECTURE = "JinaEmbeddingsV4Model"
# Upstream's prompts are in its code; both sides of text-matching have the query's.
_TASKS = (
    TaskSpec("text-matching", "Query: ", adapter="text-matching"),
    TaskSpec("retrieval.query", "Query: ", adapter="retrieval"),
    TaskSpec("retrieval.passage", "Passage: ", adapter="retrieval"),
    TaskSpec("code.query", "Query: ", adapter="code"),
    TaskSpec("code.passage", "Passage: ", adapter="code"),
)
_OPENING, _CLOSING = "<|im_start|>user\n", "<|im_end|>\n"
_IMAGE = f"{_OPENING}{PLACEHOLDER}Describe the image.{_CLOSING}"
_CONTEXT = 32768  # where upstream's processor cuts; the backbone has more positions
_PROJECTOR = "multi_vector_projector"
_LAYERS = re.compile(r"(?:model\.)*(?:language_model\.)?(?:model\.)?layers\.")
_FITTING = ("model.", "visual.", "lm_head.", f"{_PROJECTOR}.")


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether config.json names upstream's class."""
    config = checkpoint.json("config.json", optional=True)
    return _ARCHITECTURE in config.names("architectures")


def read(checkpoint: Checkpoint, entry: Entry) -> ModelSpec:
    """The facts in the checkpoint's files; `ModelUnavailable` names the file and the reason."""
    config = checkpoint.json("config.json")
    text = config.inner("text_config") if "text_config" in config else config
    dimensions, width = text.required("hidden_size"), config.required(f"{_PROJECTOR}_dim")
    lora = adapters.described(checkpoint, "adapters")
    names = config.names("task_names")
    tasks = with_extras(_TASKS, entry.extra_tasks)
    known_adapters(checkpoint, tasks, names)
    frame = Frame(_IMAGE, _OPENING, _CLOSING)
    vision = read_vision(checkpoint, config, entry, frame)
    fill = partial(_fill, checkpoint, config, lora)
    path, has = viewed(checkpoint, "jina_v4", fill, dict.fromkeys(names, lora.rank))
    return ModelSpec(
        id=entry.id,
        aliases=entry.aliases,
        family="jina_v4",
        path=str(path),
        source=checkpoint.source,
        revision=checkpoint.revision,
        licence=checkpoint.licence() or entry.licence,
        created=created(checkpoint),
        dimensions=dimensions,
        max_tokens=context(entry, text.required("max_position_embeddings"), _CONTEXT),
        modalities=("text", "image"),
        tasks=tasks,
        default_task="text-matching",
        matryoshka=widths(entry, config.numbers("matryoshka_dims"), dimensions),
        default_dimensions=_cut(config, dimensions),
        normalize=True,
        adapters=has,
        multi=MultiVector(width),
        vision=vision,
        late_chunking=True,
        literal=True,
    )


def _cut(config: Facts, dimensions: int) -> int | None:
    cut = config.whole("truncate_dim")
    return cut if cut is not None and 0 < cut < dimensions else None


def _fill(checkpoint: Checkpoint, config: Facts, lora: adapters.Lora, view: Path) -> None:
    places = link_weights(checkpoint, view)
    strange = sorted(name for name in places if not name.startswith(_FITTING))
    if strange:
        raise checkpoint.fault(f"has weights of another layout, {strange[0]} among them")
    text = config.inner("text_config") if "text_config" in config else config
    wanted = config.required(f"{_PROJECTOR}_dim"), text.required("hidden_size")
    tensor_of(checkpoint, places, f"{_PROJECTOR}.weight", wanted)
    write_config(config, view, "qwen2_5_vl", "Qwen2_5_VLModel")
    for task, tensors in _by_task(checkpoint, config.names("task_names"), lora).items():
        adapters.write(view / "adapters" / task, tensors, lora)


def _by_task(
    checkpoint: Checkpoint, tasks: Sequence[str], lora: adapters.Lora
) -> dict[str, dict[str, Tensor]]:
    """Every task's factors, under PEFT's names; all tasks have to adapt the same modules."""
    file = f"adapters/{adapters.WEIGHTS}"
    found: dict[str, dict[str, Tensor]] = {task: {} for task in tasks}
    for name, tensor in load(checkpoint, file).items():
        key = adapters.split(name)
        if key is None or key.task not in found:
            raise checkpoint.fault(f"has {name} in {file}, which is of none of its tasks")
        module = key.module.removeprefix("model.")
        if match := _LAYERS.match(module):
            module = f"language_model.layers.{module[match.end() :]}"
        found[key.task][str(key._replace(module=module))] = tensor
    every = {name for tensors in found.values() for name in tensors}
    for task, tensors in found.items():
        if not tensors:
            raise checkpoint.fault(f"has no adapter for the task {task!r} in {file}")
        adapters.check(checkpoint, f"{file} for the task {task!r}", tensors, lora)
        if missing := sorted(every - tensors.keys()):
            raise checkpoint.fault(f"lacks {missing[0]} in {file} for the task {task!r}")
    return found
