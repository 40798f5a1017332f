"""A checkpoint's network: right-padded token ids through backbone, pooling and heads."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from serving.engines import _bert
from serving.engines._hardware import is_out_of_memory
from serving.engines._pooling import Extent, head, pool
from serving.engines._threaded import Broken, Input, OutOfMemory
from serving.models.spec import ModelSpec
from serving.operators import declare
from serving.values import Floats

__all__ = ["Backbone", "Network"]


class Backbone(Protocol):
    """A transformer."""

    @property
    def pad(self) -> int:
        """The token that fills an input up."""
        ...

    def __call__(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """`ids [n, longest]`, `mask [n, longest]` bool or None where nothing is padded.

        Gives the last layer's token states, `[n, longest, hidden]`.
        """
        ...


class Network:
    """Inputs to vectors, on one device, in one number type. For one thread only."""

    def __init__(
        self, spec: ModelSpec, device: torch.device, dtype: torch.dtype, threads: int | None
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._spec = spec
        self._device = device
        self._head = head(spec, device)
        with torch.inference_mode():
            self._backbone = _backbone(spec, dtype, device)

    def __call__(self, inputs: Sequence[Input]) -> Floats:
        """Inputs to `[inputs, dimensions]`."""
        try:
            with torch.inference_mode():
                return self._vectors(inputs)
        except torch.AcceleratorError as error:
            raise Broken(str(error).strip().partition("\n")[0]) from None
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Out of the handler, the failed try's frames are gone and with them its tensors.
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemory

    def _vectors(self, inputs: Sequence[Input]) -> Floats:
        lengths = [max(len(one.ids), 1) for one in inputs]
        extent = Extent(lengths, [one.skip for one in inputs], self._device)
        mask = extent.attended() if extent.padded else None
        states = self._backbone(self._ids(inputs, extent), mask)
        vectors: Tensor = self._head(pool(states, extent, self._spec.pooling.modes))
        if self._spec.normalize:
            vectors = nn.functional.normalize(vectors, dim=-1)
        array: Floats = vectors.cpu().numpy()
        return array

    def _ids(self, inputs: Sequence[Input], extent: Extent) -> Tensor:
        """`[n, longest]`, right-padded."""
        padded = np.full((len(inputs), extent.longest), self._backbone.pad, np.int64)
        for row, one in zip(padded, inputs, strict=True):
            row[: len(one.ids)] = one.ids
        return torch.from_numpy(padded).to(self._device)


def _backbone(spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> Backbone:
    """The encoder of our own where the checkpoint is of its kind, else transformers' model."""
    if not any(task.adapter for task in spec.tasks):
        encoder = _bert.load(Path(spec.path) / spec.transformer, dtype, device)
        if encoder is not None:
            return encoder
    declare()
    from serving.engines._backbone import load  # here, because it takes seconds

    return load(spec, dtype, device)
