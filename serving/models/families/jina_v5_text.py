"""jina-embeddings-v5-text: Qwen3 (-small) or EuroBERT (-nano), and a folder for each adapter.

Which of them is not in upstream's config, which leads to code in the repository instead; but
-nano's says that it is no decoder.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from serving.models import adapters
from serving.models.catalog import Entry
from serving.models.checkpoints import Checkpoint, Facts
from serving.models.families._facts import context, created, known_adapters, viewed, widths
from serving.models.families._tasks import with_extras
from serving.models.spec import ModelSpec, Pooling, TaskSpec
from serving.models.views import link_weights, write_json

__all__ = ["read", "recognises"]

_ARCHITECTURE = "JinaEmbeddingsV5Model"
# Upstream's prompts are in its code: one of two for every task, the second where none is named.
_QUERY, _DOCUMENT = "Query: ", "Document: "
_TASKS = (
    TaskSpec("retrieval.query", _QUERY, adapter="retrieval"),
    TaskSpec("retrieval.passage", _DOCUMENT, adapter="retrieval"),
    TaskSpec("text-matching", _DOCUMENT, adapter="text-matching"),
    TaskSpec("clustering", _DOCUMENT, adapter="clustering"),
    TaskSpec("classification", _DOCUMENT, adapter="classification"),
)
_WIDTHS = (32, 64, 128, 256, 512, 768)  # of the model cards; no file has them
_REMOTE = ("auto_map", "architectures", "model_type", "task_names", "_name_or_path")
_ONLY_QWEN3 = "self_attn.q_norm.weight"


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether config.json names upstream's class."""
    config = checkpoint.json("config.json", optional=True)
    return _ARCHITECTURE in config.names("architectures")


def read(checkpoint: Checkpoint, entry: Entry) -> ModelSpec:
    """The facts in the checkpoint's files; `ModelUnavailable` names the file and the reason."""
    config = checkpoint.json("config.json")
    dimensions = config.required("hidden_size")
    names = config.names("task_names") or tuple(dict.fromkeys(t.adapter or "" for t in _TASKS))
    loras = {name: adapters.described(checkpoint, f"adapters/{name}") for name in names}
    tasks = with_extras(_TASKS, entry.extra_tasks)
    known_adapters(checkpoint, tasks, names)
    fill = partial(_fill, checkpoint, config, loras)
    ranks = {name: lora.rank for name, lora in loras.items()}
    path, has = viewed(checkpoint, "jina_v5_text", fill, ranks)
    return ModelSpec(
        id=entry.id,
        aliases=entry.aliases,
        family="jina_v5_text",
        path=str(path),
        source=checkpoint.source,
        revision=checkpoint.revision,
        licence=checkpoint.licence() or entry.licence,
        created=created(checkpoint),
        dimensions=dimensions,
        max_tokens=context(entry, config.required("max_position_embeddings")),
        tasks=tasks,
        default_task="text-matching",
        matryoshka=widths(entry, config.numbers("matryoshka_dims") or _WIDTHS, dimensions),
        pooling=Pooling(("last",)),
        normalize=True,
        adapters=has,
    )


def _fill(
    checkpoint: Checkpoint, config: Facts, loras: dict[str, adapters.Lora], view: Path
) -> None:
    places = link_weights(checkpoint, view)
    encoder = config.flag("is_decoder") is False
    if encoder == any(name.endswith(_ONLY_QWEN3) for name in places):
        said, found = ("EuroBERT", "Qwen3") if encoder else ("Qwen3", "EuroBERT")
        raise checkpoint.fault(f"has the weights of {found}, and is_decoder of {said}")
    own: dict[str, object] = {"model_type": "qwen3", "architectures": ["Qwen3Model"]}
    if encoder:
        own = {"model_type": "eurobert", "architectures": ["EuroBertModel"], "is_causal": False}
    kept = {key: value for key, value in config.values.items() if key not in _REMOTE}
    write_json(view / "config.json", {**kept, **own})
    for name, lora in loras.items():
        file = f"adapters/{name}/{adapters.WEIGHTS}"
        adapters.copy(checkpoint, file, view / "adapters" / name, lora, "model.")
