"""Late chunking (arXiv 2409.04701): a document is seen whole, and each of its chunks has a vector.

The chunks are joined as they are, with nothing between them, behind the task's prompt. A token
belongs to the chunk in which its first character lies; the first chunk has the prompt and leading
special tokens too, the last one those at the end. A chunk without a token has the nearest one.

A document beyond the context is seen through windows over its tokens, each of which begins with the
end of the one before: what comes out of that overlap is dropped, so that the windows' outputs side
by side are as many as the document's tokens (jina-ai/late-chunking, long late chunking).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from tokenizers import Encoding

from serving.preparing.encoder import Encoder, undecodable
from serving.values import Ints, Job, Prepared, Usage

__all__ = ["Window", "chunk_spans", "pieces", "prepare_late", "windows"]

# Of the method's authors, for a context of 8192; a small context has a quarter of itself.
_OVERLAP = 512
_LEAST_SHARE = 4


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens `start` to `end` of a document, of which the outputs from `kept` on are used."""

    start: int
    end: int
    kept: int


def prepare_late(encoder: Encoder, job: Job, texts: Sequence[str]) -> Prepared:
    """One document of the chunks `texts`, for one vector each. Nothing is ever cut from it.

    The usage is all that the model sees: the windows' overlaps are counted as often as they are.
    """
    way = encoder.ways[job.task]
    try:
        [encoding] = encoder.tokenizers.whole.encode_batch([way.prefix + "".join(texts)])
    except TypeError:
        raise undecodable(texts) from None
    ids = np.array(encoding.ids or [encoder.tokenizers.filler], np.int32)
    bounds = list(accumulate(map(len, texts), initial=len(way.prefix)))
    seen = windows(len(ids), encoder.limit)
    lengths = np.array([window.end - window.start for window in seen], np.int32)
    return Prepared(
        ids=np.concatenate([ids[window.start : window.end] for window in seen]),
        lengths=lengths,
        usage=Usage(int(lengths.sum())),
        output=job.output,
        task=job.task,
        adapter=way.adapter,
        service_class=job.service_class,
        spans=pieces(chunk_spans(encoding, bounds, len(ids), way.skip), seen),
    )


def chunk_spans(
    encoding: Encoding, bounds: Sequence[int], tokens: int, skip: int = 0
) -> list[tuple[int, int]]:
    """The tokens of each chunk, none of them empty, among the `tokens` of a document.

    Chunk k has the characters from `bounds[k]` up to `bounds[k + 1]`. The leading `skip` tokens
    belong to no chunk.
    """
    body = np.flatnonzero(np.array(encoding.special_tokens_mask, np.int8) == 0)
    if not len(body):
        return [(0, tokens)] * (len(bounds) - 1)
    offsets = np.array(encoding.offsets, np.int64)[body]
    # A normalizer that reorders characters must not reorder chunks.
    starts, ends = np.maximum.accumulate(offsets[:, 0]), np.maximum.accumulate(offsets[:, 1])
    firsts = [*np.searchsorted(starts, bounds[:-1]).tolist(), len(body)]
    spans = []
    for chunk, (first, after) in enumerate(pairwise(firsts)):
        if first == after:
            first = _nearest(starts, ends, first, bounds[chunk], bounds[chunk + 1])
            after = first + 1
        spans.append((int(body[first]), int(body[after - 1]) + 1))
    spans[0] = (min(skip, spans[0][0]), spans[0][1])
    spans[-1] = (spans[-1][0], tokens)
    return spans


def _nearest(starts: Ints, ends: Ints, first: int, begin: int, end: int) -> int:
    """The token before or after the characters from `begin` to `end`; before where both are."""
    if first == 0:
        return 0
    if first == len(starts):
        return first - 1
    return first - 1 if begin - ends[first - 1] <= max(starts[first] - end, 0) else first


def windows(tokens: int, limit: int) -> list[Window]:
    """Windows of at most `limit` tokens over a document, whose kept outputs cover it once."""
    overlap = min(_OVERLAP, limit // _LEAST_SHARE)
    found = [Window(0, min(limit, tokens), 0)]
    while found[-1].end < tokens:
        done = found[-1].end
        found.append(Window(done - overlap, min(done - overlap + limit, tokens), overlap))
    return found


def pieces(spans: Sequence[tuple[int, int]], seen: Sequence[Window]) -> Ints:
    """`Prepared.spans`: the vectors' tokens, in the windows whose outputs are kept for them."""
    return np.array(list(_pieces(spans, seen)), np.int32)


def _pieces(
    spans: Sequence[tuple[int, int]], seen: Sequence[Window]
) -> Iterator[tuple[int, int, int, int]]:
    kept = [window.start + window.kept for window in seen]
    for vector, (start, end) in enumerate(spans):
        at = bisect_right(kept, start) - 1
        while at < len(seen) and kept[at] < end:
            window = seen[at]
            low, high = max(start, kept[at]), min(end, window.end)
            yield vector, at, low - window.start, high - window.start
            at += 1
