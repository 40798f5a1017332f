"""Where the tokens of images stand among those of text, and which of them make the vector.

An image is its start marker, one placeholder for every square of pixels that the model makes a
token of, and its end marker. Placeholders are expanded here, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from serving.errors import ModelUnavailable, TokenLimitExceeded
from serving.models.spec import ModelSpec, Vision
from serving.preparing.encoder import Encoder
from serving.values import Image, Ints, Job, Pixels, Prepared, Text, Usage

__all__ = ["Array", "Input", "Layout"]

Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Input:
    """One input, of the item at `item` in the request; `span` is where its vector's tokens are.

    Places of `pixels` are among its own `ids`.
    """

    item: int
    ids: Ints
    span: tuple[int, int]
    pixels: tuple[Pixels, ...] = ()


@dataclass(frozen=True, slots=True)
class _Frame:
    """The ids around placeholders: `head` and `tail` are outside of the vector."""

    head: list[int]
    before: list[int]
    pad: int
    after: list[int]
    tail: list[int]


class Layout:
    """The prompts of a model's images, tokenized once with their special tokens known.

    Raises `ModelUnavailable` where the tokenizer does not know the markers of an image.
    """

    def __init__(self, spec: ModelSpec, vision: Vision, encoder: Encoder) -> None:
        self._id = spec.id
        self._limit = spec.max_tokens
        self._encoder = encoder
        self._multiplier = vision.token_multiplier
        self.square = vision.patch * vision.merge
        image = vision.start + vision.pad + vision.end
        self._alone = _frame(spec, vision, encoder, vision.prompt)
        self._fused = _frame(spec, vision, encoder, vision.opening + image + vision.closing)

    def text(self, item: int, ids: list[int], skip: int) -> Input:
        """A text: its vector is of all its tokens but the leading `skip`."""
        return Input(item, np.array(ids, np.int32), (min(skip, len(ids) - 1), len(ids)))

    def image(self, item: int, array: Array) -> Input:
        """An image in its prompt: its vector is of its markers and what is between them."""
        return _within(self._alone, item, [array], self.square)

    def fused(
        self,
        item: int,
        parts: Sequence[Text | Image],
        prose: Iterable[list[int]],
        arrays: Iterable[Array],
    ) -> Input:
        """Parts in their order: the vector is of all of them. `prose` are the texts' ids."""
        texts, images = iter(prose), iter(arrays)
        placed = [next(texts) if isinstance(part, Text) else next(images) for part in parts]
        return _within(self._fused, item, placed, self.square)

    def check(self, one: Input, field: str) -> None:
        """Refuse an input beyond the context, with the most pixels that an image may have.

        `field` is what the request calls its inputs.
        """
        if len(one.ids) <= self._limit:
            return
        seen = sum(image.tokens for image in one.pixels)
        room = (self._limit - (len(one.ids) - seen)) // max(len(one.pixels), 1)
        advice = "give it fewer parts"
        if room > 0:
            advice = f"set max_pixels to {room * self.square**2} or less"
        raise TokenLimitExceeded(
            f"{field} {one.item} has {len(one.ids)} tokens, {seen} of them of images;"
            f" {self._id} takes {self._limit} ({advice})",
            f"{field}.{one.item}",
        )

    def prepared(self, job: Job, inputs: Sequence[Input]) -> Prepared:
        """All inputs of a job, a vector each."""
        lengths = [len(one.ids) for one in inputs]
        ids = np.concatenate([one.ids for one in inputs])
        starts = accumulate(lengths, initial=0)
        pixels = tuple(
            replace(image, at=start + image.at)
            for start, one in zip(starts, inputs, strict=False)
            for image in one.pixels
        )
        seen = sum(image.tokens for image in pixels)
        spans = [(vector, vector, *one.span) for vector, one in enumerate(inputs)]
        encoder, told = self._encoder, job.output.tokens
        flat = ids.tolist() if told else []
        return Prepared(
            ids=ids,
            lengths=np.array(lengths, np.int32),
            usage=Usage(len(ids) - seen, seen * self._multiplier),
            output=job.output,
            task=job.task,
            adapter=encoder.ways[job.task].adapter,
            service_class=job.service_class,
            spans=np.array(spans, np.int32),
            pixels=pixels,
            tokens=encoder.strings(flat, lengths, job.output.multi) if told else None,
            special=encoder.tokenizers.special.intersection(flat) if told else frozenset(),
        )


def _within(frame: _Frame, item: int, parts: Iterable[list[int] | Array], square: int) -> Input:
    """Texts and images in their order, in a frame."""
    pieces: list[Ints | list[int]] = [frame.head]
    at = len(frame.head)
    pixels = []
    for part in parts:
        if isinstance(part, list):
            pieces.append(part)
            at += len(part)
            continue
        tokens = (part.shape[0] // square) * (part.shape[1] // square)
        pixels.append(Pixels(at + len(frame.before), tokens, part))
        pieces += [frame.before, np.full(tokens, frame.pad, np.int32), frame.after]
        at += len(frame.before) + tokens + len(frame.after)
    ids = np.concatenate([np.array(piece, np.int32) for piece in (*pieces, frame.tail)])
    return Input(item, ids, (len(frame.head), at), tuple(pixels))


def _frame(spec: ModelSpec, vision: Vision, encoder: Encoder, prompt: str) -> _Frame:
    """A prompt of ours with one image in it, split around the image's parts."""
    tokenizer = encoder.tokenizers.parsing
    ids: list[int] = tokenizer.encode_batch_fast([prompt])[0].ids
    places = []
    for marker in (vision.start, vision.pad, vision.end):
        index = tokenizer.token_to_id(marker)
        if index is None or ids.count(index) != 1:
            raise ModelUnavailable(
                f"{spec.source} has a tokenizer for which {marker} is not one token, once, of the"
                " prompt of an image"
            )
        places.append(ids.index(index))
    start, pad, end = places
    return _Frame(ids[:start], ids[start:pad], ids[pad], ids[pad + 1 : end + 1], ids[end + 1 :])
