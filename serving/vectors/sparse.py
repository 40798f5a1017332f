"""Weights of tokens to weights of token ids. Pure NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serving.values import Floats, Ints

__all__ = ["strongest"]


def strongest(ids: Ints, weights: Floats, without: Sequence[int]) -> tuple[Ints, Floats]:
    """The largest weight of every token id: `[tokens]` and `[tokens]` to `[entries]` each.

    The ids ascend. Those in `without` have none, nor have those whose weight is not above zero
    (lexical weights of BGE-M3, arXiv 2402.03216, section 3.2).
    """
    kept = (weights > 0) & ~np.isin(ids, np.asarray(without, np.int32))
    unique, places = np.unique(ids[kept], return_inverse=True)
    largest = np.zeros(len(unique), np.float32)
    np.maximum.at(largest, places, weights[kept])
    return unique.astype(np.int32), largest
