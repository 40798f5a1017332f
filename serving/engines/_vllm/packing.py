"""How a request and its answer travel between the engine and vLLM's worker: plain values only.

The answer is one row of float32: how many token states were seen, the seconds it waited, the dense
part, the multi-vectors row by row, a sparse weight for every token.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from serving.models.spec import Dense, ModelSpec, PoolingMode
from serving.values import Floats

__all__ = ["HEADER", "Answer", "Facts", "Wish", "answer"]

HEADER = 2
"""Numbers in front of an answer: the token states seen, and the seconds it waited."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the pooler has to know of a model."""

    path: str
    modes: tuple[PoolingMode, ...]
    heads: tuple[Dense, ...]
    normalize: bool
    projected: int
    multi: Dense | None
    multi_skip: int
    sparse: Dense | None

    @classmethod
    def of(cls, spec: ModelSpec) -> Facts:
        """Those of a model; `projected` columns of a state are what its projector made of it."""
        multi = spec.multi
        return cls(
            path=spec.path,
            modes=spec.pooling.modes,
            heads=spec.heads,
            normalize=spec.normalize,
            projected=multi.dimensions if multi is not None and multi.head is None else 0,
            multi=None if multi is None else multi.head,
            multi_skip=0 if multi is None else multi.skip,
            sparse=None if spec.sparse is None else spec.sparse.head,
        )

    def packed(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    @classmethod
    def unpacked(cls, values: dict[str, Any]) -> Facts:
        """From `packed`."""
        return cls(
            **{
                **values,
                "modes": tuple(values["modes"]),
                "heads": tuple(Dense(**one) for one in values["heads"]),
                "multi": Dense(**values["multi"]) if values["multi"] else None,
                "sparse": Dense(**values["sparse"]) if values["sparse"] else None,
            }
        )


class Wish(NamedTuple):
    """What is wanted of one input. With `spans`, the dense part is their sums of raw states.

    `sent` is a `time.monotonic()` of this machine.
    """

    skip: int = 0
    spans: list[list[int]] | None = None
    dense: bool = True
    multi: bool = False
    sparse: bool = False
    dimensions: int | None = None
    normalized: bool = True
    sent: float = 0.0

    @property
    def resumable(self) -> bool:
        """Whether the last token's state is all that is needed (given such pooling)."""
        return self.spans is None and not self.multi and not self.sparse


class Answer(NamedTuple):
    """An answer taken apart: `dense` is `[vectors or pieces, width]`, `sparse` `[tokens]`."""

    tokens: int
    waited_s: float
    dense: Floats | None
    multi: Floats | None
    sparse: Floats | None


def answer(row: Floats, wish: Wish, tokens: int, spec: ModelSpec) -> Answer:
    """Take a row apart; `tokens` is the length of its input. `ValueError` where it cannot be."""
    rest, sparse, multi, dense = row[HEADER:], None, None, None
    if wish.sparse:
        rest, sparse = rest[: len(rest) - tokens], rest[len(rest) - tokens :]
    if wish.multi and spec.multi is not None:
        rows = max(tokens - spec.multi.skip, 0)
        size = rows * spec.multi.dimensions
        rest, multi = rest[: len(rest) - size], rest[len(rest) - size :]
        multi = multi.reshape(rows, spec.multi.dimensions)
    if wish.dense and wish.spans != []:
        dense = rest.reshape(1 if wish.spans is None else len(wish.spans), -1)
    return Answer(int(row[0]), float(row[1]), dense, multi, sparse)
