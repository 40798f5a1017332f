"""How alike vectors are: by their angle, or token by token (late interaction, ColBERT's MaxSim)."""

from __future__ import annotations

import numpy as np

from serving.values import Floats, Ragged

__all__ = ["cosines", "maxsims"]

# Products that are held at a time: 64 MB.
_AT_ONCE = 1 << 24
_LEAST = 1e-12


def cosines(query: Floats, documents: Floats) -> Floats:
    """`[width]` and `[documents, width]`, of any length, to `[documents]`; 0 for a vector of 0.

    Computed in float64, so that equal documents have equal scores wherever they stand.
    """
    one, several = query.astype(np.float64), documents.astype(np.float64)
    lengths = np.linalg.norm(several, axis=1) * np.linalg.norm(one)
    found: Floats = (several @ one / np.maximum(lengths, _LEAST)).astype(np.float32)
    return found


def maxsims(query: Floats, documents: Ragged) -> Floats:
    """For every document, the sum over the query's tokens of each one's best match in it.

    `query` is `[tokens, width]`, its rows and the documents' of unit length: `[documents]` between
    plus and minus `tokens` (Khattab and Zaharia 2020). A document without a row has 0.
    """
    scores = np.zeros(len(documents.counts), np.float32)
    filled = documents.counts > 0
    if not filled.any():
        return scores
    ends = np.cumsum(documents.counts[filled])
    starts = ends - documents.counts[filled]
    values = documents.values
    step = max(1, _AT_ONCE // len(values))
    for first in range(0, len(query), step):
        alike = values @ query[first : first + step].T
        scores[filled] += np.maximum.reduceat(alike, starts, axis=0).sum(axis=1)
    return scores
