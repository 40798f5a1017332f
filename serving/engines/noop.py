"""No weights: the same tokens always give the same unit vector. For tests and our own overhead.

The road of an input is the real one (queue, batch, thread); only the model is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np
import numpy.typing as npt

from serving.engines import EngineOptions
from serving.engines._calls import Input, Part, Results, Wanted
from serving.engines._threaded import ThreadedEngine
from serving.models.spec import Adapter, ModelSpec
from serving.telemetry import SILENT, Telemetry
from serving.telemetry.engines import AdapterMetrics
from serving.values import Floats, Ints
from serving.vectors.matryoshka import unit
from serving.vectors.sparse import strongest

__all__ = ["load"]

_Hashes = npt.NDArray[np.uint64]

_TABLE = 1 << 16
_ODD = np.uint64(0x9E3779B97F4A7C15)  # of SplitMix64, and so are the two below
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def load(spec: ModelSpec, options: EngineOptions, telemetry: Telemetry = SILENT) -> ThreadedEngine:
    """An engine for any model's tokens, with that model's widths."""
    batch_tokens = options.batch_tokens or 16384
    return ThreadedEngine(
        spec,
        lambda: _Hash(spec, AdapterMetrics(telemetry, spec.id)),
        batch_tokens=batch_tokens,
        queue_tokens=options.queue_tokens or 64 * batch_tokens,
        telemetry=telemetry,
    )


class _Hash:
    """The sum of two windows of a fixed random table, at places that all the tokens decide."""

    def __init__(self, spec: ModelSpec, told: AdapterMetrics) -> None:
        self._told = told
        self._windows = _windows(spec.dimensions)
        self._wide = _windows(spec.multi.dimensions) if spec.multi else self._windows
        self._skip = spec.multi.skip if spec.multi else 0
        self._without = spec.sparse.without if spec.sparse else ()
        self._salts = {one.name: _salt(one.name) for one in spec.adapters}

    def __call__(self, inputs: Sequence[Input]) -> Results:
        lengths = np.array([len(one.ids) for one in inputs])
        flat = np.concatenate([one.ids for one in inputs]).astype(np.uint64)
        starts = np.cumsum(lengths) - lengths
        places = np.arange(len(flat)) - np.repeat(starts, lengths)
        plain = all(one.wanted is None for one in inputs)
        if self._salts or not plain:
            self._salt(flat, inputs, starts)
        mixed = _mixed(flat + (places + 1).astype(np.uint64) * _ODD)
        sums = np.add.reduceat(np.append(mixed, np.uint64(0)), starts)
        hashes = _mixed(np.where(lengths > 0, sums, np.uint64(0)))
        array = unit(_rows(self._windows, hashes))
        if plain:
            return Results(array)
        tokens = np.split(mixed, starts[1:])
        return Results(array, [self._part(*one) for one in zip(inputs, tokens, strict=True)])

    def finish(self, means: Floats) -> Floats:
        """Of unit length, as every vector here."""
        return unit(means)

    def exchange(self, gone: str | None, come: Adapter | None) -> None:
        """See `Compute`."""
        if gone is not None:
            del self._salts[gone]
            self._told.dropped()
        if come is not None:
            with self._told.loading():
                self._salts[come.name] = _salt(come.name)

    def _salt(self, flat: _Hashes, inputs: Sequence[Input], starts: npt.NDArray[np.int64]) -> None:
        """Let adapters and images take part: in the hash of every token that they change."""
        for one, start in zip(inputs, starts, strict=True):
            if one.adapter is not None:
                flat[start : start + len(one.ids)] ^= self._salts[one.adapter] << np.uint64(32)
            for pixels in one.wanted.pixels if one.wanted else ():
                at = start + pixels.at
                content = np.uint64(crc32(pixels.array.tobytes()))
                flat[at : at + pixels.tokens] ^= content << np.uint64(24)

    def _part(self, one: Input, tokens: _Hashes) -> Part:
        wanted = one.wanted or Wanted()
        sums: Floats | None = None
        if wanted.spans is not None:
            states = _rows(self._windows, tokens)
            sums = np.empty((len(wanted.spans), states.shape[1]), np.float32)
            for row, (_, _, start, end) in zip(sums, wanted.spans.tolist(), strict=True):
                row[:] = states[start:end].sum(axis=0)
        multi = unit(_rows(self._wide, tokens[self._skip :])) if wanted.multi else None
        sparse = self._weights(one.ids, tokens) if wanted.sparse else None
        return Part(sums, multi, sparse)

    def _weights(self, ids: Ints, tokens: _Hashes) -> tuple[Ints, Floats]:
        """About half of the weights are above zero."""
        weights: Floats = (tokens >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - 1
        return strongest(ids, weights, self._without)


def _salt(name: str) -> np.uint64:
    return np.uint64(crc32(name.encode()))


def _windows(width: int) -> Floats:
    table = np.random.default_rng(0).standard_normal(_TABLE + width, np.float32)
    windows: Floats = np.lib.stride_tricks.sliding_window_view(table, width)
    return windows


def _rows(windows: Floats, hashes: _Hashes) -> Floats:
    """`[n] -> [n, width]`: two windows of each hash, added up."""
    high, low = hashes >> np.uint64(48), hashes & np.uint64(_TABLE - 1)
    rows: Floats = windows[high] + windows[low]
    return rows


def _mixed(numbers: _Hashes) -> _Hashes:
    """SplitMix64's finalizer: every bit of a number depends on all of its bits."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _MIX[0]
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _MIX[1]
    return numbers ^ (numbers >> np.uint64(31))
