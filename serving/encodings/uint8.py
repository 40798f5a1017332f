"""uint8: int8 plus 128, in 1..255, so that a zero component is 128."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from serving.encodings import int8
from serving.values import Floats

__all__ = ["encode"]


def encode(vectors: Floats) -> npt.NDArray[np.uint8]:
    """`[inputs, dimensions]` float32 to `[inputs, dimensions]` uint8."""
    return (int8.encode(vectors).astype(np.int16) + 128).astype(np.uint8)
