"""What came of requests, by the second and by kind: small, and made to be added up. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Cell", "Result", "Tally", "quantile"]

Result = Literal["answered", "refused", "failed"]

# Buckets of a histogram of seconds, each 4 % wider than the one before: off by 2 % at most.
_STEP = math.log(1.04)
_LEAST_S = 1e-4


@dataclass(slots=True)
class Cell:
    """Requests of one kind that ended in one second. Latencies are of what was answered."""

    answered: int = 0
    refused: int = 0
    failed: int = 0
    tokens: int = 0
    buckets: Counter[int] = field(default_factory=Counter)

    def add(self, other: Cell) -> Cell:
        """This cell, with all of the other's."""
        self.answered += other.answered
        self.refused += other.refused
        self.failed += other.failed
        self.tokens += other.tokens
        self.buckets.update(other.buckets)
        return self

    @property
    def requests(self) -> int:
        """However they ended."""
        return self.answered + self.refused + self.failed


class Tally:
    """Cells by second and kind. `taken` and `give` carry them from one process to another."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, str], Cell] = {}

    def note(self, second: int, kind: str, result: Result, seconds: float, tokens: int = 0) -> None:
        """One request ended in that second, after so many."""
        cell = self.cells.setdefault((second, kind), Cell())
        setattr(cell, result, getattr(cell, result) + 1)
        if result == "answered":
            cell.tokens += tokens
            cell.buckets[_bucket(seconds)] += 1

    def taken(self) -> list[Any]:
        """All of it as plain values; nothing is left."""
        cells, self.cells = self.cells, {}
        return [
            [*key, one.answered, one.refused, one.failed, one.tokens, list(one.buckets.items())]
            for key, one in cells.items()
        ]

    def give(self, plain: Iterable[Sequence[Any]]) -> None:
        """Add what another tally's `taken` gave."""
        for second, kind, answered, refused, failed, tokens, buckets in plain:
            counts = Counter({int(bucket): int(count) for bucket, count in buckets})
            cell = Cell(answered, refused, failed, tokens, counts)
            self.cells.setdefault((second, kind), Cell()).add(cell)

    def total(self, wanted: Callable[[int, str], bool] = lambda second, kind: True) -> Cell:
        """All cells whose second and kind are wanted, as one."""
        whole = Cell()
        for key, cell in self.cells.items():
            if wanted(*key):
                whole.add(cell)
        return whole

    @property
    def kinds(self) -> list[str]:
        """In alphabetical order."""
        return sorted({kind for _, kind in self.cells})

    @property
    def span(self) -> range:
        """From the first second to the last."""
        seconds = [second for second, _ in self.cells]
        return range(min(seconds), max(seconds) + 1) if seconds else range(0)


def quantile(cell: Cell, share: float) -> float:
    """Seconds that `share` (0 to 1) of the answers took no longer than; NaN without answers."""
    left = share * cell.buckets.total()
    for bucket in sorted(cell.buckets):
        left -= cell.buckets[bucket]
        if left <= 0:
            return _LEAST_S * math.exp((bucket + 0.5) * _STEP)
    return math.nan


def _bucket(seconds: float) -> int:
    return int(math.log(max(seconds, _LEAST_S) / _LEAST_S) / _STEP)
