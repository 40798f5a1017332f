"""Our pooler in vLLM: a step's token states to what every request wants, in running sums.

Of a long input that vLLM computes in chunks only sums are kept from chunk to chunk, in float32, so
that its states never add up in memory; of multi-vectors only the rows that are wanted anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from time import monotonic

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.pooler import Pooler
from vllm.tasks import PoolingTask
from vllm.v1.pool.metadata import PoolingMetadata

from serving.engines._pooling import head
from serving.engines._vllm.packing import Facts, Wish
from serving.models.spec import Dense

__all__ = ["SpanPooler"]

_SUMMED = frozenset({"mean", "mean_sqrt_len"})


@dataclass(slots=True)
class _Running:
    """What is known of one input after some of its chunks.

    `sums` is `[pieces, hidden]`, a piece being from `first` to the end where no spans are given.
    """

    wish: Wish
    length: int
    first: int
    pieces: Sequence[Sequence[int]]
    waited_s: float = 0.0
    seen: int = 0
    counted: int = 0
    sums: list[Tensor | None] = field(default_factory=list)
    largest: Tensor | None = None
    opening: Tensor | None = None
    closing: Tensor | None = None
    multi: list[Tensor] = field(default_factory=list)
    sparse: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One request's part of a step: `states[at : at + count]` are its positions from `start`."""

    running: _Running
    at: int
    start: int
    count: int

    @property
    def end(self) -> int:
        return self.start + self.count

    def place(self, position: int) -> int | None:
        """Where the state of that position is, if it is in this step."""
        return self.at + position - self.start if self.start <= position < self.end else None


class SpanPooler(Pooler):
    """See the module. `facts` are the model's; heads are read from its files at once."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self._facts = facts
        multi, sparse = facts.multi, facts.sparse
        layers = (facts.heads, [multi] if multi else [], [sparse] if sparse else [])
        # In a tuple, or vLLM would look for their weights in the checkpoint.
        self._heads = tuple(_built(facts.path, one) for one in layers)
        self._began: float | None = None

    def get_supported_tasks(self) -> AbstractSet[PoolingTask]:
        """One task for all: what a request wants is in its own words."""
        return {"embed"}

    def start(self) -> None:
        """A step begins now."""
        self._began = monotonic()

    def forward(
        self, hidden_states: Tensor, pooling_metadata: PoolingMetadata
    ) -> Tensor | list[Tensor | None]:
        """`[tokens, hidden + projected]` of a step to a row for each request; None: not yet."""
        began, self._began = self._began or monotonic(), None
        chunks = self._chunks(pooling_metadata, began)
        width = hidden_states.shape[-1] - self._facts.projected
        states, projected = hidden_states[:, :width], hidden_states[:, width:]
        self._take_sums(states, chunks)
        self._take_single(states, chunks)
        self._take_rows(states, projected, chunks)
        done = [at for at, one in enumerate(chunks) if one.end >= one.running.length]
        rows: list[Tensor | None] = [None] * len(chunks)
        finished = self._rows([chunks[at].running for at in done], hidden_states)
        for at, row in zip(done, finished, strict=True):
            rows[at] = row
        return rows

    def _chunks(self, metadata: PoolingMetadata, began: float) -> list[_Chunk]:
        """Every request's part of this step, with what is known of it from the steps before."""
        cursor = metadata.get_pooling_cursor()
        counts = cursor.num_scheduled_tokens_cpu.tolist()
        ends, lengths = cursor.seq_lens_cpu.tolist(), cursor.prompt_lens_cpu.tolist()
        chunks, at = [], 0
        for place, (count, end, length) in enumerate(zip(counts, ends, lengths, strict=True)):
            kept = metadata.pooling_states[place].hidden_states_cache
            start = end - count
            # A request that was put back starts anew, and what was kept of it is void.
            if not kept or kept[0].seen != start:
                kept.clear()
                asked = metadata.pooling_params[place].extra_kwargs or {}
                kept.append(self._running(Wish(**asked), length, began))
            running: _Running = kept[0]
            chunks.append(_Chunk(running, at, start, count))
            running.seen = end
            running.counted += count
            at += count
        return chunks

    def _running(self, wish: Wish, length: int, began: float) -> _Running:
        # An input that has nothing beside what is skipped is taken whole: no vector is undefined.
        first = wish.skip if wish.skip < length else 0
        pieces: Sequence[Sequence[int]] = []
        if wish.dense and wish.spans is not None:
            pieces = wish.spans
        elif wish.dense and not _SUMMED.isdisjoint(self._facts.modes):
            pieces = [(first, length)]
        waited_s = max(began - wish.sent, 0.0) if wish.sent else 0.0
        return _Running(wish, length, first, pieces, waited_s, sums=[None] * len(pieces))

    def _take_sums(self, states: Tensor, chunks: Sequence[_Chunk]) -> None:
        for chunk in chunks:
            running = chunk.running
            for n, (start, end) in enumerate(running.pieces):
                low, high = max(start, chunk.start), min(end, chunk.end)
                if low < high:
                    shift = chunk.at - chunk.start
                    part = states[low + shift : high + shift].sum(dim=0, dtype=torch.float32)
                    before = running.sums[n]
                    running.sums[n] = part if before is None else before + part

    def _take_single(self, states: Tensor, chunks: Sequence[_Chunk]) -> None:
        """First, last and largest states, of those that are pooled by them."""
        modes = self._facts.modes
        pooled = [one for one in chunks if _is_pooled(one.running.wish)]
        if "cls" in modes:
            found = [(one, one.place(one.running.first)) for one in pooled]
            for running, state in _gathered(states, found):
                running.opening = state
        if "last" in modes:
            found = [(one, one.place(one.running.length - 1)) for one in pooled]
            for running, state in _gathered(states, found):
                running.closing = state
        if "max" in modes:
            for one in pooled:
                low = max(one.running.first, one.start)
                if low < one.end:
                    shift = one.at - one.start
                    part = states[low + shift : one.end + shift].amax(dim=0).float()
                    before = one.running.largest
                    one.running.largest = part if before is None else torch.maximum(before, part)

    def _take_rows(self, states: Tensor, projected: Tensor, chunks: Sequence[_Chunk]) -> None:
        """Multi-vectors and sparse weights of the tokens of this step."""
        for chunk in chunks:
            running, end = chunk.running, chunk.at + chunk.count
            if running.wish.multi:
                low = min(chunk.at + max(self._facts.multi_skip - chunk.start, 0), end)
                rows = projected[low:end].float()
                if self._facts.multi is not None:
                    rows = self._head(1, states.device)(states[low:end].float())
                running.multi.append(nn.functional.normalize(rows, dim=-1))
            if running.wish.sparse:
                scored = self._head(2, states.device)(states[chunk.at : end].float())
                running.sparse.append(torch.relu(scored[:, 0]))

    def _rows(self, done: Sequence[_Running], like: Tensor) -> list[Tensor]:
        """The answers of the inputs that are complete."""
        if not done:
            return []
        headers = torch.tensor([[float(one.counted), one.waited_s] for one in done])
        parts = [[row] for row in headers.to(like.device, non_blocking=True).unbind()]
        whole = [at for at, one in enumerate(done) if _is_pooled(one.wish)]
        for at, vector in zip(whole, self._vectors([done[at] for at in whole]), strict=True):
            parts[at].append(vector)
        for row, one in zip(parts, done, strict=True):
            if one.wish.dense and one.wish.spans is not None:
                row += [part for part in one.sums if part is not None]
            row += [rows.flatten() for rows in one.multi]
            row += one.sparse
        return [torch.cat(row) for row in parts]

    def _vectors(self, done: Sequence[_Running]) -> list[Tensor]:
        """Pooled states through the heads, shortened as each of them wants it."""
        if not done:
            return []
        pooled = torch.stack([self._pooled(one) for one in done])
        vectors = self._head(0, pooled.device)(pooled)
        if self._facts.normalize:
            vectors = nn.functional.normalize(vectors, dim=-1)
        shortened: dict[tuple[int | None, bool], Tensor] = {}
        for one in done:
            key = one.wish.dimensions, one.wish.normalized
            if key not in shortened:
                shortened[key] = self._shortened(vectors, *key)
        return [
            shortened[one.wish.dimensions, one.wish.normalized][at] for at, one in enumerate(done)
        ]

    def _shortened(self, vectors: Tensor, dimensions: int | None, normalized: bool) -> Tensor:
        """Cut first, then made of unit length: a prefix of a unit vector is shorter than one."""
        if dimensions is None and (self._facts.normalize or not normalized):
            return vectors
        cut = vectors[:, :dimensions]
        return nn.functional.normalize(cut, dim=-1) if normalized else cut

    def _pooled(self, one: _Running) -> Tensor:
        """`[modes * hidden]`, in the order of the modes."""
        count = one.length - one.first
        found = []
        for mode in self._facts.modes:
            match mode:
                case "cls":
                    vector = one.opening
                case "last":
                    vector = one.closing
                case "max":
                    vector = one.largest
                case "mean" | "mean_sqrt_len":
                    divisor = float(count if mode == "mean" else count**0.5)
                    vector = None if one.sums[0] is None else one.sums[0] / divisor
            assert vector is not None
            found.append(vector)
        return found[0] if len(found) == 1 else torch.cat(found)

    def _head(self, which: int, device: torch.device) -> nn.Sequential:
        return self._heads[which].to(device)


def _built(path: str, layers: Sequence[Dense]) -> nn.Sequential:
    """Dense layers in float32, whatever number type and device vLLM is building its model for."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with (here := torch.device("cpu")):
            return head(path, layers, here).requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def _is_pooled(wish: Wish) -> bool:
    """Whether one vector is wanted of the whole input."""
    return wish.dense and wish.spans is None


def _gathered(
    states: Tensor, places: Sequence[tuple[_Chunk, int | None]]
) -> list[tuple[_Running, Tensor]]:
    """The states at those places, all taken at once; a place of None is not in this step."""
    found = [(chunk, place) for chunk, place in places if place is not None]
    if not found:
        return []
    rows = states[torch.tensor([place for _, place in found], device=states.device)].float()
    return [(chunk.running, row) for (chunk, _), row in zip(found, rows, strict=True)]
