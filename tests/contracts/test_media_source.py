"""Every `MediaSource`: the bytes, at most as many as wanted, refused by their place."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import pytest

from serving import media
from serving.errors import MediaInvalid, MediaTooLarge, MediaUnreachable
from serving.media import MediaOptions, MediaSource, Wanted
from serving.media.fetching import Fetched
from serving.media.inline import Inline
from tests.serving.media.servers import Answer, serving

# A source, and what stands in it for bytes: None for what is none.
Given: TypeAlias = tuple[MediaSource, Callable[[bytes | None], str]]
WANTED = Wanted("input.5", "image", 100, "media.image_bytes")
SIZES = (1, 100, 101, 5000)


@pytest.fixture(params=["inline", "fetching"])
def given(request: pytest.FixtureRequest) -> Iterator[Given]:
    if request.param == "inline":
        with ThreadPoolExecutor(1) as pool:
            yield Inline(pool), lambda data: base64.b64encode(data).decode() if data else "?"
        return
    answers = {f"/{size}": Answer((bytes(size),)) for size in SIZES} | {"/none": Answer(status=404)}
    with serving(answers) as server:
        base = f"http://127.0.0.1:{server.port}"
        options = MediaOptions(fetch=True, allow=("127.0.0.1",))
        yield Fetched(options), lambda data: f"{base}/{len(data) if data else 'none'}"


def test_every_source_of_the_room_is_here() -> None:
    files = Path(media.__file__).parent.glob("*.py")
    found = {file.stem for file in files if "async def read(" in file.read_text()} - {"__init__"}
    assert found == {"inline", "fetching"}


@pytest.mark.parametrize("size", [1, 100])
def test_the_bytes_are_given(given: Given, size: int) -> None:
    source, of = given
    assert asyncio.run(source.read(of(bytes(size)), WANTED)) == bytes(size)


@pytest.mark.parametrize("size", [101, 5000])
def test_more_than_wanted_is_refused(given: Given, size: int) -> None:
    source, of = given
    with pytest.raises(MediaTooLarge) as caught:
        asyncio.run(source.read(of(bytes(size)), WANTED))
    assert caught.value.field == "input.5"
    assert caught.value.message.startswith("input.5 ")
    assert "100 (media.image_bytes)" in caught.value.message


def test_what_is_nothing_is_refused(given: Given) -> None:
    source, of = given
    with pytest.raises((MediaInvalid, MediaUnreachable)) as caught:
        asyncio.run(source.read(of(None), WANTED))
    assert caught.value.field == "input.5"
    assert caught.value.message.startswith("input.5 ")
