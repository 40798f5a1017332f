"""The shape of a linear layer that torch has pickled, found without running or importing anything.

torch.save writes a zip file: `data.pkl` names the type of each storage, `data/N` are their bytes.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import PurePosixPath
from typing import NamedTuple

from serving.models.checkpoints import Checkpoint

__all__ = ["Linear", "linear"]

_WIDTHS = {"DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2}


class Linear(NamedTuple):
    """Its sizes."""

    inputs: int
    outputs: int
    bias: bool


def linear(checkpoint: Checkpoint, name: str, inputs: int) -> Linear:
    """The layer in that file, which has to take `inputs`; `ModelUnavailable` where it does not.

    A weight `[outputs, inputs]` and perhaps a bias `[outputs]`.
    """
    path = checkpoint.binary(name)
    try:
        with zipfile.ZipFile(path) as archive:
            files = {PurePosixPath(one.filename): one for one in archive.infolist()}
            sizes = [one.file_size for place, one in files.items() if place.parent.name == "data"]
            [pickled] = [one for place, one in files.items() if place.name == "data.pkl"]
            strings = [str(arg) for _, arg, _ in pickletools.genops(archive.read(pickled)) if arg]
    except (zipfile.BadZipFile, ValueError, OSError):
        raise checkpoint.fault(f"has a {name} that is not a file of torch.save") from None
    widths = {_WIDTHS[word] for one in strings for word in one.split() if word in _WIDTHS}
    row = inputs * min(widths, default=0)
    weight, *rest = sorted(sizes, reverse=True) or [0]
    outputs = weight // row if row else 0
    biases = [outputs * min(widths, default=0)]
    if len(widths) != 1 or not outputs or weight % row or rest not in ([], biases):
        raise checkpoint.fault(f"has a {name} that is not a linear layer with {inputs} inputs")
    return Linear(inputs, outputs, bool(rest))
