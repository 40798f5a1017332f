"""Sums over pieces of inputs to one mean a vector: late chunks, documents in windows. Pure NumPy.

Spans are `[pieces, 4]` of (vector, input, start, end), as in `serving.values.Prepared`.
"""

from __future__ import annotations

import numpy as np

from serving.values import Floats, Ints

__all__ = ["add_sums", "means", "of_inputs"]


def of_inputs(spans: Ints, inputs: int) -> list[Ints]:
    """The spans of every input, each `[pieces, 4]` and in the order they are given in."""
    order = np.argsort(spans[:, 1], kind="stable")
    bounds = np.searchsorted(spans[order, 1], np.arange(1, inputs))
    return np.split(spans[order], bounds)


def add_sums(totals: Floats, spans: Ints, sums: Floats) -> None:
    """Add `sums` `[pieces, hidden]` of token states to their vectors' `totals` `[vectors, hidden]`.

    Several pieces may belong to one vector.
    """
    np.add.at(totals, spans[:, 0], sums)


def means(totals: Floats, spans: Ints) -> Floats:
    """`[vectors, hidden]`: totals by the number of their tokens, so that each weighs the same.

    A vector without a token is zero.
    """
    counts = np.zeros(len(totals), np.int64)
    np.add.at(counts, spans[:, 0], spans[:, 3] - spans[:, 2])
    averaged: Floats = totals / np.maximum(counts, 1).astype(np.float32)[:, None]
    return averaged
