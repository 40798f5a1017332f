"""What cannot be prepared is refused by its place, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import base64
import threading
from dataclasses import replace

import numpy as np
import pytest

from serving.errors import (
    InvalidInput,
    MediaInvalid,
    MediaTooLarge,
    MediaUnreachable,
    ModelUnavailable,
    TokenLimitExceeded,
)
from serving.media import MediaOptions
from serving.models.spec import ModelSpec
from serving.preparing import open_preparer
from serving.preparing.vision import VisionPreparer
from serving.values import Fused, Image, Item, Job, Pdf, Text
from tests.serving.preparing.visual import (
    image,
    prepared,
)

# What is refused


def test_an_image_beyond_the_context_is_refused_with_what_would_fit(spec: ModelSpec) -> None:
    short = replace(spec, max_tokens=40)
    big = image(400, 400)
    with pytest.raises(TokenLimitExceeded) as caught:
        prepared(short, Text("x"), big, truncate=True)
    assert caught.value.field == "input.1"
    message = caught.value.message
    assert message.startswith("input 1 has ") and "36 of them of images; tiny takes 40" in message
    fits = int(message.split("max_pixels to ")[1].split()[0])
    one = prepared(short, Text("x"), big, max_pixels=fits)
    assert max(one.lengths) <= 40
    with pytest.raises(TokenLimitExceeded):
        prepared(short, big, max_pixels=fits + 10 * 24**2)


def test_parts_beyond_the_context_are_refused(spec: ModelSpec) -> None:
    with pytest.raises(TokenLimitExceeded, match="give it fewer parts"):
        prepared(replace(spec, max_tokens=40), Fused((Text("word " * 50), image())))
    with pytest.raises(TokenLimitExceeded, match=r"input 1 has 151 tokens; .* \(set trunc"):
        prepared(replace(spec, max_tokens=40), image(30, 30), Text("word " * 50))
    one = prepared(replace(spec, max_tokens=40), image(30, 30), Text("word " * 50), truncate=True)
    assert one.lengths[1] == 40


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (Image("@@"), MediaInvalid),
        (Image(base64.b64encode(bytes(5000)).decode()), MediaTooLarge),
        (Image("https://example.org/x.png"), MediaUnreachable),
        (Fused((Text("x"), Image("@@"))), MediaInvalid),
        (Pdf("@@"), MediaInvalid),
        (Fused((Text("\ud800"), image(9, 9))), InvalidInput),
    ],
    ids=["invalid", "large", "address", "part", "pdf", "unicode"],
)
def test_what_fails_is_named_by_its_place(
    spec: ModelSpec, bad: Item, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        prepared(
            spec, image(9, 9), Text("x"), bad, image(9, 9), media=MediaOptions(image_bytes=4000)
        )
    assert caught.value.field == "input.2"
    assert "input.2" in caught.value.message


def test_one_failure_gives_the_others_up_and_leaves_no_thread(spec: ModelSpec) -> None:
    preparer = open_preparer(spec, MediaOptions())
    assert isinstance(preparer, VisionPreparer)
    good = image(600, 600)

    async def go() -> int:
        with pytest.raises(MediaInvalid):
            await preparer.prepare(Job("tiny", (*[good] * 20, Image("@@"), *[good] * 20)))
        return len(asyncio.all_tasks())

    before = threading.active_count()
    for _ in range(3):
        assert asyncio.run(go()) == 1
    assert threading.active_count() <= before + 3
    one = asyncio.run(preparer.prepare(Job("tiny", (good,))))
    assert len(one.pixels) == 1
    preparer.close()


def test_many_images_come_in_their_order(spec: ModelSpec) -> None:
    many = [image(40 + n, 40, seed=n) for n in range(30)]
    one = prepared(spec, *many, media=MediaOptions(threads=4))
    for n, pixels in enumerate(one.pixels):
        [alone] = prepared(spec, many[n]).pixels if n % 10 == 0 else [pixels]
        assert np.array_equal(pixels.array, alone.array)


def test_a_tokenizer_without_the_markers_is_refused(spec: ModelSpec) -> None:
    odd = replace(spec, vision=replace(spec.vision, pad="<|no_such|>"))
    with pytest.raises(ModelUnavailable, match=r"<\|no_such\|> is not one token"):
        open_preparer(odd, MediaOptions())
