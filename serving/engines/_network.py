"""A checkpoint's network: right-padded token ids through backbone, pooling and heads."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from serving.engines import _bert
from serving.engines._calls import Input, Part, Results
from serving.engines._faults import first_line
from serving.engines._hardware import is_out_of_memory
from serving.engines._pooling import Extent, head, pool
from serving.engines._threaded import Broken, OutOfMemory
from serving.engines._tokens import multi_vectors, span_sums, sparse_weights
from serving.engines._vision import Placed
from serving.models.spec import Adapter, ModelSpec
from serving.operators import declare
from serving.telemetry import SILENT, Telemetry
from serving.values import Floats, Ints

if TYPE_CHECKING:
    from serving.engines._backbone import Transformer

__all__ = ["Network"]

T = TypeVar("T")


class Network:
    """Inputs to vectors, on one device, in one number type. For one thread only."""

    def __init__(
        self,
        spec: ModelSpec,
        device: torch.device,
        dtype: torch.dtype,
        threads: int | None,
        telemetry: Telemetry = SILENT,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._spec = spec
        self._device = device
        multi, sparse = spec.multi, spec.sparse
        self._head = head(spec.path, spec.heads, device)
        self._multi = head(spec.path, [multi.head], device) if multi and multi.head else None
        self._sparse = head(spec.path, [sparse.head], device) if sparse else None
        with torch.inference_mode():
            self._backbone = _backbone(spec, dtype, device, telemetry)

    def __call__(self, inputs: Sequence[Input]) -> Results:
        """See `Compute`."""
        return self._run(partial(self._results, inputs))

    def finish(self, means: Floats) -> Floats:
        """See `Compute`."""
        return self._run(lambda: self._vectors(torch.from_numpy(means).to(self._device)))

    def exchange(self, gone: str | None, come: Adapter | None) -> None:
        """See `Compute`."""
        assert not isinstance(self._backbone, _bert.Encoder)
        self._run(partial(self._backbone.exchange, gone, come))

    def _run(self, work: Callable[[], T]) -> T:
        try:
            with torch.inference_mode():
                return work()
        except torch.AcceleratorError as error:
            raise Broken(first_line(error)) from None
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Out of the handler, the failed try's frames are gone and with them its tensors.
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemory

    def _results(self, inputs: Sequence[Input]) -> Results:
        lengths = [max(len(one.ids), 1) for one in inputs]
        extent = Extent(lengths, [one.skip for one in inputs], self._device)
        states = self._states(inputs, extent)
        array = self._vectors(pool(states, extent, self._spec.pooling.modes))
        if all(one.wanted is None for one in inputs):
            return Results(array)
        return Results(array, self._parts(states, inputs))

    def _vectors(self, pooled: Tensor) -> Floats:
        """Pooled states `[n, width]` float32 to `[n, dimensions]`."""
        vectors: Tensor = self._head(pooled)
        if self._spec.normalize:
            vectors = nn.functional.normalize(vectors, dim=-1)
        array: Floats = vectors.cpu().numpy()
        return array

    def _states(self, inputs: Sequence[Input], extent: Extent) -> Tensor:
        """The backbone's `[n, longest, hidden]`."""
        ids, mask = self._ids(inputs, extent), extent.attended() if extent.padded else None
        if isinstance(self._backbone, _bert.Encoder):
            return self._backbone(ids, mask)
        images = [
            Placed(row, pixels)
            for row, one in enumerate(inputs)
            if one.wanted is not None
            for pixels in one.wanted.pixels
        ]
        return self._backbone(ids, mask, [one.adapter for one in inputs], images)

    def _parts(self, states: Tensor, inputs: Sequence[Input]) -> list[Part]:
        """What the inputs want beside their vectors."""
        sums = span_sums(states, inputs)
        multi = self._multi_vectors(states, inputs)
        sparse = self._sparse_weights(states, inputs)
        return [Part(sums[at], multi.get(at), sparse.get(at)) for at in range(len(inputs))]

    def _multi_vectors(self, states: Tensor, inputs: Sequence[Input]) -> dict[int, Floats]:
        """The multi-vectors of those inputs that want them, by their place in the batch."""
        places = [at for at, one in enumerate(inputs) if one.wanted and one.wanted.multi]
        if not places or self._spec.multi is None:
            return {}
        some, states = [inputs[at] for at in places], _rows(states, places)
        if self._multi is not None:
            projected: Tensor = self._multi(states.float())
        else:
            assert not isinstance(self._backbone, _bert.Encoder)
            projected = self._backbone.project(states, [one.adapter for one in some])
        found = multi_vectors(projected, some, self._spec.multi.skip)
        return dict(zip(places, found, strict=True))

    def _sparse_weights(
        self, states: Tensor, inputs: Sequence[Input]
    ) -> dict[int, tuple[Ints, Floats]]:
        """The sparse weights of those inputs that want them, by their place in the batch."""
        places = [at for at, one in enumerate(inputs) if one.wanted and one.wanted.sparse]
        if not places or self._spec.sparse is None or self._sparse is None:
            return {}
        some = [inputs[at] for at in places]
        scored: Tensor = self._sparse(_rows(states, places).float())
        found = sparse_weights(scored, some, self._spec.sparse.without)
        return dict(zip(places, found, strict=True))

    def _ids(self, inputs: Sequence[Input], extent: Extent) -> Tensor:
        """`[n, longest]`, right-padded."""
        padded = np.full((len(inputs), extent.longest), self._backbone.pad, np.int64)
        for row, one in zip(padded, inputs, strict=True):
            row[: len(one.ids)] = one.ids
        return torch.from_numpy(padded).to(self._device)


def _rows(states: Tensor, places: Sequence[int]) -> Tensor:
    """The states of those inputs; without a copy where it is all of them."""
    return states if len(places) == len(states) else states[list(places)]


def _backbone(
    spec: ModelSpec, dtype: torch.dtype, device: torch.device, telemetry: Telemetry
) -> _bert.Encoder | Transformer:
    """The encoder of our own where the checkpoint is of its kind, else transformers' model."""
    projects = spec.multi is not None and spec.multi.head is None
    if not (spec.adapters or spec.loadable or projects):
        encoder = _bert.load(Path(spec.path) / spec.transformer, dtype, device)
        if encoder is not None:
            return encoder
    declare()
    from serving.engines._backbone import load  # here, because it takes seconds

    return load(spec, dtype, device, telemetry)
