"""Bytes of images and documents: where they come from, how large they may be, what they show."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MediaOptions"]


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """What may come in, and how it is decoded.

    `image_bytes` and `pdf_bytes` bound an encoded file (more is `MediaTooLarge`), `pixels` a
    decoded image (a decompression bomb is refused from its header), `pages` a document rendered at
    `page_dpi` dots an inch. `fetch` allows addresses, within `timeout_s` seconds and `redirects`
    redirects; `allow` lists networks (`10.0.0.0/8`) and host names that may be other than global.
    `fast` lets the JPEG decoder shrink by powers of two, which changes vectors a little. `threads`
    decode at a time.
    """

    image_bytes: int = 8 * 2**20
    pdf_bytes: int = 8 * 2**20
    pixels: int = 200_000_000
    pages: int = 100
    page_dpi: int = 144
    fetch: bool = False
    allow: tuple[str, ...] = ()
    timeout_s: float = 8.0
    redirects: int = 3
    fast: bool = False
    threads: int = 2
