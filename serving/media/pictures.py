"""An encoded image to the pixels that a model sees: upright, RGB, resized. Any thread may call it.

Nearly all of it is in Pillow's own code, which lets other threads run meanwhile.
"""

from __future__ import annotations

import logging
import warnings
from io import BytesIO
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from serving.errors import MediaInvalid, MediaTooLarge
from serving.media import MediaOptions
from serving.media.colours import to_rgb
from serving.media.resizing import Sizing

__all__ = ["Pixels", "allow_pixels", "decode", "resized"]

Pixels: TypeAlias = npt.NDArray[np.uint8]

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_Turn = Image.Transpose
# What makes an image upright, by its EXIF orientation (EXIF 2.32, 4.6.4: tag 0x0112).
_UPRIGHT = {
    2: _Turn.FLIP_LEFT_RIGHT,
    3: _Turn.ROTATE_180,
    4: _Turn.FLIP_TOP_BOTTOM,
    5: _Turn.TRANSPOSE,
    6: _Turn.ROTATE_270,
    7: _Turn.TRANSVERSE,
    8: _Turn.ROTATE_90,
}
_SWAPS_SIDES = (5, 6, 7, 8)

# What is odd about a caller's file is told to the caller, if it matters, and to nobody else.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def allow_pixels(most: int) -> None:
    """Keep Pillow's own check, which is for the whole process, out of the way of `decode`'s.

    It stays at twice the largest bound in use: it acts before a WebP decoder allocates.
    """
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, most)


def decode(data: bytes, sizing: Sizing, options: MediaOptions, field: str) -> Pixels:
    """`[height, width, 3]` of an image file, the first frame where there are several.

    Raises `MediaTooLarge` from the file's header, and `MediaInvalid` for what is no image, is cut
    short, or is not what its header says.
    """
    with _opened(data, options, field) as image:
        width, height = image.size
        size = sizing.fit(height, width, field)
        if options.fast:
            image.draft(None, size[::-1])
        try:
            image.load()
            turn = _orientation(image)
            upright = image.transpose(_UPRIGHT[turn]) if turn in _UPRIGHT else image
            rgb = to_rgb(upright)
        except Exception:  # Pillow's decoders raise nearly everything there is
            raise MediaInvalid(
                f"{field} is a {image.format} image that is cut short, damaged or of a kind that"
                " cannot be read",
                field,
            ) from None
        del upright
    return resized(rgb, size[::-1] if turn in _SWAPS_SIDES else size)


def resized(image: Image.Image, size: tuple[int, int]) -> Pixels:
    """An RGB image at `size` (height, width): bicubic as Pillow has it, which is the reference."""
    wanted = size[::-1]
    if image.size != wanted:
        image = image.resize(wanted, Image.Resampling.BICUBIC)
    return np.asarray(image)


def _opened(data: bytes, options: MediaOptions, field: str) -> Image.Image:
    """The image, its header read and nothing decoded."""
    try:
        image = Image.open(BytesIO(data), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many(field, "has more", options) from None
    except Exception:
        raise MediaInvalid(
            f"{field} is no image that can be read: it may be JPEG, PNG, WebP, GIF, BMP or TIFF",
            field,
        ) from None
    width, height = image.size
    if width * height > options.pixels:
        image.close()
        raise _too_many(field, f"has {width} x {height}", options)
    if not width or not height:
        image.close()
        raise MediaInvalid(f"{field} is an image without pixels", field)
    return image


def _orientation(image: Image.Image) -> int:
    """1 (upright) to 8; a loaded TIFF has been turned already. A broken EXIF block says nothing."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _too_many(field: str, has: str, options: MediaOptions) -> MediaTooLarge:
    return MediaTooLarge(
        f"{field} {has} pixels; an image may have {options.pixels} (media.pixels)", field
    )
