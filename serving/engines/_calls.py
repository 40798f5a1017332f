"""One job on its way through an engine: checked, cut into inputs, its answer put together again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import NamedTuple, TypeAlias

import numpy as np

from serving.errors import DeadlinePassed, InvalidInput, PolyvecError, TokenLimitExceeded
from serving.models.spec import ModelSpec, Vision
from serving.values import Floats, Ints, Output, Pixels, Prepared, Ragged, Sparse, Vectors
from serving.vectors.matryoshka import shorten
from serving.vectors.spans import add_sums, means, of_inputs

__all__ = [
    "Call",
    "Input",
    "Part",
    "Rest",
    "Results",
    "Settled",
    "Wanted",
    "admitted",
    "another",
    "deliver",
    "late",
    "send",
    "settle",
    "shaped",
]


class Wanted(NamedTuple):
    """What an input gives beside its pooled vector, and the images in it.

    `spans` is `[pieces, 4]` with this input's pieces only; the places of `pixels` are places among
    this input's own tokens.
    """

    spans: Ints | None = None
    multi: bool = False
    sparse: bool = False
    pixels: tuple[Pixels, ...] = ()


class Input(NamedTuple):
    """One input as the model sees it: `ids` is `[tokens]`; see `Prepared` for `skip`.

    `wanted` is None where the input is a text that becomes one pooled vector and nothing else.
    """

    ids: Ints
    skip: int
    adapter: str | None
    wanted: Wanted | None = None


class Part(NamedTuple):
    """What an input gave beside its vector, as far as it was wanted.

    `sums` is `[pieces, hidden]` of raw token states, `multi` `[rows, width]`, `sparse` ids and
    weights of `[entries]`.
    """

    sums: Floats | None = None
    multi: Floats | None = None
    sparse: tuple[Ints, Floats] | None = None


class Results(NamedTuple):
    """A batch's: `array` is `[inputs, dimensions]`; `parts` is empty or has one for every input."""

    array: Floats
    parts: Sequence[Part] = ()


class Rest:
    """What a job wants beside one pooled vector an input, and what is ready of it."""

    def __init__(self, prepared: Prepared, ends: Sequence[int]) -> None:
        inputs, output = len(ends), prepared.output
        self._output = output
        self._spans = prepared.spans if output.dense else None
        self._vectors = prepared.vectors
        self._totals: Floats | None = None
        self._parts = [Part()] * inputs
        spans = [None] * inputs if self._spans is None else of_inputs(self._spans, inputs)
        self.wanted = [
            Wanted(pieces, output.multi, output.sparse, pixels)
            for pieces, pixels in zip(spans, _by_input(prepared.pixels, ends), strict=True)
        ]

    def take(self, place: int, part: Part) -> None:
        """What the input at `place` gave."""
        spans = self.wanted[place].spans
        if spans is not None and part.sums is not None:
            if self._totals is None:
                self._totals = np.zeros((self._vectors, part.sums.shape[1]), np.float32)
            add_sums(self._totals, spans, part.sums)
        self._parts[place] = Part(None, part.multi, part.sparse)

    def means(self) -> Floats | None:
        """`[vectors, hidden]` over the spans; None where there are none."""
        if self._spans is None or self._totals is None:
            return None
        return means(self._totals, self._spans)

    def beside(self, spec: ModelSpec) -> tuple[Ragged | None, Sparse | None]:
        """The multi-vectors and the sparse weights of all the inputs, as far as asked for."""
        multi = self._ragged(spec.multi.dimensions) if self._output.multi and spec.multi else None
        return multi, self._sparse() if self._output.sparse else None

    def _ragged(self, width: int) -> Ragged:
        values = [one.multi for one in self._parts if one.multi is not None]
        counts = np.array([len(one) for one in values], np.int32)
        return Ragged(np.concatenate(values or [np.empty((0, width), np.float32)]), counts)

    def _sparse(self) -> Sparse:
        entries = [one.sparse for one in self._parts if one.sparse is not None]
        counts = np.array([len(ids) for ids, _ in entries], np.int32)
        ids = [np.empty(0, np.int32), *(ids for ids, _ in entries)]
        weights = [np.empty(0, np.float32), *(weights for _, weights in entries)]
        return Sparse(np.concatenate(ids), np.concatenate(weights), counts)


@dataclass(slots=True, eq=False)
class Call:
    """One caller that waits, and what is ready of its answer: `left` inputs are not.

    `rest` is None where nothing is wanted but a pooled vector for every text.
    """

    prepared: Prepared
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Vectors]
    ends: list[int]
    array: Floats
    left: int
    rest: Rest | None = None
    began: float = 0.0
    queue_s: float = 0.0

    def input(self, place: int) -> Input:
        """The input at that place."""
        start = self.ends[place - 1] if place else 0
        prepared, rest = self.prepared, self.rest
        ids = prepared.ids[start : self.ends[place]]
        wanted = None if rest is None else rest.wanted[place]
        return Input(ids, prepared.skip, prepared.adapter, wanted)

    def vectors(self, spec: ModelSpec, array: Floats, ended: float) -> Vectors:
        """The answer with its dense vectors `array`, once nothing is left."""
        infer_s = ended - self.began
        if self.rest is None:
            return Vectors(array, self.queue_s, infer_s)
        return Vectors(array, self.queue_s, infer_s, *self.rest.beside(spec))


Settled: TypeAlias = tuple[Call, Vectors | PolyvecError]
"""A caller and its answer."""


def admitted(spec: ModelSpec, adapters: frozenset[str], prepared: Prepared) -> list[int]:
    """The lengths of a job's inputs, once it is one that an engine of that model can run."""
    adapter, output = prepared.adapter, prepared.output
    if adapter is not None and adapter not in adapters:
        raise InvalidInput(f"{spec.id} has no adapter {adapter!r} loaded", "task")
    wanted = output.dimensions
    if wanted is not None and not 1 <= wanted <= spec.dimensions:
        raise InvalidInput(
            f"{spec.id} has {spec.dimensions} dimensions, not {wanted}", "dimensions"
        )
    if output.multi and spec.multi is None:
        raise InvalidInput(f"{spec.id} has no multi-vectors", "output")
    if output.sparse and spec.sparse is None:
        raise InvalidInput(f"{spec.id} has no sparse weights", "output")
    lengths: list[int] = prepared.lengths.tolist()
    if lengths and max(lengths) > spec.max_tokens:
        message = f"an input has {max(lengths)} tokens, of at most {spec.max_tokens}"
        raise TokenLimitExceeded(message, "input")
    if prepared.spans is not None:
        _check_spans(prepared.spans, prepared.lengths)
    if prepared.pixels:
        _check_pixels(spec, prepared, lengths)
    return lengths


def shaped(spec: ModelSpec, array: Floats, output: Output) -> Floats:
    """The model's full vectors `[n, dimensions]`, as the caller wants them."""
    if output.dimensions is None and (spec.normalize or not output.normalized):
        return array
    return shorten(array, output.dimensions, output.normalized)


def send(settled: Sequence[Settled]) -> None:
    """Give callers their answers, each in its own event loop. From any thread."""
    loops: dict[asyncio.AbstractEventLoop, list[Settled]] = {}
    for call, answer in settled:
        loops.setdefault(call.loop, []).append((call, answer))
    for loop, answers in loops.items():
        with suppress(RuntimeError):  # the loop is closed: its callers have gone
            loop.call_soon_threadsafe(partial(deliver, answers))


def deliver(settled: Sequence[Settled]) -> None:
    """Give callers their answers, in their event loop."""
    for call, answer in settled:
        if call.future.done():
            continue
        if isinstance(answer, PolyvecError):
            call.future.set_exception(answer)
        else:
            call.future.set_result(answer)


def settle(future: asyncio.Future[None], error: Exception | None = None) -> None:
    """End a wait in its own event loop, well or badly. From any thread."""

    def end() -> None:
        if not future.done():
            future.set_result(None) if error is None else future.set_exception(error)

    with suppress(RuntimeError):  # the loop is closed
        future.get_loop().call_soon_threadsafe(end)


def another(error: PolyvecError) -> PolyvecError:
    """The same error for one more caller, who adds its own traceback to it."""
    return type(error)(*error.args)


def late() -> DeadlinePassed:
    """What is told to a caller whose deadline has passed, to be raised."""
    return DeadlinePassed("the request's time ran out while it waited for the model")


def _check_spans(spans: Ints, lengths: Ints) -> None:
    """Refuse spans that are not what `Prepared` says: one caller's would fail a whole batch."""
    vector, place, start, end = spans.T
    fits = len(spans) and place.min() >= 0 and place.max() < len(lengths)
    if not (fits and np.all((start >= 0) & (start < end) & (end <= lengths[place]))):
        raise PolyvecError("a span lies outside its input")
    if vector[0] != 0 or np.any((np.diff(vector) < 0) | (np.diff(vector) > 1)):
        raise PolyvecError("the spans do not name every vector in order")


def _check_pixels(spec: ModelSpec, prepared: Prepared, lengths: Sequence[int]) -> None:
    """Refuse images that are not as large as their placeholders say, or lie across two inputs."""
    if spec.vision is None:
        raise InvalidInput(f"{spec.id} takes no images", "input")
    inputs = _by_input(prepared.pixels, list(accumulate(lengths)))
    for length, pixels in zip(lengths, inputs, strict=True):
        for one in pixels:
            if one.tokens != _tokens(one, spec.vision) or one.at + one.tokens > length:
                shape = "x".join(map(str, one.array.shape))
                raise PolyvecError(f"an image of {shape} does not fill its {one.tokens} tokens")


def _tokens(pixels: Pixels, vision: Vision) -> int:
    """How many tokens the model makes of an image; -1 where it is of no size that it takes."""
    side = vision.patch * vision.merge
    height, width, channels = pixels.array.shape
    if channels != 3 or height % side or width % side:
        return -1
    return int(height // side) * int(width // side)


def _by_input(pixels: Sequence[Pixels], ends: Sequence[int]) -> list[tuple[Pixels, ...]]:
    """The images of every input, in order, at places among its own tokens."""
    found: list[list[Pixels]] = [[] for _ in ends]
    for one in sorted(pixels, key=lambda one: one.at):
        place = min(int(np.searchsorted(ends, one.at, side="right")), len(ends) - 1)
        start = ends[place - 1] if place else 0
        found[place].append(Pixels(one.at - start, one.tokens, one.array))
    return [tuple(some) for some in found]
