"""Tiny checkpoints with random weights, in exactly the layouts of the models that are served.

`build(name, folder)` writes one of `NAMES`: file names, tensor names, adapter files, tokenizer and
processor files are upstream's. Shapes, vocabularies and token ids differ on purpose, so nothing
can be hard-coded. Weights are seeded, and the factors of the adapters are large, so that tasks
differ visibly.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from tests.upstream import jina_v3, jina_v4, jina_v5, others

__all__ = ["NAMES", "build"]

_WRITERS: dict[str, Callable[[Path], None]] = {
    "bge_m3": others.write_bge_m3,
    "jina_v3": jina_v3.write_stacked,
    "jina_v3_hf": jina_v3.write_port,
    "jina_v4": jina_v4.write,
    "jina_v5_nano": jina_v5.write_nano,
    "jina_v5_small": jina_v5.write_small,
    "qwen3_embedding": others.write_qwen3_embedding,
}

NAMES: tuple[str, ...] = tuple(_WRITERS)


def build(name: str, folder: Path) -> Path:
    """Write the checkpoint `name` as `folder/name`; its directory. `folder` may not exist yet."""
    path = folder / name
    path.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(40 + NAMES.index(name))
        _WRITERS[name](path)
    return path
