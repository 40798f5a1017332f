"""bge-m3: dense, multi-vector and sparse from one forward, by two heads in files of their own.

A sentence-transformers checkpoint that loads as it is, with colbert_linear.pt and sparse_linear.pt
beside its weights.
"""

from __future__ import annotations

import json
from dataclasses import replace

from serving.models.catalog import Entry
from serving.models.checkpoints import Checkpoint
from serving.models.families import sentence_transformers
from serving.models.pickled import linear
from serving.models.spec import Dense, ModelSpec, MultiVector, SparseWeights

__all__ = ["read", "recognises"]

_MULTI, _SPARSE = "colbert_linear.pt", "sparse_linear.pt"
_IDENTITY = "torch.nn.modules.linear.Identity"
# Special tokens that never have a weight, under the names of tokenizer_config.json; and what
# XLM-R's tokenizer calls them where it does not say so.
_WITHOUT = {"cls_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
_ADDED = '"added_tokens":'


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether there is one of its heads."""
    return checkpoint.has(_MULTI) or checkpoint.has(_SPARSE)


def read(checkpoint: Checkpoint, entry: Entry) -> ModelSpec:
    """The facts in the checkpoint's files; `ModelUnavailable` names the file and the reason."""
    spec = sentence_transformers.read(checkpoint, entry)
    hidden = checkpoint.json("config.json").required("hidden_size")
    multi = _head(checkpoint, _MULTI, hidden)
    sparse = _head(checkpoint, _SPARSE, hidden)
    if sparse.outputs != 1:
        raise checkpoint.fault(
            f"has a {_SPARSE} with {sparse.outputs} outputs; there is one weight"
        )
    return replace(
        spec,
        family="bge_m3",
        # The first token is the dense vector's alone; the closing one has a vector too.
        multi=MultiVector(multi.outputs, skip=1, head=multi),
        sparse=SparseWeights(sparse, _without(checkpoint)),
        late_chunking=False,
    )


def _head(checkpoint: Checkpoint, name: str, hidden: int) -> Dense:
    shape = linear(checkpoint, name, hidden)
    return Dense("", name, shape.inputs, shape.outputs, shape.bias, _IDENTITY)


def _without(checkpoint: Checkpoint) -> tuple[int, ...]:
    """The ids of the special tokens that have no weight, ascending."""
    facts = checkpoint.json("tokenizer_config.json", optional=True).values
    words = set()
    for role, usual in _WITHOUT.items():
        said = facts.get(role)
        said = said.get("content") if isinstance(said, dict) else said
        words.add(said if isinstance(said, str) else usual)
    ids = _added(checkpoint)
    missing = sorted(words - ids.keys())
    if missing:
        raise checkpoint.fault(f"has no token {missing[0]} in tokenizer.json")
    return tuple(sorted({ids[word] for word in words}))


def _added(checkpoint: Checkpoint) -> dict[str, int]:
    """The added tokens of tokenizer.json, which come before its long vocabulary."""
    text = checkpoint.text("tokenizer.json")
    at = text.find(_ADDED)
    try:
        listed, _ = json.JSONDecoder().raw_decode(text[at + len(_ADDED) :].lstrip())
        return {str(one["content"]): int(one["id"]) for one in listed}
    except (ValueError, TypeError, KeyError):
        raise checkpoint.fault("has a tokenizer.json without added_tokens") from None
