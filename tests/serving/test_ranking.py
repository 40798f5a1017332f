"""Documents by a query and texts by labels: real vectors of the default model, and exact ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.calls import Call
from serving.engines import EngineOptions
from serving.engines.torch import load
from serving.errors import InvalidInput, ModalityNotSupported, TokenLimitExceeded
from serving.limits.gate import Gate
from serving.ranking import Classes, ClassifyAsk, RankAsk, Ranking, classify, rank
from serving.service import Served, Service
from serving.values import Floats, Image, Pdf, Text
from serving.vectors.listwise import list_scores
from serving.vectors.maxsim import cosines
from tests.services import CountingPreparer, able, minilm, service, tasked, toy

DOCUMENTS = (
    "Bread is baked from flour and water.",
    "About 3.7 million people live in Berlin.",
    "The Spree flows through Berlin.",
)
QUERY = "How many inhabitants does Berlin have?"


def call() -> Call:
    return Call("test", "/v1/rerank", deadline=time.monotonic() + 60)


def texts(*several: str) -> tuple[Text, ...]:
    return tuple(Text(one) for one in several)


async def ranked(served: Service, *documents: str, **facts: object) -> Ranking:
    model = served.catalog.specs[0].id
    ask = RankAsk(model, Text(QUERY), texts(*documents))
    return await rank(served, call(), replace(ask, **facts))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def real() -> Iterator[Service]:
    spec, preparer = minilm()
    engine = load(spec, EngineOptions(dtype="float32", threads=1))
    served = Service({spec.id: Served(spec, preparer, engine)}, Gate(64, 1 << 20), 2048)
    yield served
    asyncio.run(served.close())


# Vectors


async def test_what_answers_the_question_comes_first(real: Service) -> None:
    found = await ranked(real, *DOCUMENTS)
    assert found.order == (1, 2, 0)
    assert found.scores[1] > 0.7 > 0.2 > found.scores[0]


async def test_a_cosine_is_that_of_the_vectors(real: Service) -> None:
    found = await ranked(real, *DOCUMENTS, vectors=True)
    query = await ranked(real, QUERY, vectors=True)
    assert found.vectors is not None and query.vectors is not None
    np.testing.assert_allclose(found.scores, found.vectors @ query.vectors[0], rtol=0, atol=1e-6)


async def test_all_of_it_is_one_request_and_one_bill(real: Service) -> None:
    one = call()
    ask = RankAsk(real.catalog.specs[0].id, Text(QUERY), texts(*DOCUMENTS))
    found = await rank(real, one, ask)
    assert one.usage == found.usage
    assert one.items == 4
    assert found.usage.text_tokens == sum(map(tokens, (QUERY, *DOCUMENTS)))


def tokens(text: str) -> int:
    _, preparer = minilm()
    [encoding] = preparer.encoder.tokenizers.whole.encode_batch([text])  # type: ignore[attr-defined]
    return len(encoding.ids)


async def test_the_query_and_the_documents_have_the_prompts_of_their_sides() -> None:
    preparer = CountingPreparer()
    await ranked(service(tasked(), preparer=preparer), "a", "b")
    query, documents = preparer.jobs
    assert (query.task, query.items) == ("retrieval.query", texts(QUERY))
    assert (documents.task, documents.items) == ("retrieval.passage", texts("a", "b"))


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=8), st.integers(1, 9))
async def test_the_best_come_first_and_equals_stay_in_order(several: list[str], n: int) -> None:
    found = await ranked(service(toy()), *several, top_n=n)
    assert found.order == tuple(
        sorted(range(len(several)), key=lambda at: (-found.scores[at], at))[:n]
    )


async def test_late_interaction_compares_token_by_token() -> None:
    """`able` has a row a token: (1, 0, 0) for an odd one, (0, 1, 0) for an even one."""
    found = await ranked(service(able()), "\x03\x05", "\x04", scoring="maxsim")
    tokens = [1, *map(ord, QUERY), 2]
    np.testing.assert_allclose(found.raw, [len(tokens), len(tokens)])
    np.testing.assert_allclose(found.scores, [1, 1])
    assert found.order == (0, 1)


async def test_late_interaction_ranks_images_beside_texts() -> None:
    served = service(able())
    documents = (Image("https://example.com/a.png"), Text("a"))
    ask = RankAsk("able", Text("q"), documents, scoring="maxsim")
    found = await rank(served, call(), ask)
    assert len(found.scores) == 2
    assert found.usage.image_tokens == 3


@pytest.mark.parametrize(
    ("facts", "message", "field"),
    [
        ({"scoring": "maxsim"}, "toy has no multi-vectors; scoring may be cosine", "scoring"),
        ({"instruction": "x"}, "toy takes no instruction; leave it out", "instruction"),
    ],
)
async def test_what_a_model_cannot_do_is_refused(
    facts: dict[str, object], message: str, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await ranked(service(toy()), "a", **facts)
    assert (caught.value.message, caught.value.field) == (message, field)


async def test_late_interaction_has_no_one_vector_a_document() -> None:
    with pytest.raises(InvalidInput) as caught:
        await ranked(service(able()), "a", scoring="maxsim", vectors=True)
    assert caught.value.field == "return_embeddings"


async def test_an_image_among_the_documents_of_a_text_model_is_named() -> None:
    ask = RankAsk("toy", Text("q"), (Text("a"), Image("x")))
    with pytest.raises(ModalityNotSupported) as caught:
        await rank(service(toy()), call(), ask)
    assert caught.value.field == "documents.1"
    assert caught.value.message == "documents 1 is an image; toy embeds text only"


async def test_a_long_document_is_refused_by_its_place_unless_it_may_be_cut(real: Service) -> None:
    long = "word " * 400
    with pytest.raises(TokenLimitExceeded) as caught:
        await ranked(real, "a", long)
    assert caught.value.field == "documents.1"
    with pytest.raises(TokenLimitExceeded) as caught:
        await ranked(real, "a", query=Text(long))
    assert caught.value.field == "query"
    assert len((await ranked(real, "a", long, truncate=True)).scores) == 2


async def test_documents_are_cut_to_as_many_tokens_as_are_asked_for(real: Service) -> None:
    found = await ranked(real, "bread and water", "bread", document_tokens=1)
    assert found.scores[0] == found.scores[1]


# Lists


def naive(blocks: list[tuple[Floats, Floats]]) -> list[float]:
    weights, queries = [], []
    for query, documents in blocks:
        cosine = [d @ query / np.linalg.norm(d) / np.linalg.norm(query) for d in documents]
        weights.append((1 + max(cosine)) / 2)
        queries.append(query)
    mean = np.average(queries, axis=0, weights=weights)
    every = np.concatenate([documents for _, documents in blocks])
    return [d @ mean / np.linalg.norm(d) / np.linalg.norm(mean) for d in every]


@given(st.integers(0, 9), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_several_blocks_share_one_query(seed: int, sizes: list[int]) -> None:
    draw = np.random.default_rng(seed)
    rows = [draw.standard_normal((size + 1, 6)).astype(np.float32) for size in sizes]
    inputs = np.repeat(np.arange(len(sizes), dtype=np.int32), [len(one) for one in rows])
    scores, documents = list_scores(np.concatenate(rows), inputs)
    np.testing.assert_allclose(scores, naive([(r[-1], r[:-1]) for r in rows]), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(documents, np.concatenate([r[:-1] for r in rows]))


def test_one_block_is_plain_cosines() -> None:
    rows = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)
    scores, _ = list_scores(rows, np.zeros(4, np.int32))
    np.testing.assert_allclose(scores, cosines(rows[-1], rows[:-1]), rtol=0, atol=1e-6)


# Labels


async def classified(served: Service, *items: str, **labels: tuple[str, ...]) -> Classes:
    groups = labels or {None: ("food", "travel", "sport")}
    model = served.catalog.specs[0].id
    return await classify(served, call(), ClassifyAsk(model, texts(*items), groups))  # type: ignore[arg-type]


async def test_the_label_that_fits_has_the_highest_score(real: Service) -> None:
    found = await classified(real, "The soup was too salty.", "The train was an hour late.")
    assert found.scores[None].argmax(axis=1).tolist() == [0, 1]
    np.testing.assert_allclose(found.scores[None].sum(axis=1), 1, rtol=0, atol=1e-6)


async def test_every_group_adds_up_to_one_by_itself(real: Service) -> None:
    topic, mood = ("food", "sport"), ("good", "bad", "neutral")
    found = await classified(real, "The soup was salty.", topic=topic, mood=mood)
    shapes = {name: one.shape for name, one in found.scores.items()}
    assert shapes == {"topic": (1, 2), "mood": (1, 3)}
    alone = await classified(real, "The soup was salty.", topic=("food", "sport"))
    np.testing.assert_allclose(found.scores["topic"], alone.scores["topic"], rtol=0, atol=1e-6)


async def test_a_score_is_the_softmax_of_cosines(real: Service) -> None:
    found = await classified(real, "The soup was salty.")
    ranking = await ranked(real, "food", "travel", "sport", query=Text("The soup was salty."))
    powers = np.exp(ranking.scores.astype(np.float64))
    np.testing.assert_allclose(found.scores[None][0], powers / powers.sum(), rtol=0, atol=1e-6)


async def test_a_label_that_is_too_long_is_named(real: Service) -> None:
    with pytest.raises(TokenLimitExceeded) as caught:
        await classified(real, "a", topic=("b", "word " * 400))
    assert caught.value.field == "labels.1"


async def test_a_pdf_among_documents_is_refused() -> None:
    with pytest.raises(InvalidInput, match="must be the only input"):
        await rank(service(able()), call(), RankAsk("able", Text("q"), (Text("a"), Pdf("x"))))
