"""Every `Preparer`: ids, lengths, spans and usage that fit together, whatever the job."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from serving.errors import InvalidInput, TokenLimitExceeded
from serving.media import MediaOptions
from serving.models.catalog import Entry
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec
from serving.preparing import open_preparer
from serving.values import Fused, Item, Job, Output, Prepared, Text
from tests import checkpoints, upstream
from tests.serving.preparing.visual import image, pdf

MODELS = ("bert_mean", "xlmr_prompts", "jina_v3", "jina_v4", "jina_v5_nano", "qwen3_embedding")
TEXTS = (Text("A man is eating."), Text(""), Text("今天天气很好 👩‍👩‍👧"))


@pytest.fixture(scope="module", params=MODELS)
def spec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    folder: Path = tmp_path_factory.mktemp("models")
    room = upstream if request.param in upstream.NAMES else checkpoints
    return load_spec(Entry("tiny", str(room.build(request.param, folder))), weights=False)


def jobs(spec: ModelSpec) -> list[Job]:
    """A job of every kind that the model takes."""
    kinds: list[tuple[Item, ...]] = [TEXTS, TEXTS[1:2], (Text("word " * 3000),)]
    if spec.vision:
        mixed = Fused((Text("a"), image(), Text("b")))
        kinds += [(image(),), (TEXTS[0], image(50, 40), mixed), (pdf((90, 90), (60, 80)),)]
    tasks = [None, *(task.name for task in spec.tasks)]
    found = [Job("tiny", items, task, truncate=True) for items in kinds for task in tasks]
    if spec.late_chunking:
        found += [Job("tiny", (*TEXTS, Text("word " * 3000)), tasks[-1], late_chunking=True)]
    if spec.multi:
        output = Output(multi=True, tokens=True)
        found += [Job("tiny", items, output=output, truncate=True) for items in kinds]
    return found


def prepared(spec: ModelSpec, *some: Job) -> list[Prepared]:
    preparer = open_preparer(spec, MediaOptions())

    async def all_of_them() -> list[Prepared]:
        return await asyncio.gather(*map(preparer.prepare, some))

    return asyncio.run(all_of_them())


def test_what_is_prepared_fits_together(spec: ModelSpec) -> None:
    every = jobs(spec)
    for job, one in zip(every, prepared(spec, *every), strict=True):
        assert (one.ids.dtype, one.lengths.dtype) == (np.int32, np.int32)
        assert one.lengths.sum() == len(one.ids) and one.lengths.min() > 0
        assert one.lengths.max() <= spec.max_tokens
        assert one.usage.total_tokens == len(one.ids)
        assert (one.output, one.task, one.service_class) == (job.output, job.task, "interactive")
        adapter = next((task.adapter for task in spec.tasks if task.name == job.task), None)
        assert one.adapter == adapter
        check_spans(one)
        check_pixels(spec, one)
        if job.output.tokens:
            rows = one.lengths - spec.multi.skip
            assert [len(row) for row in one.tokens] == rows.tolist()


def check_spans(one: Prepared) -> None:
    if one.spans is None:
        return
    vector, place, start, end = one.spans.T
    assert one.spans.dtype == np.int32
    assert set(vector) == set(range(one.vectors)) and (np.diff(vector) >= 0).all()
    assert ((start >= 0) & (start < end) & (end <= one.lengths[place])).all()


def check_pixels(spec: ModelSpec, one: Prepared) -> None:
    assert one.usage.image_tokens == sum(pixels.tokens for pixels in one.pixels)
    for pixels in one.pixels:
        assert len(set(one.ids[pixels.at : pixels.at + pixels.tokens])) == 1
        height, width, _ = pixels.array.shape
        side = spec.vision.patch * spec.vision.merge
        assert pixels.tokens * side**2 == height * width <= spec.vision.max_pixels
        assert not height % side and not width % side


def test_preparing_again_gives_the_same(spec: ModelSpec) -> None:
    every = jobs(spec)
    for one, again in zip(prepared(spec, *every), prepared(spec, *every), strict=True):
        assert one.ids.tolist() == again.ids.tolist()
        assert one.usage == again.usage and one.tokens == again.tokens


def test_an_over_long_text_is_refused_unless_it_may_be_cut(spec: ModelSpec) -> None:
    with pytest.raises(TokenLimitExceeded) as caught:
        prepared(spec, Job("tiny", (Text("x"), Text("word " * 3000))))
    assert (caught.value.field, caught.value.status) == ("input.1", 400)
    assert f"takes {spec.max_tokens} (set truncate: true" in caught.value.message


def test_what_is_no_unicode_is_refused_by_its_place(spec: ModelSpec) -> None:
    with pytest.raises(InvalidInput) as caught:
        prepared(spec, Job("tiny", (Text("x"), Text("\ud800"))))
    assert caught.value.field == "input.1"
