"""Vectors to numbers of a type: one file a type, the file's name is its name on the wire.

A number type and a wire form are two choices: any type can be written as a JSON list or, for
`base64`, as its little-endian bytes.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import numpy.typing as npt

from serving.folder import Folder
from serving.values import Floats

__all__ = ["ENCODINGS", "Encoding", "encoding"]

ENCODINGS = Folder(__name__, __path__[0])


class Encoding(Protocol):
    """A number type. Encoding modules have a function `encode` of this shape."""

    def encode(self, vectors: Floats) -> npt.NDArray[Any]:
        """`[inputs, dimensions]` float32 to `[inputs, width]` of this number type."""
        ...


def encoding(name: str) -> Encoding:
    """The encoding of that name; KeyError with the choices."""
    return cast(Encoding, ENCODINGS.load(name))
