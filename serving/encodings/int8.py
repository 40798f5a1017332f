"""int8: every component times 127, rounded to the nearest integer, in -127..127.

Symmetric and without calibration, so that zero stays zero, an opposite vector gives opposite
numbers, cosines survive, and the same vector gives the same numbers on every server. The scale is
the bound of a unit vector's components; longer vectors (`normalized: false`) are clipped to it.
Calibrated ranges (sentence-transformers' `quantize_embeddings`) would need a corpus per model.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from serving.values import Floats

__all__ = ["encode"]

_LARGEST = 127.0


def encode(vectors: Floats) -> npt.NDArray[np.int8]:
    """`[inputs, dimensions]` float32 to `[inputs, dimensions]` int8."""
    numbers: Floats = np.clip(np.rint(vectors * _LARGEST), -_LARGEST, _LARGEST)
    return numbers.astype(np.int8)
