"""How much arithmetic an embedding takes, from a checkpoint's config.json: operations on floats.

A product of an m x k by a k x n matrix counts as 2mkn, as is usual; only products are counted, not
the norms, rotations and activations between them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Language", "Sight", "read"]


@dataclass(frozen=True, slots=True)
class Language:
    """A decoder's sizes; `rank` is that of the adapter on its seven products (0: none)."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head: int
    inner: int
    rank: int = 0

    def weights(self) -> int:
        """Numbers in one layer's products."""
        return sum(a * b for a, b in self._products())

    def per_token(self) -> int:
        """Operations a token, without attention."""
        lora = sum(self.rank * (a + b) for a, b in self._products())
        return 2 * self.layers * (self.weights() + lora)

    def attention(self, tokens: int) -> int:
        """Operations of causal attention over an input: half of all pairs, twice."""
        return 2 * self.layers * self.heads * self.head * tokens * tokens

    def operations(self, lengths: Sequence[int]) -> int:
        """Operations of a batch of inputs of those lengths."""
        return self.per_token() * sum(lengths) + sum(map(self.attention, lengths))

    def _products(self) -> tuple[tuple[int, int], ...]:
        wide, narrow = self.heads * self.head, self.kv_heads * self.head
        attention = ((self.hidden, wide), (self.hidden, narrow), (self.hidden, narrow))
        mlp = ((self.hidden, self.inner), (self.hidden, self.inner), (self.inner, self.hidden))
        return (*attention, (wide, self.hidden), *mlp)


@dataclass(frozen=True, slots=True)
class Sight:
    """A Qwen2.5-VL vision tower's sizes: most layers attend within a window, `full` to everything.

    `window` is in patches a window, `merge` in patches a side of a token.
    """

    layers: int
    full: int
    hidden: int
    inner: int
    out: int
    inputs: int
    window: int
    merge: int

    def operations(self, patches: int) -> int:
        """Operations of one image of so many patches, up to the language model's tokens."""
        layer = 4 * self.hidden * self.hidden + 3 * self.hidden * self.inner
        linear = 2 * patches * (self.layers * layer + self.inputs * self.hidden)
        pairs = patches * (self.full * patches + (self.layers - self.full) * self.window)
        merged = self.hidden * self.merge**2
        merger = 2 * (patches // self.merge**2) * merged * (merged + self.out)
        return linear + 4 * self.hidden * pairs + merger


def read(config: Path, rank: int) -> tuple[Language, Sight | None]:
    """The sizes in a config.json, of a text model (no sight) or of a Qwen2.5-VL."""
    facts: Mapping[str, Any] = json.loads(config.read_text(encoding="utf-8"))
    text = facts.get("text_config", facts)
    heads = text["num_attention_heads"]
    language = Language(
        layers=text["num_hidden_layers"],
        hidden=text["hidden_size"],
        heads=heads,
        kv_heads=text.get("num_key_value_heads", heads),
        head=text.get("head_dim") or text["hidden_size"] // heads,
        inner=text["intermediate_size"],
        rank=rank,
    )
    vision = facts.get("vision_config")
    return language, None if vision is None else _sight(vision)


def _sight(vision: Mapping[str, Any]) -> Sight:
    patch = vision["patch_size"]
    return Sight(
        layers=vision["depth"],
        full=len(vision["fullatt_block_indexes"]),
        hidden=vision["hidden_size"],
        inner=vision["intermediate_size"],
        out=vision["out_hidden_size"],
        inputs=3 * vision.get("temporal_patch_size", 2) * patch * patch,
        window=(vision["window_size"] // patch) ** 2,
        merge=vision["spatial_merge_size"],
    )
