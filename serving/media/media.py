"""The room's front: a source string in, pixels out, without blocking the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from serving.errors import MediaInvalid
from serving.media import MediaOptions, MediaSource, Wanted
from serving.media.documents import render
from serving.media.fetching import Fetched, Resolver, resolve
from serving.media.inline import Inline, scheme_of
from serving.media.pictures import Pixels, allow_pixels, decode
from serving.media.resizing import Sizing

__all__ = ["Media"]


class Media:
    """Images and documents within `options`; `resolver` finds a host's addresses.

    Files are decoded in `options.threads` threads, which `close` ends. Raises `InvalidConfig` for
    an `allow` that cannot be read.
    """

    def __init__(self, options: MediaOptions, resolver: Resolver = resolve) -> None:
        self._options = options
        self._pool = ThreadPoolExecutor(options.threads, "media")
        self._inline = Inline(self._pool)
        self._fetched = Fetched(options, resolver)
        allow_pixels(options.pixels)

    async def image(self, source: str, sizing: Sizing, field: str) -> Pixels:
        """`[height, width, 3]` of an image, sized by `sizing`; `field` is its place in a request.

        Raises `MediaTooLarge`, `MediaInvalid` or `MediaUnreachable`.
        """
        wanted = Wanted(field, "image", self._options.image_bytes, "media.image_bytes")
        data = await self._read(source, wanted)
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, decode, data, sizing, self._options, field
        )

    async def pages(self, source: str, sizing: Sizing, field: str) -> list[Pixels]:
        """The same of every page of a PDF."""
        wanted = Wanted(field, "PDF", self._options.pdf_bytes, "media.pdf_bytes")
        data = await self._read(source, wanted)
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, render, data, sizing, self._options, field
        )

    def close(self) -> None:
        """End the threads; what waits for one is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _read(self, source: str, wanted: Wanted) -> bytes:
        chosen: dict[str | None, MediaSource] = {
            None: self._inline,
            "data": self._inline,
            "http": self._fetched,
            "https": self._fetched,
        }
        scheme = scheme_of(source)
        if scheme not in chosen:
            raise MediaInvalid(
                f"{wanted.field} is an address of the scheme {scheme}; http and https are fetched,"
                " and data URIs and base64 are read",
                wanted.field,
            )
        return await chosen[scheme].read(source, wanted)
