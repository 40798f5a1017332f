"""Whether a series of measurements grows, with the doubt that there is. Pure.

Neighbouring samples of a process are alike, so a plain regression is far too sure of itself. The
series is cut into blocks whose means are nearly independent, and the line is laid through those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Literal

__all__ = ["Drift", "Word", "drift"]

Word = Literal["flat", "grows", "unclear"]

_BLOCKS = 10
_WARM_UP = 0.2  # of the time: caches and allocators fill
# Student's t for 95 %, both sides, by degrees of freedom: `_BLOCKS` - 2 and fewer.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306)
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Drift:
    """The mean `level`, and its `slope` an hour, which lies between `low` and `high` at 95 %.

    `hours` is what it was seen for.
    """

    level: float
    slope: float
    low: float
    high: float
    hours: float

    def word(self, allowed: float) -> Word:
        """Flat where it certainly grows by no more than `allowed` an hour; grows where by more.

        And only where it has certainly grown by one, for what fills for a minute is no leak.
        """
        if self.high <= allowed:
            return "flat"
        return "grows" if self.low > max(allowed, 1 / self.hours) else "unclear"


def drift(seconds: Sequence[float], values: Sequence[float]) -> Drift | None:
    """Of the values at those times, in order, the beginning left out; None for too few."""
    if len(seconds) < 2:
        return None
    begun = seconds[0] + _WARM_UP * (seconds[-1] - seconds[0])
    points = [(at, value) for at, value in zip(seconds, values, strict=True) if at >= begun]
    count = min(_BLOCKS, len(points) // 2)
    if count < 3:
        return None
    edges = [round(number * len(points) / count) for number in range(count + 1)]
    blocks = [points[start:end] for start, end in pairwise(edges)]
    xs = [fmean(at for at, _ in block) / _HOUR_S for block in blocks]
    ys = [fmean(value for _, value in block) for block in blocks]
    return _line(xs, ys)


def _line(xs: Sequence[float], ys: Sequence[float]) -> Drift:
    x0, y0 = fmean(xs), fmean(ys)
    width = sum((x - x0) ** 2 for x in xs)
    slope = sum((x - x0) * (y - y0) for x, y in zip(xs, ys, strict=True)) / width
    left = sum((y - y0 - slope * (x - x0)) ** 2 for x, y in zip(xs, ys, strict=True))
    free = len(xs) - 2
    margin = _T[free - 1] * math.sqrt(left / free / width)
    return Drift(y0, slope, slope - margin, slope + margin, xs[-1] - xs[0])
