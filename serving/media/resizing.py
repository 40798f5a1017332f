"""The size at which a Qwen-VL backbone sees an image."""

from __future__ import annotations

import math
from dataclasses import dataclass

from serving.errors import MediaInvalid

__all__ = ["ASPECT", "Sizing"]

# The longest side over the shortest, as Qwen2-VL's image processor bounds it.
ASPECT = 200


@dataclass(frozen=True, slots=True)
class Sizing:
    """Sides that are multiples of `factor`, and an area from `min_pixels` to `max_pixels`."""

    factor: int
    min_pixels: int
    max_pixels: int

    def fit(self, height: int, width: int, field: str) -> tuple[int, int]:
        """`(height, width)` after the resize: `smart_resize` of Qwen2-VL, number for number.

        Each side is rounded to a multiple of the factor; if the area is then out of bounds, both
        sides are scaled by the root of the ratio of the areas, down to a multiple where it is too
        large and up to one where it is too small. Raises `MediaInvalid` for a strip.
        """
        if max(height, width) > ASPECT * min(height, width):
            raise MediaInvalid(
                f"{field} is an image of {width} x {height} pixels; its longer side may be at most"
                f" {ASPECT} times the shorter one",
                field,
            )
        tall, wide = self._rounded(height), self._rounded(width)
        if tall * wide > self.max_pixels:
            by = math.sqrt(height * width / self.max_pixels)
            return self._down(height / by), self._down(width / by)
        if tall * wide < self.min_pixels:
            by = math.sqrt(self.min_pixels / (height * width))
            return self._up(height * by), self._up(width * by)
        return tall, wide

    def _rounded(self, side: int) -> int:
        return round(side / self.factor) * self.factor  # a half to even, as upstream

    def _down(self, side: float) -> int:
        return max(self.factor, math.floor(side / self.factor) * self.factor)

    def _up(self, side: float) -> int:
        return math.ceil(side / self.factor) * self.factor
