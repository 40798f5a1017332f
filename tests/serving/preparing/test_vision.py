"""Images, pages and mixtures to ids, pixels and spans, against transformers' own processors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from transformers import PreTrainedTokenizerBase
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from serving.media import MediaOptions
from serving.models.spec import ModelSpec
from serving.values import Fused, Text, Usage
from tests.serving.media.pictures import noise
from tests.serving.preparing.visual import (
    END,
    PAD,
    PROMPT,
    START,
    expanded,
    image,
    inputs,
    pdf,
    prepared,
)

# An image


@pytest.mark.parametrize("size", [(90, 130), (24, 24), (500, 300), (10, 40)])
def test_an_image_is_its_prompt_with_as_many_placeholders_as_tokens(
    spec: ModelSpec, theirs: PreTrainedTokenizerBase, size: tuple[int, int]
) -> None:
    one = prepared(spec, image(*size), task="retrieval.passage")
    processor = Qwen2VLImageProcessorPil.from_pretrained(spec.path)
    found = processor(PIL.Image.fromarray(noise(*size)), return_tensors="np")
    tokens = int(found["image_grid_thw"][0].prod()) // 4
    assert inputs(one) == [expanded(theirs, PROMPT, tokens)]
    [pixels] = one.pixels
    assert (pixels.tokens, pixels.array.dtype, pixels.array.shape[2]) == (tokens, np.uint8, 3)
    assert pixels.array.shape[0] * pixels.array.shape[1] == tokens * 24**2
    placeholders = one.ids[pixels.at : pixels.at + tokens]
    assert set(placeholders.tolist()) == {theirs.convert_tokens_to_ids(PAD)}
    patches = processor(PIL.Image.fromarray(pixels.array), do_resize=False, return_tensors="np")
    assert np.array_equal(patches["pixel_values"], found["pixel_values"])
    assert one.usage == Usage(len(one.ids) - tokens, tokens)
    assert (one.adapter, one.task, one.vectors) == ("retrieval", "retrieval.passage", 1)
    assert (one.ids.dtype, one.spans.dtype) == (np.int32, np.int32)


def test_trap_9_the_vector_of_an_image_is_from_its_start_to_its_end_marker(
    spec: ModelSpec, theirs: PreTrainedTokenizerBase
) -> None:
    one = prepared(spec, image())
    [[vector, place, start, end]] = one.spans.tolist()
    assert (vector, place) == (0, 0)
    [ids] = inputs(one)
    assert theirs.convert_ids_to_tokens([ids[start], ids[end - 1]]) == [START, END]
    assert end - start == one.pixels[0].tokens + 2 < len(ids)


def test_trap_10_an_image_has_no_system_turn(
    spec: ModelSpec, theirs: PreTrainedTokenizerBase
) -> None:
    [ids] = inputs(prepared(spec, image()))
    text = theirs.decode(ids)
    assert text.startswith(f"<|im_start|>user\n{START}") and text.count("<|im_start|>") == 1
    assert text.endswith(f"{END}Describe the image.<|im_end|>\n")
    templated = theirs.apply_chat_template(
        [{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=False
    )
    assert "system" in templated, "the checkpoint's own template would add one"


def test_trap_13_placeholders_are_expanded_once(
    spec: ModelSpec, theirs: PreTrainedTokenizerBase
) -> None:
    one = prepared(spec, image(), image(60, 60), Text(f"a {PAD} b {START}{PAD}{PAD}{END} c"))
    pad = theirs.convert_tokens_to_ids(PAD)
    placed = {at for p in one.pixels for at in range(p.at, p.at + p.tokens)}
    assert set(np.flatnonzero(one.ids == pad).tolist()) == placed
    assert len(placed) == one.usage.image_tokens == sum(p.tokens for p in one.pixels)


def test_trap_11_the_bound_of_pixels_is_the_models_or_the_jobs(spec: ModelSpec) -> None:
    areas = []
    for most in (None, 10_000, spec.vision.max_pixels + 5, 1):
        [pixels] = prepared(spec, image(400, 400), max_pixels=most).pixels
        areas.append(pixels.array.shape[0] * pixels.array.shape[1])
    assert areas == [144**2, 96**2, 144**2, 24**2]
    assert areas[0] <= spec.vision.max_pixels < 168**2


def test_a_multiplier_is_of_the_tokens_of_images_alone(spec: ModelSpec) -> None:
    dear = replace(spec, vision=replace(spec.vision, token_multiplier=10))
    one, other = prepared(spec, image(), Text("x")), prepared(dear, image(), Text("x"))
    assert one.usage.total_tokens == len(one.ids)
    assert other.usage == Usage(one.usage.text_tokens, 10 * one.usage.image_tokens)


# Mixtures


def test_texts_among_images_are_as_alone(spec: ModelSpec) -> None:
    items = [Text("A man"), image(), Text("is eating"), image(70, 50, seed=2), Text("")]
    one = prepared(spec, *items, task="code.query")
    alone = [prepared(spec, item, task="code.query") for item in items]
    assert inputs(one) == [inputs(single)[0] for single in alone]
    assert one.usage == sum((single.usage for single in alone), Usage())
    assert one.spans[:, :2].tolist() == [[n, n] for n in range(5)]
    for n, single in enumerate(alone):
        expected = [0, single.lengths[0]] if single.spans is None else single.spans[0, 2:].tolist()
        assert one.spans[n, 2:].tolist() == expected
    starts = np.cumsum([0, *one.lengths])
    assert [p.at - starts[n] for p, n in zip(one.pixels, (1, 3), strict=True)] == [
        alone[1].pixels[0].at,
        alone[3].pixels[0].at,
    ]
    assert all(
        np.array_equal(p.array, alone[n].pixels[0].array)
        for p, n in zip(one.pixels, (1, 3), strict=True)
    )


def test_texts_alone_have_no_spans(spec: ModelSpec) -> None:
    one = prepared(spec, Text("A man"), Text("is"))
    assert (one.spans, one.pixels, one.usage.image_tokens) == (None, (), 0)


def test_parts_are_fused_into_one_vector(spec: ModelSpec, theirs: PreTrainedTokenizerBase) -> None:
    parts = (Text("A man "), image(), Text("is eating"), image(60, 60), Text(""))
    one = prepared(spec, Fused(parts), task="retrieval.query")
    first, second = (p.tokens for p in one.pixels)
    marked = f"{START}{PAD}{END}"
    prompt = f"<|im_start|>user\nA man {marked}is eating{marked}<|im_end|>\n"
    assert inputs(one) == [expanded(theirs, prompt, first, second)]
    [[vector, place, start, end]] = one.spans.tolist()
    assert (vector, place) == (0, 0)
    inside = theirs.decode(one.ids[start:end].tolist())
    assert inside.startswith("A man ") and inside.endswith(END)
    assert theirs.decode(one.ids[:start].tolist()) == "<|im_start|>user\n"
    assert theirs.decode(one.ids[end:].tolist()) == "<|im_end|>\n"
    assert one.usage == Usage(len(one.ids) - first - second, first + second)


def test_a_mixture_of_one_kind_is_that_kind(spec: ModelSpec) -> None:
    fused = prepared(spec, Fused((image(),)), Fused((Text("A "), Text("man"))), task="code.query")
    plain = prepared(spec, image(), Text("A man"), task="code.query")
    assert fused.ids.tolist() == plain.ids.tolist()
    assert fused.spans.tolist() == plain.spans.tolist()
    texts = prepared(spec, Fused((Text("A "), Text("man"))), task="code.query")
    assert texts.ids.tolist() == prepared(spec, Text("A man"), task="code.query").ids.tolist()


def test_every_page_is_an_image(spec: ModelSpec, theirs: PreTrainedTokenizerBase) -> None:
    one = prepared(spec, pdf((100, 200), (200, 100)), media=MediaOptions(page_dpi=72))
    assert one.vectors == len(one.lengths) == 2
    shapes = [p.array.shape for p in one.pixels]
    assert shapes == [(96, 192, 3), (192, 96, 3)]
    assert inputs(one) == [expanded(theirs, PROMPT, 32)] * 2
    assert one.spans[:, :2].tolist() == [[0, 0], [1, 1]]
