"""Token states to what a job wants beside pooled vectors: sums by span, multi-vectors, weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from serving.engines._calls import Input
from serving.values import Floats, Ints
from serving.vectors.sparse import strongest

__all__ = ["multi_vectors", "span_sums", "sparse_weights"]


def span_sums(states: Tensor, inputs: Sequence[Input]) -> list[Floats | None]:
    """`[pieces, hidden]` for every input with spans: raw states, added up in float32."""
    spans = [None if one.wanted is None else one.wanted.spans for one in inputs]
    sums = [
        states[row, start:end].sum(dim=0, dtype=torch.float32)
        for row, some in enumerate(spans)
        if some is not None
        for _, _, start, end in some.tolist()
    ]
    counts = [None if some is None else len(some) for some in spans]
    return _split(torch.stack(sums) if sums else states.new_empty(0, states.shape[-1]), counts)


def multi_vectors(projected: Tensor, inputs: Sequence[Input], skip: int) -> list[Floats]:
    """`[n, longest, width]` to unit rows for every input's tokens, but the `skip` first ones."""
    counts = [max(len(one.ids) - skip, 0) for one in inputs]
    rows = [projected[row, skip : skip + count] for row, count in enumerate(counts)]
    units = nn.functional.normalize(torch.cat(rows).float(), dim=-1)
    return [one for one in _split(units, counts) if one is not None]


def sparse_weights(
    scored: Tensor, inputs: Sequence[Input], without: Sequence[int]
) -> list[tuple[Ints, Floats]]:
    """`[n, longest, 1]` to the weights of every input's token ids."""
    weights: Floats = torch.relu(scored[..., 0].float()).cpu().numpy()
    return [
        strongest(one.ids, row[: len(one.ids)], without)
        for one, row in zip(inputs, weights, strict=True)
    ]


def _split(values: Tensor, counts: Sequence[int | None]) -> list[Floats | None]:
    """Rows off the device in one piece, and then to each its own; None where there is no count."""
    parts = iter(np.split(values.cpu().numpy(), np.cumsum([n for n in counts if n is not None])))
    return [None if count is None else next(parts) for count in counts]
