"""The front of the media room: from a source to pixels, while the event loop goes on."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from serving.errors import InvalidConfig, MediaInvalid, MediaTooLarge, MediaUnreachable
from serving.media import MediaOptions
from serving.media.media import Media
from serving.media.resizing import Sizing
from tests.serving.media.pictures import encoded, noise
from tests.serving.media.servers import Answer, serving

SIZING = Sizing(28, 3136, 602_112)
PNG = encoded(Image.fromarray(noise(56, 84)), "PNG")


@pytest.fixture
def media() -> Iterator[Media]:
    media = Media(MediaOptions(fetch=True, allow=("127.0.0.1",), image_bytes=20_000))
    yield media
    media.close()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_every_source_gives_the_same_pixels(media: Media) -> None:
    with serving({"/a": Answer((PNG,))}) as server:
        sources = [
            b64(PNG),
            f"data:image/png;base64,{b64(PNG)}",
            f"http://127.0.0.1:{server.port}/a",
        ]

        async def all_of_them() -> list[np.ndarray]:
            return await asyncio.gather(*(media.image(one, SIZING, "input") for one in sources))

        found = asyncio.run(all_of_them())
    assert all(np.array_equal(one, noise(56, 84)) for one in found)


def test_a_pdf_gives_its_pages(media: Media) -> None:
    data = encoded(Image.new("L", (100, 100)), "PDF")
    [page] = asyncio.run(media.pages(b64(data), SIZING, "input.0"))
    assert page.shape[2] == 3


@pytest.mark.parametrize("scheme", ["file:///etc/passwd", "ftp://h/x", "gopher://h", "about:blank"])
def test_other_schemes_are_refused(media: Media, scheme: str) -> None:
    with pytest.raises(MediaInvalid, match=r"input\.1 is an address of the scheme") as caught:
        asyncio.run(media.image(scheme, SIZING, "input.1"))
    assert caught.value.field == "input.1"


def test_an_address_is_not_fetched_by_default() -> None:
    media = Media(MediaOptions())
    with pytest.raises(MediaUnreachable, match=r"media\.fetch"):
        asyncio.run(media.image("https://example.org/", SIZING, "input"))
    media.close()


def test_each_kind_has_its_own_limit(media: Media) -> None:
    too_large = b64(b"%PDF-" + bytes(20_000))
    with pytest.raises(MediaTooLarge, match=r"media\.image_bytes"):
        asyncio.run(media.image(too_large, SIZING, "input"))
    with pytest.raises(MediaInvalid, match="it is broken"):
        asyncio.run(media.pages(too_large, SIZING, "input"))
    small = Media(MediaOptions(pdf_bytes=20))
    with pytest.raises(MediaTooLarge, match=r"a PDF may have 20 \(media\.pdf_bytes\)"):
        asyncio.run(small.pages(too_large, SIZING, "input"))
    small.close()


def test_the_event_loop_goes_on_while_an_image_is_decoded() -> None:
    media = Media(MediaOptions())
    big = b64(encoded(Image.new("L", (5000, 4000), 7), "PNG"))

    async def ticks() -> int:
        decoding = asyncio.ensure_future(media.image(big, SIZING, "input"))
        ticks = 0
        while not decoding.done():
            await asyncio.sleep(0)
            ticks += 1
        assert (await decoding).shape == (672, 840, 3)
        return ticks

    assert asyncio.run(ticks()) > 20
    media.close()


def test_closing_ends_the_threads() -> None:
    media = Media(MediaOptions(threads=3))
    asyncio.run(media.image(b64(PNG), SIZING, "input"))
    mine = [thread for thread in threading.enumerate() if thread.name.startswith("media")]
    assert mine
    media.close()
    for thread in mine:
        thread.join(10)
        assert not thread.is_alive()


def test_what_may_be_fetched_is_checked_at_the_start() -> None:
    with pytest.raises(InvalidConfig):
        Media(MediaOptions(allow=("10.0.0.0/40",)))
