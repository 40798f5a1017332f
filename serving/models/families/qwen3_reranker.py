"""Qwen3-Reranker: a causal Qwen3 that is asked for yes or no, and how much sooner it says yes.

P(yes) of the two is the sigmoid of the difference of their logits, so its head is one row: what the
output layer has for `yes` less what it has for `no`.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from serving.models.catalog import Entry
from serving.models.checkpoints import Checkpoint, Facts
from serving.models.families._facts import context, created, tensor_of, viewed
from serving.models.families._scores import IDENTITY, layer, write_layer
from serving.models.spec import Dense, ModelSpec, Pairwise, Pooling
from serving.models.tensors import Tensor
from serving.models.views import link_weights, write_json

__all__ = ["read", "recognises"]

_ARCHITECTURE = "Qwen3ForCausalLM"
_RANKING = re.compile(r"^pipeline_tag: *[\"']?text-ranking\b", re.MULTILINE)
# Of the model card, byte for byte.
_OPENING = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and"
    ' the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
_BODY = "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
_CLOSING = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
_YES, _NO = "yes", "no"


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether it is a causal Qwen3 whose card says that it ranks texts."""
    config = checkpoint.json("config.json", optional=True)
    if config.names("architectures") != (_ARCHITECTURE,) or not checkpoint.has("README.md"):
        return False
    front = checkpoint.text("README.md").split("\n---", 1)[0]
    return _RANKING.search(front) is not None


def read(checkpoint: Checkpoint, entry: Entry) -> ModelSpec:
    """The facts in the checkpoint's files; `ModelUnavailable` names the file and the reason."""
    config = checkpoint.json("config.json")
    head = layer("head", config.required("hidden_size"), 1, False, IDENTITY)
    fill = partial(_fill, checkpoint, config, head)
    path, _ = viewed(checkpoint, "qwen3_reranker", fill, {})
    return ModelSpec(
        id=entry.id,
        aliases=entry.aliases,
        family="qwen3_reranker",
        path=str(path),
        source=checkpoint.source,
        revision=checkpoint.revision,
        licence=checkpoint.licence() or entry.licence,
        created=created(checkpoint),
        dimensions=1,
        max_tokens=context(entry, config.required("max_position_embeddings")),
        pooling=Pooling(("last",)),
        heads=(head,),
        literal=True,
        reranker=Pairwise(_OPENING, _BODY, _CLOSING, instruction=_INSTRUCTION),
    )


def _fill(checkpoint: Checkpoint, config: Facts, head: Dense, view: Path) -> None:
    places = link_weights(checkpoint, view)
    write_json(view / "config.json", config.values)
    tied = config.flag("tie_word_embeddings") or "lm_head.weight" not in places
    name = "model.embed_tokens.weight" if tied else "lm_head.weight"
    shape = config.required("vocab_size"), head.inputs
    outputs = tensor_of(checkpoint, places, name, shape)
    yes, no = (outputs[_id(checkpoint, word)].floats() for word in (_YES, _NO))
    write_layer(view, head, {"weight": Tensor.of((yes - no)[None])})


def _id(checkpoint: Checkpoint, word: str) -> int:
    """The token that a word is, by the vocabulary."""
    found = checkpoint.json("vocab.json", optional=True).whole(word)
    if found is None:
        tokenizer = checkpoint.json("tokenizer.json")
        found = tokenizer.inner("model").inner("vocab").whole(word)
    if found is None:
        raise checkpoint.fault(f"has no token {word!r} in its vocabulary")
    return found
