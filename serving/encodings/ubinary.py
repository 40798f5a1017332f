"""ubinary: one bit a component, 1 where it is above zero, most significant bit first, as bytes.

The last byte of a width that is no multiple of eight is filled with zero bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from serving.values import Floats

__all__ = ["encode"]


def encode(vectors: Floats) -> npt.NDArray[np.uint8]:
    """`[inputs, dimensions]` float32 to `[inputs, ceil(dimensions / 8)]` uint8."""
    return np.packbits(vectors > 0, axis=1)
