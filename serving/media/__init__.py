"""Bytes of images and documents: where they come from, how large they may be, what they show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from serving.errors import MediaTooLarge

__all__ = ["MediaOptions", "MediaSource", "Wanted"]


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """What may come in, and how it is decoded.

    `image_bytes` and `pdf_bytes` bound an encoded file (more is `MediaTooLarge`), `pixels` a
    decoded image (a decompression bomb is refused from its header), `pages` a document rendered at
    `page_dpi` dots an inch. `fetch` allows addresses, within `timeout_s` seconds in all, at most
    `connect_timeout_s` of them for a connection, and `redirects` redirects; `allow` lists networks
    (`10.0.0.0/8`) and host names that may be other than global. `fast` lets the JPEG decoder shrink
    by powers of two, which changes vectors a little. `threads` decode at a time.
    """

    image_bytes: int = 8 * 2**20
    pdf_bytes: int = 8 * 2**20
    pixels: int = 200_000_000
    pages: int = 100
    page_dpi: int = 144
    fetch: bool = False
    allow: tuple[str, ...] = ()
    timeout_s: float = 8.0
    connect_timeout_s: float = 3.0
    redirects: int = 3
    fast: bool = False
    threads: int = 2


@dataclass(frozen=True, slots=True)
class Wanted:
    """One input's file: its `field` in the request, what it should be, and its most bytes.

    `noun` is a word for people ("image"), `setting` the name of what sets `limit`.
    """

    field: str
    noun: str
    limit: int
    setting: str

    def too_large(self, size: int | None = None) -> MediaTooLarge:
        """The refusal of more than `limit` bytes; `size` is None where it is not known."""
        has = f"{size} bytes" if size is not None else f"more than {self.limit} bytes"
        may = f"{'an' if self.noun[0] in 'aeiou' else 'a'} {self.noun} may have {self.limit}"
        return MediaTooLarge(f"{self.field} has {has}; {may} ({self.setting})", self.field)


class MediaSource(Protocol):
    """Gets the encoded bytes of an image or a document."""

    async def read(self, source: str, wanted: Wanted) -> bytes:
        """The bytes that `source` stands for, at most `wanted.limit` of them.

        Raises `MediaTooLarge`, `MediaInvalid` or `MediaUnreachable`, with `wanted.field`. Never
        blocks the event loop for long.
        """
        ...
