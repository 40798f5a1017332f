"""A query with all of its documents to one input, or a few: the `Preparer` of a listwise model.

Every document is read in the light of those before it, so which ones stand together is part of the
result: as many as upstream puts into one prompt (`JinaForRanking.rerank`), in the caller's order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from math import ceil
from typing import cast

import numpy as np

from serving.errors import ModelUnavailable
from serving.models.spec import Listwise, ModelSpec
from serving.preparing.text import TextPreparer
from serving.values import Job, Pair, Prepared, Text, Usage

__all__ = ["ListPreparer"]


class ListPreparer:
    """Jobs of `Pair`s of texts with one query, tokenized by `texts`.

    The vectors of an input are those of its documents, in order, and then that of the query.
    Raises `ModelUnavailable` where the tokenizer does not know the marks.
    """

    def __init__(self, spec: ModelSpec, reranker: Listwise, texts: TextPreparer) -> None:
        self._reranker, self._texts, self._limit = reranker, texts, spec.max_tokens
        self._encoder = texts.encoder
        marks = (reranker.document_mark, reranker.query_mark)
        self._marks = re.compile("|".join(map(re.escape, marks)))
        ids = [self._encoder.parsed(mark) for mark in marks]
        for mark, one in zip(marks, ids, strict=True):
            if len(one) != 1:
                raise ModelUnavailable(
                    f"{spec.source} has a tokenizer for which {mark} is not one token"
                )
        self._document_mark, self._query_mark = ids
        self._opening = self._encoder.parsed(reranker.opening)
        self._closing = self._encoder.parsed(reranker.closing)
        self._fixed = len(self._input("", [], None)[0])
        every = len(self._input("", [""] * reranker.most, None)[0])
        self._each = ceil((every - self._fixed) / reranker.most)

    async def prepare(self, job: Job) -> Prepared:
        """Token ids, spans and the usage of the job."""
        pairs = cast("tuple[Pair, ...]", job.items)
        texts = [cast("Text", pair.document).text for pair in pairs]
        return await self._texts.run(texts, partial(self._prepared, job, pairs[0], texts))

    def close(self) -> None:
        """End the threads."""
        self._texts.close()

    def _prepared(self, job: Job, one: Pair, texts: Sequence[str]) -> Prepared:
        most = job.document_tokens or self._reranker.document_tokens
        query, length = self._cut([cast("Text", one.query).text], self._reranker.query_tokens)
        documents, lengths = self._cut(texts, most)
        inputs: list[list[int]] = []
        spans: list[tuple[int, int, int, int]] = []
        for start, end in self._blocks(lengths, length[0], most):
            ids, marks = self._input(query[0], documents[start:end], one.instruction)
            if len(ids) > self._limit:
                raise self._encoder.too_long(f"{job.field}.{start}", len(ids))
            spans += [(len(spans) + n, len(inputs), at, at + 1) for n, at in enumerate(marks)]
            inputs.append(ids)
        flat = [token for ids in inputs for token in ids]
        return Prepared(
            ids=np.array(flat, np.int32),
            lengths=np.array([len(ids) for ids in inputs], np.int32),
            usage=Usage(len(flat)),
            output=job.output,
            service_class=job.service_class,
            spans=np.array(spans, np.int32),
        )

    def _cut(self, texts: Sequence[str], most: int) -> tuple[list[str], list[int]]:
        return self._encoder.shortened([self._marks.sub("", text) for text in texts], most)

    def _blocks(self, lengths: Sequence[int], query: int, most: int) -> Iterator[tuple[int, int]]:
        """Which documents stand together: upstream's rule, and never more than the context."""
        start, free = 0, self._limit - 2 * query
        room = free
        for at, length in enumerate(lengths):
            if at > start and room - length < self._fixed + self._each * (at + 1 - start):
                yield start, at
                start, room = at, free
            room -= length
            if at + 1 - start >= self._reranker.most or room <= most:
                yield start, at + 1
                start, room = at + 1, free
        if start < len(lengths):
            yield start, len(lengths)

    def _input(
        self, query: str, documents: Sequence[str], instruction: str | None
    ) -> tuple[list[int], list[int]]:
        """A prompt's ids, and where in it the marks are: the documents' and the query's."""
        form = self._reranker
        words = form.first.format(count=len(documents), query=query)
        if instruction is not None:
            words += form.instruct.format(instruction=instruction)
        texts = []
        for index, document in enumerate(documents):
            texts.append(words + form.passage.format(index=index, document=document))
            words = form.between
        texts.append(words + form.ask.format(query=query))
        ids, marks = list(self._opening), []
        for at, found in enumerate(self._encoder.bare(texts)):
            ids += found
            marks.append(len(ids))
            ids += self._document_mark if at < len(documents) else self._query_mark
        return [*ids, *self._closing], marks
