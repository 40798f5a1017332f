"""jina-embeddings-v3: XLM-R with rotary positions, and five adapters that change embeddings too.

Both of its layouts are read: upstream's own, with all adapters stacked among the weights, and that
of the `-hf` port, with a folder for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from serving.models import adapters
from serving.models.adapters import Lora
from serving.models.catalog import Entry
from serving.models.checkpoints import Checkpoint, Facts
from serving.models.families import _stacked
from serving.models.families._facts import context, created, known_adapters, viewed, widths
from serving.models.families._tasks import with_extras
from serving.models.spec import ModelSpec, Pooling, TaskSpec
from serving.models.tensors import Tensor, load, save
from serving.models.views import link_weights, write_json

__all__ = ["read", "recognises"]

_NATIVE = "jina_embeddings_v3"
_STACKED = "lora_adaptations"
# What the port's files leave out: the instructions of upstream's config, and its widths.
_PROMPTS = {
    "retrieval.query": "Represent the query for retrieving evidence documents: ",
    "retrieval.passage": "Represent the document for retrieval: ",
    "separation": "",
    "classification": "",
    "text-matching": "",
}
_WIDTHS = (32, 64, 128, 256, 512, 768)
_KEPT = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "dtype",
    "torch_dtype",
)


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether config.json is the port's, or lists adapters that are stacked."""
    config = checkpoint.json("config.json", optional=True)
    return config.text("model_type") == _NATIVE or _STACKED in config


def read(checkpoint: Checkpoint, entry: Entry) -> ModelSpec:
    """The facts in the checkpoint's files; `ModelUnavailable` names the file and the reason."""
    config = checkpoint.json("config.json")
    dimensions = config.required("hidden_size")
    prompts = _prompts(config)
    fill, ranks = _layout(checkpoint, config, tuple(prompts))
    own = (TaskSpec(name, prompt, adapter=name) for name, prompt in prompts.items())
    tasks = with_extras(own, entry.extra_tasks)
    known_adapters(checkpoint, tasks, prompts)
    path, has = viewed(checkpoint, "jina_v3", fill, ranks)
    return ModelSpec(
        id=entry.id,
        aliases=entry.aliases,
        family="jina_v3",
        path=str(path),
        source=checkpoint.source,
        revision=checkpoint.revision,
        licence=checkpoint.licence() or entry.licence,
        created=created(checkpoint),
        dimensions=dimensions,
        # All of them: rotary positions begin at 0, not behind the padding's as XLM-R's own do.
        max_tokens=context(entry, config.required("max_position_embeddings")),
        tasks=tasks,
        default_task=None,
        matryoshka=widths(entry, config.numbers("matryoshka_dimensions") or _WIDTHS, dimensions),
        pooling=Pooling(("mean",)),
        normalize=True,
        adapters=has,
        late_chunking=True,
    )


def _prompts(config: Facts) -> dict[str, str]:
    """The instruction of every task, in the order of the adapters."""
    said = config.inner("task_instructions")
    names = config.names(_STACKED) or tuple(_PROMPTS)
    return {
        name: said.text(name) or "" if name in said else _PROMPTS.get(name, "") for name in names
    }


def _layout(
    checkpoint: Checkpoint, config: Facts, tasks: tuple[str, ...]
) -> tuple[Callable[[Path], None], dict[str, int]]:
    """What makes the view, and every adapter's rank."""
    if _STACKED in config:
        lora = Lora(config.required("lora_rank"), config.required("lora_alpha"))
        return partial(_fill_stacked, checkpoint, config, tasks, lora), dict.fromkeys(
            tasks, lora.rank
        )
    loras = {task: adapters.described(checkpoint, _folder(task)) for task in tasks}
    return partial(_fill_port, checkpoint, config, loras), {
        task: lora.rank for task, lora in loras.items()
    }


def _folder(task: str) -> str:
    """The port's folder of a task."""
    return re.sub(r"\W", "_", task)


def _fill_port(
    checkpoint: Checkpoint, config: Facts, loras: Mapping[str, Lora], view: Path
) -> None:
    link_weights(checkpoint, view)
    write_json(view / "config.json", {k: v for k, v in config.values.items() if k != "auto_map"})
    for task, lora in loras.items():
        file = f"{_folder(task)}/{adapters.WEIGHTS}"
        adapters.copy(checkpoint, file, view / "adapters" / task, lora, "roberta.")


def _fill_stacked(
    checkpoint: Checkpoint, config: Facts, tasks: tuple[str, ...], lora: Lora, view: Path
) -> None:
    file = checkpoint.weight_file("")
    tensors: dict[str, Tensor] = load(checkpoint, file)
    _stacked.whole(checkpoint, file, tensors, tasks)
    _write_config(config, view)
    save(view / "model.safetensors", _stacked.base(tensors))
    for at, task in enumerate(tasks):
        factors = _stacked.adapter(tensors, at)
        adapters.check(checkpoint, f"{file} for the task {task!r}", factors, lora)
        adapters.write(view / "adapters" / task, factors, lora)


def _write_config(config: Facts, view: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": float(config.required("rotary_emb_base"))}
    kept = {key: config.values[key] for key in _KEPT if key in config}
    own = {"model_type": _NATIVE, "architectures": ["JinaEmbeddingsV3Model"]}
    write_json(view / "config.json", {**kept, **own, "rope_parameters": rope})
