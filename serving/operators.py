"""Lets transformers and vLLM start beside libraries that were built for another torch."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

__all__ = ["UNUSED", "declare"]

UNUSED = ("torchaudio", "torchcodec")
"""What vLLM brings along and nothing here needs: sound and moving pictures."""

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[object] = []


def declare() -> None:
    """Make this process ready, before anything imports transformers or vLLM.

    A CUDA build of torchvision beside a CPU build of torch cannot load its operators, and fails at
    import because it looks them up by name: they are declared here, and nothing calls them. Where
    they do load, the declarations are the same and nothing changes. CUDA builds of the `UNUSED`
    cannot be loaded either, and whoever finds them installed takes them for granted: they count as
    absent.
    """
    if _kept:
        return
    import torch

    _kept.append(torch)
    if torch.version.cuda is not None:
        return
    if find_spec("torchvision") is not None:
        library: Any = torch.library  # without annotations
        library = library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _kept.append(library)  # collected, it would take its declarations along
    for name in UNUSED:
        # Python's own mark for a module that is not to be had.
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
