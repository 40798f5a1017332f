"""Tiny checkpoints with random weights, in exactly the layouts of the models that are served.

`build(name, folder)` writes one of `NAMES` (which embed) or `RERANKERS`: file names, tensor names,
adapter files, tokenizer and processor files are upstream's. Shapes, vocabularies and token ids
differ on purpose, so nothing can be hard-coded. Weights are seeded, and the factors of the adapters
are large, so that tasks differ visibly.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from tests.upstream import jina_v3, jina_v4, jina_v5, others, rerankers

__all__ = ["NAMES", "RERANKERS", "build"]

_WRITERS: dict[str, Callable[[Path], None]] = {
    "bge_m3": others.write_bge_m3,
    "jina_v3": jina_v3.write_stacked,
    "jina_v3_hf": jina_v3.write_port,
    "jina_v4": jina_v4.write,
    "jina_v5_nano": jina_v5.write_nano,
    "jina_v5_small": jina_v5.write_small,
    "qwen3_embedding": others.write_qwen3_embedding,
}
_RERANKERS: dict[str, Callable[[Path], None]] = {
    "jina_reranker_m0": rerankers.write_m0,
    "jina_reranker_v3": rerankers.write_v3,
    "qwen3_reranker": rerankers.write_qwen3_reranker,
}

NAMES: tuple[str, ...] = tuple(_WRITERS)
RERANKERS: tuple[str, ...] = tuple(_RERANKERS)


def build(name: str, folder: Path) -> Path:
    """Write the checkpoint `name` as `folder/name`; its directory. `folder` may not exist yet."""
    path = folder / name
    path.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(40 + (*NAMES, *RERANKERS).index(name))
        (_WRITERS | _RERANKERS)[name](path)
    return path
