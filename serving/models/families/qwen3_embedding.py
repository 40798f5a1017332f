"""Qwen3-Embedding: queries with an instruction, documents bare, any width from 32 on.

A sentence-transformers checkpoint that loads as it is. What its tokenizer appends, the last token
that is pooled, is in the tokenizer's own files.
"""

from __future__ import annotations

from dataclasses import replace

from serving.models.catalog import Entry
from serving.models.checkpoints import Checkpoint
from serving.models.families import sentence_transformers
from serving.models.families._tasks import with_extras
from serving.models.spec import ModelSpec, Pooling, TaskSpec

__all__ = ["read", "recognises"]

_START, _END = "Instruct: ", "\nQuery:"
_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
_LEAST = 32  # of the model cards; no file has it
_TASKS = (
    TaskSpec("query", f"{_START}{_INSTRUCTION}{_END}", ("retrieval.query",)),
    TaskSpec("document", "", ("retrieval.passage",)),
)


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether it is a causal Qwen3 whose queries have an instruction."""
    config = checkpoint.json("config.json", optional=True)
    own = checkpoint.json("config_sentence_transformers.json", optional=True)
    query = own.inner("prompts").text("query") or ""
    causal = config.names("architectures") == ("Qwen3ForCausalLM",)
    return causal and query.startswith(_START) and query.endswith(_END)


def read(checkpoint: Checkpoint, entry: Entry) -> ModelSpec:
    """The facts in the checkpoint's files; `ModelUnavailable` names the file and the reason."""
    spec = sentence_transformers.read(checkpoint, entry)
    if spec.pooling != Pooling(("last",)):
        modes = ", ".join(spec.pooling.modes)
        raise checkpoint.fault(f"is pooled by {modes}; a Qwen3-Embedding is by its last token")
    if spec.heads:
        raise checkpoint.fault("has Dense modules in modules.json; a Qwen3-Embedding has none")
    free = entry.matryoshka is None and spec.dimensions > _LEAST
    return replace(
        spec,
        family="qwen3_embedding",
        tasks=spec.tasks if _has(spec, _TASKS) else with_extras(_TASKS, entry.extra_tasks),
        matryoshka=() if free else spec.matryoshka,
        least_dimensions=_LEAST if free else None,
        normalize=True,
    )


def _has(spec: ModelSpec, wanted: tuple[TaskSpec, ...]) -> bool:
    return {task.name for task in wanted} <= {task.name for task in spec.tasks}
