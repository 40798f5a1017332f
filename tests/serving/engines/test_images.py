"""The torch engine against plain transformers: images, their places and their neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from serving.engines._calls import Input
from serving.values import Output, Pixels
from tests.adapted import END, PAD, START
from tests.serving.engines.harness import NEAR, TEXTS, Given, embed, opened, unit

Image = np.ndarray[Any, Any]


def image(height: int, width: int) -> Image:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def picture(array: Image) -> tuple[list[int], int]:
    """An image's input, with words around it, and how many placeholders are in it."""
    tokens = array.shape[0] * array.shape[1] // 28**2
    return [10, 11, START, *[PAD] * tokens, END, 12, 13, 14, 15], tokens


def images_of(arrays: Sequence[Image]) -> tuple[list[list[int]], dict[str, Any]]:
    """Inputs of one image each: their tokens; their pixels, and spans from start to end."""
    inputs, pixels, spans, at = [], [], [], 0
    for n, array in enumerate(arrays):
        ids, tokens = picture(array)
        pixels.append(Pixels(at + 3, tokens, array))
        spans.append([n, n, 2, 4 + tokens])
        inputs.append(ids)
        at += len(ids)
    return inputs, {"pixels": tuple(pixels), "spans": np.array(spans, np.int32)}


IMAGES = [image(56, 112), image(84, 28), image(28, 28), image(140, 84)]


@pytest.mark.parametrize("adapter", [None, "retrieval"])
async def test_trap_9_the_vector_of_an_image_is_the_mean_from_start_to_end(
    given: Given, adapter: str | None
) -> None:
    spec, reference = given("qwen_vl")
    inputs, facts = images_of(IMAGES)
    async with opened(spec) as engine:
        answer = await embed(engine, inputs, adapter=adapter, output=Output(multi=True), **facts)
    states = [
        reference.states(ids, adapter, [array]) for ids, array in zip(inputs, IMAGES, strict=True)
    ]
    theirs = [unit(one[2 : len(one) - 4].mean(0)) for one in states]
    whole = [unit(one.mean(0)) for one in states]
    assert np.allclose(answer.array, theirs, **NEAR)
    assert np.abs(answer.array - np.array(whole)).max() > 1e-3
    assert answer.multi is not None
    rows = np.concatenate([reference.projected(one, adapter) for one in states])
    assert np.allclose(answer.multi.values, rows, **NEAR)


async def test_trap_14_an_image_has_positions_in_three_directions(given: Given) -> None:
    spec, reference = given("qwen_vl")
    inputs, facts = images_of(IMAGES[:1])
    async with opened(spec) as engine:
        answer = await embed(engine, inputs, **facts)
    flat = reference.states(inputs[0], None, IMAGES[:1], mm_token_type_ids=None)
    assert np.abs(answer.array[0] - unit(flat[2 : len(flat) - 4].mean(0))).max() > 1e-3


async def test_images_beside_texts_and_other_adapters_are_as_if_alone(
    given: Given, forwards: list[Sequence[Input]]
) -> None:
    spec, _ = given("qwen_vl")
    inputs, facts = images_of(IMAGES)
    async with opened(spec) as engine:
        together = await asyncio.gather(
            embed(engine, TEXTS, adapter="code"),
            embed(engine, inputs, adapter="retrieval", **facts),
            embed(engine, [[10, PAD, PAD, 11], [12]]),
        )
        assert any(
            any(one.wanted for one in batch) and not all(one.wanted for one in batch)
            for batch in forwards
        )
        texts = [await embed(engine, [text], adapter="code") for text in TEXTS]
        pictures = [
            await embed(engine, one, adapter="retrieval", **more)
            for one, more in (images_of([array]) for array in IMAGES)
        ]
    for answer, alone in ((together[0], texts), (together[1], pictures)):
        assert np.allclose(answer.array, [one.array[0] for one in alone], **NEAR)


async def test_two_images_in_one_input_are_seen_in_their_order(given: Given) -> None:
    spec, reference = given("qwen_vl")
    one, other = IMAGES[0], image(112, 56)
    ids = [START, *[PAD] * 8, END, 20, 21, START, *[PAD] * 8, END, 22]
    pixels = (Pixels(13, 8, other), Pixels(1, 8, one))
    async with opened(spec) as engine:
        answer = await embed(
            engine, [[10, 11], ids[:]], pixels=tuple(replace(p, at=p.at + 2) for p in pixels)
        )
    theirs = unit(reference.states(ids, None, [one, other]).mean(0))
    assert np.allclose(answer.array[1], theirs, **NEAR)
    assert np.allclose(answer.array[0], unit(reference.states([10, 11]).mean(0)), **NEAR)


async def test_a_placeholder_in_somebodys_text_is_text_and_disturbs_nobody(
    given: Given, forwards: list[Sequence[Input]]
) -> None:
    spec, reference = given("qwen_vl")
    inputs, facts = images_of(IMAGES[:1])
    text = [10, *[PAD] * (len(inputs[0]) - 2), 11]
    behind = tuple(replace(one, at=one.at + len(text)) for one in facts["pixels"])
    spans = facts["spans"] + np.array([1, 1, 0, 0], np.int32)
    whole = np.array([[0, 0, 0, len(text)]], np.int32)
    async with opened(spec) as engine:
        alone = await embed(engine, inputs, **facts)
        beside = await embed(
            engine, [text, *inputs], pixels=behind, spans=np.concatenate([whole, spans])
        )
    assert [len(batch) for batch in forwards] == [1, 2]
    assert np.allclose(beside.array[1], alone.array[0], **NEAR)
    assert np.allclose(beside.array[0], unit(reference.states(text).mean(0)), **NEAR)


async def test_bfloat16_is_near_float32_with_adapters_and_images(given: Given) -> None:
    spec, _ = given("qwen_vl")
    inputs, facts = images_of(IMAGES)
    output = Output(multi=True)
    async with opened(spec) as exact:
        theirs = await embed(exact, inputs, adapter="code", output=output, **facts)
    async with opened(spec, dtype="bfloat16") as engine:
        ours = await embed(engine, inputs, adapter="code", output=output, **facts)
    assert np.einsum("ij,ij->i", ours.array, theirs.array).min() > 0.99
    assert ours.multi is not None and theirs.multi is not None
    assert np.einsum("ij,ij->i", ours.multi.values, theirs.multi.values).min() > 0.97
