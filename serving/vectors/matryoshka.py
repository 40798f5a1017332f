"""Unit length, and the shorter vectors a Matryoshka model nests in its long ones. Pure NumPy."""

from __future__ import annotations

import numpy as np

from serving.values import Floats

__all__ = ["shorten", "unit"]

_LEAST = np.float32(1e-12)  # as torch.nn.functional.normalize: a zero vector stays zero


def unit(vectors: Floats) -> Floats:
    """`[..., d] -> [..., d]` of length one; a zero vector stays zero."""
    norms = np.sqrt(np.einsum("...i,...i->...", vectors, vectors, dtype=np.float32))
    units: Floats = vectors / np.maximum(norms, _LEAST)[..., None]
    return units


def shorten(vectors: Floats, dimensions: int | None, normalized: bool) -> Floats:
    """`[..., d] -> [..., dimensions]`, a new C-contiguous array; None keeps every dimension.

    Of unit length where `normalized`: a prefix of a unit vector is shorter than one.
    """
    prefix = vectors if dimensions is None else vectors[..., :dimensions]
    return unit(prefix) if normalized else np.array(prefix, order="C")
