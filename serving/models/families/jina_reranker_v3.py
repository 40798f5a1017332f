"""jina-reranker-v3: a causal Qwen3 that reads a query and all of its documents in one prompt.

A document's vector is that of a token behind it, which has seen the documents before it too; the
query's is that of a token behind the query, at the end. A small network makes both shorter.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from serving.models.catalog import Entry
from serving.models.checkpoints import Checkpoint, Facts
from serving.models.families._facts import context, created, viewed
from serving.models.families._scores import IDENTITY, RELU, copy_layers, layer
from serving.models.spec import Dense, Listwise, ModelSpec, Pooling
from serving.models.views import link_weights, write_json

__all__ = ["read", "recognises"]

_ARCHITECTURE = "JinaForRanking"
_BACKBONE = "qwen3"
# What follows is in upstream's code (`rerank`), not in its files.
_PROMPT = Listwise(
    opening=(
        "<|im_start|>system\nYou are a search relevance expert who can determine a ranking of the"
        " passages based on how relevant they are to the query. If the query is a question, how"
        " relevant a passage is depends on how well it answers the question. If not, try to analyze"
        " the intent of the query and assess how well each passage satisfies the intent. If an"
        " instruction is provided, you should follow the instruction when determining the ranking."
        "<|im_end|>\n<|im_start|>user\n"
    ),
    first=(
        "I will provide you with {count} passages, each indicated by a numerical identifier. "
        "Rank the passages based on their relevance to query: {query}\n"
    ),
    instruct="<instruct>\n{instruction}\n</instruct>\n",
    passage='<passage id="{index}">\n{document}',
    document_mark="<|embed_token|>",
    between="\n</passage>\n",
    ask="<query>\n{query}",
    query_mark="<|rerank_token|>",
    closing="\n</query><|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    most=125,
    query_tokens=512,
    document_tokens=2048,
)
_WIDTH = 512


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether config.json names upstream's class, on the backbone that is known."""
    config = checkpoint.json("config.json", optional=True)
    named = _ARCHITECTURE in config.names("architectures")
    return named and config.text("model_type") == _BACKBONE


def read(checkpoint: Checkpoint, entry: Entry) -> ModelSpec:
    """The facts in the checkpoint's files; `ModelUnavailable` names the file and the reason."""
    config = checkpoint.json("config.json")
    hidden = config.required("hidden_size")
    heads = (
        layer("projector/0", hidden, hidden // 2, False, RELU),
        layer("projector/2", hidden // 2, _WIDTH, False, IDENTITY),
    )
    path, _ = viewed(checkpoint, "jina_reranker_v3", partial(_fill, checkpoint, config, heads), {})
    said = checkpoint.json("tokenizer_config.json", optional=True).whole("model_max_length")
    return ModelSpec(
        id=entry.id,
        aliases=entry.aliases,
        family="jina_reranker_v3",
        path=str(path),
        source=checkpoint.source,
        revision=checkpoint.revision,
        licence=checkpoint.licence() or entry.licence,
        created=created(checkpoint),
        dimensions=_WIDTH,
        max_tokens=context(entry, config.required("max_position_embeddings"), said),
        pooling=Pooling(("last",)),
        heads=heads,
        literal=True,
        reranker=_PROMPT,
    )


def _fill(checkpoint: Checkpoint, config: Facts, heads: tuple[Dense, ...], view: Path) -> None:
    places = link_weights(checkpoint, view)
    values = {key: config.values[key] for key in config.values if key != "auto_map"}
    write_json(view / "config.json", {**values, "architectures": ["Qwen3Model"]})
    copy_layers(checkpoint, places, view, heads)
