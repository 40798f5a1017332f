"""Scores of documents that were read a block at a time, each block with the query at its end."""

from __future__ import annotations

import numpy as np

from serving.values import Floats, Ints
from serving.vectors.maxsim import cosines

__all__ = ["list_scores"]

_LEAST = np.float32(1e-12)  # so that the weights never add up to nothing


def list_scores(vectors: Floats, inputs: Ints) -> tuple[Floats, Floats]:
    """`[vectors, width]` of raw vectors to the scores `[documents]` and their `[documents, width]`.

    `inputs` is `[vectors]`, ascending: the block that a vector is of, whose last one is the
    query's. The query is the mean of what the blocks say of it, each weighing as much as its most
    relevant document, (1 + cosine) / 2 (`JinaForRanking.rerank`); a score is a cosine with it.
    """
    ends = np.flatnonzero(np.diff(inputs, append=inputs[-1:] + 1))
    queries = vectors[ends]
    weights = np.empty(len(ends), np.float32)
    start = 0
    for block, end in enumerate(ends.tolist()):
        found = cosines(queries[block], vectors[start:end])
        weights[block] = max((1 + found.max(initial=-1)) / 2, _LEAST)
        start = end + 1
    query: Floats = (weights @ queries / weights.sum()).astype(np.float32)
    documents = np.delete(vectors, ends, axis=0)
    return cosines(query, documents), documents
