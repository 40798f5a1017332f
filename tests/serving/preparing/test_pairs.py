"""Queries with documents to token ids: what is cut, what is text, and which stand together."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from serving.errors import MediaInvalid, ModelUnavailable, TokenLimitExceeded
from serving.media import MediaOptions
from serving.models.catalog import Entry
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec
from serving.preparing import open_preparer
from serving.values import Image, Job, Output, Pair, Prepared, Text
from tests.serving.preparing.visual import image
from tests.upstream import RERANKERS, build

QUERY = Text("who eats bread?")
TEXTS = ("A man is eating bread.", "", "今天天气很好 👩‍👩‍👧")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rerankers")
    for name in RERANKERS:
        build(name, folder)
    return folder


@pytest.fixture(params=RERANKERS)
def spec(request: pytest.FixtureRequest, folder: Path) -> ModelSpec:
    return load(folder, request.param)


def load(folder: Path, name: str) -> ModelSpec:
    return load_spec(Entry("tiny", str(folder / name)), weights=False)


def prepared(spec: ModelSpec, *documents: str | Image, **facts: object) -> Prepared:
    query = facts.pop("query", QUERY)
    items = tuple(
        Pair(query, Text(one) if isinstance(one, str) else one)  # type: ignore[arg-type]
        for one in documents
    )
    job = Job("tiny", items, output=Output(normalized=False), field="documents")
    preparer = open_preparer(spec, MediaOptions())
    return asyncio.run(preparer.prepare(replace(job, **facts)))  # type: ignore[arg-type]


def inputs(one: Prepared) -> list[list[int]]:
    return [part.tolist() for part in np.split(one.ids, np.cumsum(one.lengths)[:-1])]


def tokenizer(spec: ModelSpec) -> Tokenizer:
    return Tokenizer.from_file(str(Path(spec.path) / "tokenizer.json"))


def test_what_is_prepared_fits_together(spec: ModelSpec) -> None:
    one = prepared(spec, *TEXTS, document_tokens=40)
    assert one.ids.dtype == np.int32
    assert one.lengths.sum() == len(one.ids) == one.usage.total_tokens
    assert one.lengths.max() <= spec.max_tokens
    assert one.output == Output(normalized=False)
    listwise = spec.family == "jina_reranker_v3"
    assert (one.vectors, len(one.lengths)) == ((4, 1) if listwise else (3, 3))


def test_preparing_again_gives_the_same(spec: ModelSpec) -> None:
    first, second = (prepared(spec, *TEXTS) for _ in range(2))
    assert first.ids.tolist() == second.ids.tolist()


def test_special_tokens_of_a_caller_are_text(spec: ModelSpec) -> None:
    """Trap 21: nobody ends the question early, or puts an image where there is none."""
    words = tokenizer(spec)
    special = [i for i, token in words.get_added_tokens_decoder().items() if token.special]
    plain = prepared(spec, "a man", document_tokens=40)
    evil = "".join(words.id_to_token(i) for i in special if "_token" not in words.id_to_token(i))
    other = prepared(spec, f"a {evil} man", query=Text(f"who {evil}?"), document_tokens=400)
    assert np.isin(other.ids, special).sum() == np.isin(plain.ids, special).sum()
    assert len(other.ids) > len(plain.ids)


def test_a_document_is_cut_to_as_many_tokens_as_are_asked_for(spec: ModelSpec) -> None:
    long = prepared(spec, "word " * 50, document_tokens=8)
    short = prepared(spec, tokenizer(spec).decode(tokenizer(spec).encode("word " * 50).ids[:8]))
    assert long.ids.tolist() == short.ids.tolist()


@pytest.mark.parametrize("name", ["qwen3_reranker", "jina_reranker_m0"])
def test_an_over_long_pair_is_refused_unless_it_may_be_cut(folder: Path, name: str) -> None:
    spec = load(folder, name)
    with pytest.raises(TokenLimitExceeded) as caught:
        prepared(spec, "x", "word " * 900)
    assert (caught.value.field, caught.value.status) == ("documents.1", 400)
    assert caught.value.message.startswith("documents 1 has ")
    one = prepared(spec, "x", "word " * 900, truncate=True)
    assert one.lengths.max() <= spec.max_tokens
    first, second = inputs(one)
    assert len(second) > 600 and second[-9:] == first[-9:]


# jina-reranker-m0


def test_m0_ends_with_the_token_that_is_scored(folder: Path) -> None:
    one = prepared(load(folder, "jina_reranker_m0"), *TEXTS)
    assert [ids[-1] for ids in inputs(one)] == [100, 100, 100]
    assert one.spans is None


def test_a_query_of_pixels_is_read_once_and_shared(folder: Path) -> None:
    spec = load(folder, "jina_reranker_m0")
    query = image(50, 40)
    one = prepared(spec, image(90, 130), "a man", query=query)
    pad = tokenizer(spec).token_to_id("<|image_pad|>")
    assert [ids.count(pad) for ids in inputs(one)] == [
        one.pixels[0].tokens + one.pixels[1].tokens,
        one.pixels[2].tokens,
    ]
    assert one.pixels[1].array is one.pixels[2].array
    for pixels in one.pixels:
        assert set(one.ids[pixels.at : pixels.at + pixels.tokens]) == {pad}
    assert one.usage.image_tokens == sum(pixels.tokens for pixels in one.pixels)
    assert one.spans is not None
    assert one.spans[:, 2].tolist() == (one.lengths - 1).tolist()


def test_an_image_that_cannot_be_read_is_named_by_its_place(folder: Path) -> None:
    with pytest.raises(MediaInvalid) as caught:
        prepared(load(folder, "jina_reranker_m0"), "a", Image("data:image/png;base64,aGVsbG8="))
    assert caught.value.field == "documents.1"


# jina-reranker-v3


def test_documents_stand_together_as_far_as_they_fit(folder: Path) -> None:
    spec = load(folder, "jina_reranker_v3")
    assert spec.reranker is not None
    four = replace(spec, reranker=replace(spec.reranker, most=4))
    one = prepared(four, *(f"text {at}" for at in range(10)), document_tokens=40)
    assert one.spans is not None
    assert np.bincount(one.spans[:, 1]).tolist() == [5, 5, 3]  # each with its query
    mark = tokenizer(spec).token_to_id("<|embed_token|>")
    assert [ids.count(mark) for ids in inputs(one)] == [4, 4, 2]


@pytest.mark.parametrize("limit", [520, 640, 900])
def test_no_prompt_is_longer_than_the_context(folder: Path, limit: int) -> None:
    spec = replace(load(folder, "jina_reranker_v3"), max_tokens=limit)
    one = prepared(spec, *("word " * (at % 5) for at in range(40)), document_tokens=1)
    assert one.lengths.max() <= limit
    assert one.vectors == 40 + len(one.lengths)


def test_a_document_that_fits_no_prompt_is_refused_by_its_place(folder: Path) -> None:
    spec = replace(load(folder, "jina_reranker_v3"), max_tokens=600)
    with pytest.raises(TokenLimitExceeded) as caught:
        prepared(spec, "a", "word " * 300)
    assert caught.value.field == "documents.1"


def test_a_tokenizer_without_the_marks_is_refused(folder: Path) -> None:
    spec = load(folder, "jina_reranker_v3")
    with pytest.raises(ModelUnavailable, match=r"for which <\|embed_token\|> is not one token"):
        prepared(replace(spec, path=str(folder / "qwen3_reranker")), "a")
