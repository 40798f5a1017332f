"""binary: ubinary minus 128, an offset and not a two's complement view.

Clients add the 128 back before they unpack the bits (llama-index; api.md 1.2, measured pair
ubinary [50, 193, 128, 255] and binary [-78, 65, 0, 127]).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from serving.encodings import ubinary
from serving.values import Floats

__all__ = ["encode"]


def encode(vectors: Floats) -> npt.NDArray[np.int8]:
    """`[inputs, dimensions]` float32 to `[inputs, ceil(dimensions / 8)]` int8."""
    return (ubinary.encode(vectors).astype(np.int16) - 128).astype(np.int8)
