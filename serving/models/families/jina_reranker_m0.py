"""jina-reranker-m0: Qwen2-VL with a small network on the last token, which scores text and images.

The score is the sigmoid of what it says less the mean of that over unrelated pairs.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from serving.models.catalog import Entry
from serving.models.checkpoints import Checkpoint, Facts
from serving.models.families._facts import context, created, viewed
from serving.models.families._qwen_vl import Frame, read_vision, write_config
from serving.models.families._scores import IDENTITY, RELU, copy_layers, layer
from serving.models.spec import Dense, ModelSpec, Pairwise, Pooling
from serving.models.views import link_weights

__all__ = ["read", "recognises"]

_ARCHITECTURE = "JinaVLForRanking"
# What follows is in upstream's code (`compute_score`), not in its files.
_BODY = "**Document**:\n{document}\n**Query**:\n{query}"
_SCORE_TOKEN = 100
_CONTEXT, _QUERY = 10240, 512
_PIXELS = (3136, 602112)
_MEAN = 2.65


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether config.json names upstream's class."""
    config = checkpoint.json("config.json", optional=True)
    return _ARCHITECTURE in config.names("architectures")


def read(checkpoint: Checkpoint, entry: Entry) -> ModelSpec:
    """The facts in the checkpoint's files; `ModelUnavailable` names the file and the reason."""
    config = checkpoint.json("config.json")
    text = config.inner("text_config") if "text_config" in config else config
    hidden = text.required("hidden_size")
    heads = (
        layer("score/0", hidden, hidden, True, RELU),
        layer("score/2", hidden, 1, True, IDENTITY),
    )
    limit = context(entry, text.required("max_position_embeddings"), _CONTEXT)
    path, _ = viewed(checkpoint, "jina_reranker_m0", partial(_fill, checkpoint, config, heads), {})
    return ModelSpec(
        id=entry.id,
        aliases=entry.aliases,
        family="jina_reranker_m0",
        path=str(path),
        source=checkpoint.source,
        revision=checkpoint.revision,
        licence=checkpoint.licence() or entry.licence,
        created=created(checkpoint),
        dimensions=1,
        max_tokens=limit,
        modalities=("text", "image"),
        pooling=Pooling(("last",)),
        heads=heads,
        vision=read_vision(checkpoint, config, entry, Frame(), _PIXELS),
        literal=True,
        reranker=Pairwise(
            opening="",
            body=_BODY,
            closing="",
            last=(_SCORE_TOKEN,),
            document_tokens=max(limit - _QUERY, _QUERY),
            shift=_MEAN,
        ),
    )


def _fill(checkpoint: Checkpoint, config: Facts, heads: tuple[Dense, ...], view: Path) -> None:
    places = link_weights(checkpoint, view)
    write_config(config, view, "qwen2_vl", "Qwen2VLModel")
    copy_layers(checkpoint, places, view, heads)
