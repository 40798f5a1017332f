"""The two heads of bge-m3, and which tokens have no weight."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from serving.models.spec import Dense, MultiVector, SparseWeights
from tests.serving.models.reading import Altered, refusal, rewrite, spec_of

IDENTITY = "torch.nn.modules.linear.Identity"


def test_the_heads_are_those_of_the_files(upstream: Path) -> None:
    spec = spec_of(upstream / "bge_m3")
    colbert = Dense("", "colbert_linear.pt", 64, 24, True, IDENTITY)
    assert spec.multi == MultiVector(24, skip=1, head=colbert)
    sparse = Dense("", "sparse_linear.pt", 64, 1, True, IDENTITY)
    assert spec.sparse == SparseWeights(sparse, (0, 1, 2, 3))
    assert (spec.tasks, spec.heads) == ((), ())


def test_heads_of_half_precision_and_without_a_bias(altered: Altered) -> None:
    path = altered("bge_m3")
    for kind, width in ((torch.float16, 5), (torch.bfloat16, 6), (torch.float64, 7)):
        torch.save({"weight": torch.zeros(width, 64, dtype=kind)}, path / "colbert_linear.pt")
        multi = spec_of(path).multi
        assert multi is not None
        assert multi.head is not None
        assert (multi.head.inputs, multi.head.outputs, multi.head.bias) == (64, width, False)


def test_the_tokens_without_a_weight_are_those_of_the_tokenizer(altered: Altered) -> None:
    path = altered("bge_m3")
    added = json.loads((path / "tokenizer.json").read_text())["added_tokens"]
    mask = next(one["id"] for one in added if one["content"] == "<mask>")
    rewrite(path, "tokenizer_config.json", unk_token={"content": "<mask>"})
    sparse = spec_of(path).sparse
    assert sparse is not None
    assert sparse.without == (0, 1, 2, mask)
    rewrite(path, "tokenizer_config.json", unk_token="<none>")
    assert refusal(path) == "has no token <none> in tokenizer.json"
    rewrite(path, "tokenizer.json", added_tokens=None)
    assert refusal(path) == "has a tokenizer.json without added_tokens"
