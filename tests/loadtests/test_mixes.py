"""Questions are those that a model can answer, of the lengths that they should have."""

from __future__ import annotations

import base64
import io
from itertools import islice
from statistics import median

import pytest
from PIL import Image

from loadtests.mixes import KINDS, Facts, questions

TEXT = Facts("m", 256, ("retrieval.query",))
VISION = Facts("v", 8192, images=True)


def test_a_seed_always_gives_the_same_questions() -> None:
    first, second = (list(islice(questions(TEXT, 7), 50)) for _ in range(2))
    assert first == second != list(islice(questions(TEXT, 8), 50))


def test_kinds_come_in_their_shares() -> None:
    drawn = [one.kind for one in islice(questions(VISION, 0), 2000)]
    whole = sum(kind.share for kind in KINDS)
    for kind in KINDS:
        assert drawn.count(kind.name) / 2000 == pytest.approx(kind.share / whole, abs=0.03)


def test_a_model_without_images_is_sent_none() -> None:
    assert not any(one.images for one in islice(questions(TEXT, 0), 500))


def test_a_task_is_asked_for_where_the_model_has_it() -> None:
    tasks = {one.kind: one.task for one in islice(questions(TEXT, 0), 500)}
    assert (tasks["query"], tasks["passages"]) == ("retrieval.query", "")


def test_half_of_the_texts_are_shorter_than_the_median_and_all_fit_the_context() -> None:
    lengths = [
        len(text.split()) + 2
        for one in islice(questions(TEXT, 0, only="passages"), 500)
        for text in one.inputs
    ]
    assert median(lengths) == pytest.approx(70, rel=0.1)
    assert max(lengths) <= TEXT.context


def test_an_image_is_one_that_can_be_decoded() -> None:
    [question] = islice(questions(VISION, 0, only="image"), 1)
    [source] = question.inputs
    picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert picture.size[0] == picture.size[1] >= 224
    assert question.body("v")["input"] == [{"image": source}]


def test_a_kind_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="nothing of the kind poem"):
        next(questions(TEXT, 0, only="poem"))


def test_what_a_model_takes_is_read_from_its_entry() -> None:
    entry = {"id": "m", "max_model_len": 256, "tasks": ["a"], "input_modalities": ["text"]}
    assert Facts.of(entry) == Facts("m", 256, ("a",), False)
