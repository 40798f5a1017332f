"""safetensors files without a framework: raw tensors out of one, and into a new one.

numpy has no bfloat16, and nothing here computes: a tensor is its bits, as whole numbers of its
width. The format: the header's length in eight bytes, little-endian, the header as JSON, the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from serving.models.checkpoints import Checkpoint
from serving.values import Floats

__all__ = ["Tensor", "Tensors", "load", "save"]

_WIDTHS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
_PREFIX = 8
_LARGEST_HEADER = 100_000_000  # the format's own bound


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """Bits of a tensor: `kind` is the format's name for its type (`BF16`), `bits` has its shape."""

    kind: str
    bits: npt.NDArray[Any]  # whole numbers as wide as the type

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes, outermost first."""
        return self.bits.shape

    def __getitem__(self, index: int | slice) -> Tensor:
        return Tensor(self.kind, self.bits[index])

    def floats(self) -> Floats:
        """Its numbers, exactly. `ValueError` where it is of another type than F32, F16 or BF16."""
        match self.kind:
            case "F32":
                return np.ascontiguousarray(self.bits).view(np.float32)
            case "F16":
                return np.ascontiguousarray(self.bits).view(np.float16).astype(np.float32)
            case "BF16":
                return (self.bits.astype(np.uint32) << 16).view(np.float32)
        raise ValueError(f"{self.kind} is no type that weights have")

    @classmethod
    def of(cls, floats: Floats) -> Tensor:
        """Those numbers as F32."""
        return cls("F32", np.ascontiguousarray(floats).view(np.uint32))

    def transposed(self) -> Tensor:
        """The same numbers, `[a, b]` as `[b, a]`."""
        return Tensor(self.kind, self.bits.T)


Tensors: TypeAlias = Mapping[str, Tensor]


def load(checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
    """The tensors of a file of the checkpoint. Only the header is read; the rest is mapped.

    `ModelUnavailable` where it is missing, a Git LFS pointer, cut short or of another format.
    """
    path = checkpoint.binary(name)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_PREFIX), "little")
        head = file.read(min(length, _LARGEST_HEADER))
    try:
        header: dict[str, dict[str, Any]] = json.loads(head)
        header.pop("__metadata__", None)
        ends = [one["data_offsets"][1] for one in header.values()]
        missing = _PREFIX + length + max(ends, default=0) - size
        if missing > 0:
            raise checkpoint.fault(f"has a {name} that is cut short by {missing} bytes")
        data = np.memmap(path, np.uint8, "r")[_PREFIX + length :]
        return {key: _tensor(data, one) for key, one in header.items()}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise checkpoint.fault(f"has a {name} that is not a safetensors file") from None


def _tensor(data: npt.NDArray[np.uint8], entry: Mapping[str, Any]) -> Tensor:
    kind = str(entry["dtype"])
    start, end = entry["data_offsets"]
    bits = data[start:end].view(f"u{_WIDTHS[kind]}").reshape(entry["shape"])
    return Tensor(kind, bits)


def save(path: Path, tensors: Tensors) -> None:
    """A new file with those tensors. `OSError` where it cannot be written."""
    # Wide types first, as the format asks for, so that every tensor is aligned.
    names = sorted(tensors, key=lambda name: (-_WIDTHS[tensors[name].kind], name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in names:
        one = tensors[name]
        end = at + one.bits.nbytes
        header[name] = {"dtype": one.kind, "shape": list(one.shape), "data_offsets": [at, end]}
        at = end
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % _PREFIX)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(_PREFIX, "little") + head)
        for name in names:
            file.write(np.ascontiguousarray(tensors[name].bits).data)
