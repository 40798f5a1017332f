"""Lets transformers and vLLM start beside a torchvision or torchaudio built for another torch."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["declare"]

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[object] = []


def declare() -> None:
    """Make this process ready, before anything imports torchvision or torchaudio.

    A CUDA build of torchvision beside a CPU build of torch cannot load its operators, and fails at
    import because it looks them up by name: they are declared here, and nothing calls them. Where
    they do load, the declarations are the same and nothing changes. A torchaudio that cannot be
    loaded counts as absent, as transformers takes it for granted where it is installed.
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
    if not _loads("torchaudio"):
        # Python's own mark for a module that is not to be had.
        sys.modules["torchaudio"] = None  # type: ignore[assignment]


def _loads(name: str) -> bool:
    """Whether a library can be imported, where it is installed at all."""
    if find_spec(name) is None:
        return True
    with suppress(ImportError, OSError):
        import_module(name)
        return True
    return False
