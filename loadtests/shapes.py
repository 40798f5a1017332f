"""Checkpoints of random weights to measure with: real shapes, in the upstream layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from serving.operators import declare

declare()  # before what follows imports transformers
from tests.upstream.jina_v4 import Shape  # noqa: E402
from tests.upstream.jina_v4 import write as write_jina_v4  # noqa: E402
from tests.upstream.jina_v5 import write_small  # noqa: E402

__all__ = ["SHAPES", "write", "write_qwen3"]

# `v4` is the published config.json of jina-embeddings-v4 (models.md 3.1), `tiny` what the tests
# use, `mid` large enough that a CPU spends its time in products.
SHAPES = {
    "tiny": Shape(),
    "mid": Shape(
        text={
            "hidden_size": 512,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "intermediate_size": 1536,
            "max_position_embeddings": 40000,
        },
        vision={"out_hidden_size": 512},
        mrope=(8, 12, 12),
        rank=16,
        alpha=16,
        projected=128,
    ),
    "v4": Shape(
        text={
            "vocab_size": 151936,
            "hidden_size": 2048,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "intermediate_size": 11008,
            "max_position_embeddings": 128000,
        },
        vision={
            "depth": 32,
            "hidden_size": 1280,
            "num_heads": 16,
            "intermediate_size": 3420,
            "out_hidden_size": 2048,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        mrope=(16, 24, 24),
        patch=14,
        rank=32,
        alpha=32,
        projected=128,
    ),
}


def write(shape: Shape, folder: Path) -> None:
    """Write a jina-embeddings-v4 of that shape as `folder`, whole or not at all."""
    _whole(folder, lambda part: write_jina_v4(part, shape))


def write_qwen3(folder: Path, hidden: int, layers: int, positions: int) -> None:
    """Write a jina-embeddings-v5-text-small of those sizes as `folder`, whole or not at all."""
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "max_position_embeddings": positions,
    }
    _whole(folder, lambda part: write_small(part, **sizes))


def _whole(folder: Path, write_into: Callable[[Path], None]) -> None:
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_into(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
