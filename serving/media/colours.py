"""Every colour mode that a file can have, to RGB by one rule.

| mode | rule |
|---|---|
| `RGBA`, `LA`, `PA`, a palette or a colour declared transparent | laid over white |
| 16 bits a channel | the upper 8 |
| 32-bit integers | cut to 0 … 65535, then the upper 8 of those 16 bits |
| floats | cut to 0 … 1, times 255, rounded; not-a-number is 0 |
| `1`, `L`, `P`, `CMYK`, `YCbCr`, `LAB` | Pillow's own arithmetic, no embedded profile |
"""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["to_rgb"]


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in mode `RGB`. Raises what Pillow raises for a mode that it cannot convert."""
    if image.mode.startswith("I;16"):
        return _grey(np.asarray(image) >> 8)
    if image.mode == "I":
        return _grey(np.clip(np.asarray(image), 0, 0xFFFF) >> 8)
    if image.mode == "F":
        return _grey(np.rint(np.clip(np.nan_to_num(np.asarray(image), nan=0.0), 0, 1) * 255))
    if image.has_transparency_data:
        whole = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", whole.size, "white")
        white.paste(whole, mask=whole)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")
