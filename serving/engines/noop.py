"""No weights: the same tokens always give the same unit vector. For tests and our own overhead.

The road of an input is the real one (queue, batch, thread); only the model is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serving.engines import EngineOptions
from serving.engines._threaded import Input, ThreadedEngine
from serving.models.spec import ModelSpec
from serving.values import Floats
from serving.vectors.matryoshka import unit

__all__ = ["load"]

_TABLE = 1 << 16
_ODD = np.uint64(0x9E3779B97F4A7C15)  # of SplitMix64, and so are the two below
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def load(spec: ModelSpec, options: EngineOptions) -> ThreadedEngine:
    """An engine for any text model's tokens, with that model's width."""
    batch_tokens = options.batch_tokens or 16384
    return ThreadedEngine(
        spec,
        lambda: _Hash(spec.dimensions),
        batch_tokens=batch_tokens,
        queue_tokens=options.queue_tokens or 64 * batch_tokens,
    )


class _Hash:
    """The sum of two windows of a fixed random table, at places that all the tokens decide."""

    def __init__(self, dimensions: int) -> None:
        table = np.random.default_rng(0).standard_normal(_TABLE + dimensions, np.float32)
        self._windows = np.lib.stride_tricks.sliding_window_view(table, dimensions)

    def __call__(self, inputs: Sequence[Input]) -> Floats:
        lengths = np.array([len(one.ids) for one in inputs])
        flat = np.concatenate([one.ids for one in inputs]).astype(np.uint64)
        starts = np.cumsum(lengths) - lengths
        places = np.arange(len(flat)) - np.repeat(starts, lengths)
        mixed = _mixed(flat + (places + 1).astype(np.uint64) * _ODD)
        sums = np.add.reduceat(np.append(mixed, np.uint64(0)), starts)
        hashes = _mixed(np.where(lengths > 0, sums, np.uint64(0)))
        high, low = hashes >> np.uint64(48), hashes & np.uint64(_TABLE - 1)
        return unit(self._windows[high] + self._windows[low])


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finalizer: every bit of a number depends on all of its bits."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _MIX[0]
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _MIX[1]
    return numbers ^ (numbers >> np.uint64(31))
