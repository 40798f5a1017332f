"""Texts to token ids, in this process: a `Preparer` for jobs whose items are all texts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import TypeVar, cast

import numpy as np

from serving.models.spec import ModelSpec
from serving.preparing.encoder import INLINE_CHARACTERS, Encoder, Named, Way, characters
from serving.preparing.late import prepare_late
from serving.preparing.tokenizing import Tokenizers, read
from serving.values import Job, Prepared, Text, TokenIds, Usage

__all__ = ["TextPreparer", "load"]

_T = TypeVar("_T")


class TextPreparer:
    """The `Preparer` of a text model. Small jobs run on the event loop, others in `threads`."""

    def __init__(self, spec: ModelSpec, tokenizers: Tokenizers, threads: int = 2) -> None:
        self.encoder = Encoder(spec, tokenizers)
        self._ways = self.encoder.ways
        self._pool = ThreadPoolExecutor(threads, f"tokenize-{spec.id}")

    async def prepare(self, job: Job) -> Prepared:
        """Token ids and the usage of the job. Images are refused before they come here."""
        way = self._ways[job.task]
        if type(job.items[0]) is TokenIds:
            given = cast("tuple[TokenIds, ...]", job.items)
            return await self._run(
                sum(len(one.ids) for one in given), partial(self._given, job, given, way)
            )
        items = cast("tuple[Text, ...]", job.items)
        texts = [way.prefix + item.text for item in items]
        prepared = self._late if job.late_chunking else self._prepared
        return await self.run(texts, partial(prepared, job, texts, way))

    async def run(self, texts: Sequence[str], call: Callable[[], _T]) -> _T:
        """What `call` gives, here where these texts are short, else in a thread."""
        return await self._run(characters(texts), call)

    async def _run(self, size: int, call: Callable[[], _T]) -> _T:
        if size <= INLINE_CHARACTERS:
            return call()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, call)

    def close(self) -> None:
        """End the threads; jobs that wait for one are dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _prepared(self, job: Job, texts: list[str], way: Way) -> Prepared:
        if job.document_tokens is not None:
            own = [cast("Text", item).text for item in job.items]
            cut, _ = self.encoder.shortened(own, job.document_tokens)
            texts = [way.prefix + one for one in cut]
        ids = self.encoder.ids(texts, job.truncate, Named(job.field))
        return self._together(job, ids, way.adapter, way.skip)

    def _given(self, job: Job, items: Sequence[TokenIds], way: Way) -> Prepared:
        """Ids of the caller's own: they have no prompt that pooling could leave out."""
        named, encoder = Named(job.field), self.encoder
        ids = [
            encoder.given(item.ids, job.truncate, named(place, len(items)))
            for place, item in enumerate(items)
        ]
        return self._together(job, ids, way.adapter, 0)

    def _together(
        self, job: Job, ids: Sequence[Sequence[int]], adapter: str | None, skip: int
    ) -> Prepared:
        lengths = [len(one) for one in ids]
        flat = ids[0] if len(ids) == 1 else list(chain.from_iterable(ids))
        told = job.output.tokens
        return Prepared(
            ids=np.array(flat, np.int32),
            lengths=np.array(lengths, np.int32),
            usage=Usage(len(flat)),
            output=job.output,
            task=job.task,
            adapter=adapter,
            skip=skip,
            service_class=job.service_class,
            tokens=self.encoder.strings(flat, lengths, job.output.multi) if told else None,
            special=self.encoder.tokenizers.special.intersection(flat) if told else frozenset(),
        )

    def _late(self, job: Job, texts: list[str], way: Way) -> Prepared:
        return prepare_late(self.encoder, job, [cast("Text", item).text for item in job.items])


def load(spec: ModelSpec) -> TextPreparer:
    """The preparer of a model's texts, its tokenizer read from the checkpoint."""
    return TextPreparer(spec, read(spec))
