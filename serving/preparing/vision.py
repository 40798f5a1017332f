"""Images, pages and mixtures with text to ids and pixels: the `Preparer` of a Qwen-VL model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from serving.media.media import Media
from serving.models.spec import ModelSpec, Vision
from serving.preparing.encoder import Named
from serving.preparing.images import Images, together
from serving.preparing.layout import Array, Input, Layout
from serving.preparing.text import TextPreparer
from serving.values import Fused, Image, Item, Job, Pdf, Prepared, Text, TokenIds

__all__ = ["VisionPreparer"]

_Placed = Sequence[tuple[int, str]]  # texts, and of which item


class VisionPreparer:
    """Jobs of texts alone go to `texts`; of others, the files are read by `media`."""

    def __init__(self, spec: ModelSpec, vision: Vision, texts: TextPreparer, media: Media) -> None:
        self._vision = vision
        self._texts = texts
        self._media = media
        self._layout = Layout(spec, vision, texts.encoder)

    async def prepare(self, job: Job) -> Prepared:
        """Token ids, pixels and the usage of the job.

        Raises `MediaTooLarge`, `MediaInvalid`, `MediaUnreachable` and `TokenLimitExceeded` with the
        item's place.
        """
        if all(type(item) in (Text, TokenIds) for item in job.items):
            return await self._texts.prepare(job)
        items = [_plain(item) for item in job.items]
        if all(type(item) is Text for item in items):
            return await self._texts.prepare(replace(job, items=tuple(items)))
        prose = await self._prose(items, job)
        images = Images(self._media, self._vision, job)
        arrays = await together(
            _arrays(images, item, f"{job.field}.{place}") for place, item in enumerate(items)
        )
        inputs: list[Input] = []
        for place, (item, ids, some) in enumerate(zip(items, prose, arrays, strict=True)):
            inputs += self._inputs(place, item, ids, some, job)
        for one in inputs:
            self._layout.check(one, job.field)
        if job.output.tokens:  # a string for every token
            return await asyncio.to_thread(self._layout.prepared, job, inputs)
        return self._layout.prepared(job, inputs)

    def close(self) -> None:
        """End the threads."""
        self._texts.close()
        self._media.close()

    async def _prose(self, items: Sequence[Item], job: Job) -> list[list[list[int]]]:
        """The ids of each item's texts: of its own, or of its parts."""
        whole = [(place, item.text) for place, item in enumerate(items) if isinstance(item, Text)]
        parts = [
            (place, part.text)
            for place, item in enumerate(items)
            if isinstance(item, Fused)
            for part in item.parts
            if isinstance(part, Text)
        ]
        texts = [text for _, text in (*whole, *parts)]
        found = await self._texts.run(texts, partial(self._encoded, whole, parts, job))
        prose: list[list[list[int]]] = [[] for _ in items]
        for (place, _), ids in zip((*whole, *parts), found, strict=True):
            prose[place].append(ids)
        return prose

    def _encoded(self, whole: _Placed, parts: _Placed, job: Job) -> list[list[int]]:
        encoder = self._texts.encoder
        field, prefix = job.field, encoder.ways[job.task].prefix
        own = [text for _, text in whole]
        if job.document_tokens is not None:
            own, _ = encoder.shortened(own, job.document_tokens)
        texts = [prefix + text for text in own]
        found = encoder.ids(texts, job.truncate, Named(field, [place for place, _ in whole]))
        inner = Named(field, [place for place, _ in parts])
        return found + encoder.bare([text for _, text in parts], inner)

    def _inputs(
        self, place: int, item: Item, prose: list[list[int]], arrays: list[Array], job: Job
    ) -> list[Input]:
        """The inputs of an item: a page of a PDF each, else one."""
        match item:
            case Text():
                skip = self._texts.encoder.ways[job.task].skip
                return [self._layout.text(place, ids, skip) for ids in prose]
            case Fused(parts):
                return [self._layout.fused(place, parts, prose, arrays)]
        return [self._layout.image(place, array) for array in arrays]


async def _arrays(images: Images, item: Item, field: str) -> list[Array]:
    """The pixels of an item's images, in their order."""
    match item:
        case Image(source):
            return [await images.image(source, field)]
        case Pdf(source):
            return await images.pages(source, field)
        case Fused(parts):
            sources = [part.source for part in parts if isinstance(part, Image)]
            return await together(images.image(source, field) for source in sources)
    return []


def _plain(item: Item) -> Item:
    """Several parts that are all text are one text; a single image is an image."""
    match item:
        case Fused((Image() as only,)):
            return only
        case Fused(parts) if all(isinstance(part, Text) for part in parts):
            return Text("".join(part.text for part in parts if isinstance(part, Text)))
    return item
