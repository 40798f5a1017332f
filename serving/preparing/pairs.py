"""A query with each document to one input each: the `Preparer` of a cross-encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from string import Formatter
from typing import cast

import numpy as np

from serving.media.media import Media
from serving.models.spec import ModelSpec, Pairwise, Vision
from serving.preparing.encoder import Encoder, Named
from serving.preparing.images import Images, together
from serving.preparing.layout import Array, Input, Layout
from serving.preparing.text import TextPreparer
from serving.values import Image, Job, Pair, Pixels, Prepared, Text, Usage

__all__ = ["PairPreparer"]

_Parts = tuple[Text | Image, ...]  # no two texts side by side


class PairPreparer:
    """Jobs of `Pair`s, tokenized by `texts`; images are read by `media`, the query's once."""

    def __init__(
        self, spec: ModelSpec, reranker: Pairwise, texts: TextPreparer, media: Media | None
    ) -> None:
        self._limit, self._reranker, self._texts = spec.max_tokens, reranker, texts
        self._seeing: tuple[Vision, Media, Layout] | None = None
        if spec.vision is not None and media is not None:
            self._seeing = spec.vision, media, Layout(spec, spec.vision, texts.encoder)
        parsed = texts.encoder.parsed
        self._opening = parsed(reranker.opening)
        self._closing = [*parsed(reranker.closing), *reranker.last]
        self._room = spec.max_tokens - len(self._opening) - len(self._closing)

    async def prepare(self, job: Job) -> Prepared:
        """Token ids, pixels and the usage of the job: an input a pair, in order."""
        pairs = cast("tuple[Pair, ...]", job.items)
        letters = [
            part.text
            for pair in pairs
            for part in (pair.query, pair.document)
            if isinstance(part, Text)
        ]
        bodies = await self._texts.run(letters, partial(self._bodies, pairs, job))
        if any(isinstance(part, Image) for body, _ in bodies for part in body):
            return await self._with_images(job, bodies)
        ids = [self._cut(place, prose[0], job) for place, (_, prose) in enumerate(bodies)]
        flat = [token for one in ids for token in one]
        return Prepared(
            ids=np.array(flat, np.int32),
            lengths=np.array([len(one) for one in ids], np.int32),
            usage=Usage(len(flat)),
            output=job.output,
            service_class=job.service_class,
        )

    def close(self) -> None:
        """End the threads."""
        self._texts.close()
        if self._seeing is not None:
            self._seeing[1].close()

    def _bodies(self, pairs: Sequence[Pair], job: Job) -> list[tuple[_Parts, list[list[int]]]]:
        """The parts of every pair in the model's words, and the token ids of those of text."""
        encoder = self._texts.encoder
        most = job.document_tokens
        if most is None and job.truncate:
            most = self._reranker.document_tokens
        if most is not None:
            pairs = _with_short_documents(pairs, encoder, most)
        bodies = [_body(self._reranker, pair) for pair in pairs]
        placed = [
            (place, part.text)
            for place, body in enumerate(bodies)
            for part in body
            if isinstance(part, Text)
        ]
        found = encoder.bare(
            [text for _, text in placed], Named(job.field, [place for place, _ in placed])
        )
        prose: list[list[list[int]]] = [[] for _ in bodies]
        for (place, _), ids in zip(placed, found, strict=True):
            prose[place].append(ids)
        return list(zip(bodies, prose, strict=True))

    def _cut(self, place: int, body: list[int], job: Job) -> list[int]:
        """A pair of texts within the context; what is cut is the end of what the model reads."""
        if len(body) > self._room and not job.truncate:
            tokens = len(body) + self._limit - self._room
            raise self._texts.encoder.too_long(f"{job.field}.{place}", tokens)
        return [*self._opening, *body[: self._room], *self._closing]

    async def _with_images(
        self, job: Job, bodies: Sequence[tuple[_Parts, list[list[int]]]]
    ) -> Prepared:
        assert self._seeing is not None
        vision, media, layout = self._seeing
        arrays = await _arrays(Images(media, vision, job), job)
        inputs = []
        for place, (body, prose) in enumerate(bodies):
            images = [arrays[part.source] for part in body if isinstance(part, Image)]
            if images:
                one = self._framed(layout.fused(place, body, prose, images))
                layout.check(one, job.field)
            else:
                one = Input(place, np.array(self._cut(place, prose[0], job), np.int32), (0, 0))
            inputs.append(replace(one, span=(len(one.ids) - 1, len(one.ids))))
        return layout.prepared(job, inputs)

    def _framed(self, one: Input) -> Input:
        ids = np.concatenate([self._opening, one.ids, self._closing]).astype(np.int32)
        shift = len(self._opening)
        pixels = tuple(Pixels(p.at + shift, p.tokens, p.array) for p in one.pixels)
        return replace(one, ids=ids, pixels=pixels)


def _body(reranker: Pairwise, pair: Pair) -> _Parts:
    """The model's own words around a query and a document."""
    instruction = Text(pair.instruction or reranker.instruction or "")
    given = {"query": pair.query, "document": pair.document, "instruction": instruction}
    parts: list[Text | Image] = []
    words = ""
    for literal, name, _, _ in Formatter().parse(reranker.body):
        words += literal
        match given[name] if name else None:
            case Text(text):
                words += text
            case Image() as image:
                parts += [Text(words), image]
                words = ""
    return (*parts, Text(words)) if words else tuple(parts)


def _with_short_documents(pairs: Sequence[Pair], encoder: Encoder, most: int) -> list[Pair]:
    """Documents of at most so many tokens; images are as they are."""
    texts = [pair.document.text for pair in pairs if isinstance(pair.document, Text)]
    cut = iter(encoder.shortened(texts, most)[0])
    return [
        replace(pair, document=Text(next(cut))) if isinstance(pair.document, Text) else pair
        for pair in pairs
    ]


async def _arrays(images: Images, job: Job) -> Mapping[str, Array]:
    """The pixels of every image, by its source."""
    names: dict[str, str] = {}
    for place, pair in enumerate(cast("tuple[Pair, ...]", job.items)):
        for part, name in ((pair.query, "query"), (pair.document, f"{job.field}.{place}")):
            if isinstance(part, Image):
                names.setdefault(part.source, name)
    arrays = await together(images.image(source, name) for source, name in names.items())
    return dict(zip(names, arrays, strict=True))
