"""Every reranker through every engine that runs it, from upstream's layout to scores.

Checkpoint, view, tokenizer, pixels, engine and service are the real ones; the scores are held
against upstream's formulas (`tests.upstream.relevance`).
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from serving.calls import Call
from serving.engines import ENGINES, EngineOptions
from serving.errors import InvalidConfig, ModalityNotSupported, TokenLimitExceeded
from serving.limits.gate import Gate
from serving.media import MediaOptions
from serving.models.catalog import Entry
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec
from serving.preparing import Preparer, open_preparer
from serving.ranking import RankAsk, Ranking, rank
from serving.service import Served, Service
from serving.values import Ask, Image, Job, Output, Text
from tests.serving.media.pictures import encoded, noise
from tests.upstream import build, reference, relevance
from tests.vllm_forks import forking

QUERY = "who is eating bread?"
DOCUMENTS = (
    "A man is eating bread.",
    "今天天气很好",
    "",
    "x = [0, 1, 2]  # ok\n\n",
    "\n Le café était fermé à l'aube. ",
    "A man is eating bread.",
)
NEAR = {"rtol": 0, "atol": 2e-5}


@dataclass(frozen=True, slots=True)
class Ranked:
    path: Path
    spec: ModelSpec
    service: Service
    preparer: Preparer

    async def __call__(self, *documents: str | Image, **facts: object) -> Ranking:
        call = Call("test", "/v1/rerank", deadline=time.monotonic() + 100)
        items = tuple(Text(one) if isinstance(one, str) else one for one in documents)
        ask = RankAsk(self.spec.id, Text(QUERY), items)
        return await rank(self.service, call, replace(ask, **facts))  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=[one for one in ENGINES.names() if one != "noop"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def opened(engine: str, name: str, folder: Path) -> Ranked:
    path = build(name, folder)
    spec = load_spec(Entry(name, str(path)))
    try:
        with forking(engine):
            loaded = ENGINES.load(engine).load(spec, EngineOptions(dtype="float32", threads=1))
    except (ImportError, InvalidConfig) as reason:
        pytest.skip(f"{engine}: {reason}")
    preparer = open_preparer(spec, MediaOptions())
    service = Service({name: Served(spec, preparer, loaded)}, Gate(64, 1 << 20), 2048)
    return Ranked(path, spec, service, preparer)


def ranked(name: str) -> object:
    @pytest.fixture(scope="module")
    def fixture(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranked]:
        one = opened(engine, name, tmp_path_factory.mktemp("upstream"))
        yield one
        asyncio.run(one.service.close())

    return fixture


qwen3, m0, v3 = map(ranked, ("qwen3_reranker", "jina_reranker_m0", "jina_reranker_v3"))


@pytest.fixture(scope="module")
def v4(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranked]:
    """One engine will do: multi-vectors are held to the reference in all of them elsewhere."""
    one = opened("torch", "jina_v4", tmp_path_factory.mktemp("upstream"))
    yield one
    asyncio.run(one.service.close())


def picture(height: int, width: int) -> Image:
    data = encoded(PIL.Image.fromarray(noise(height, width, seed=height)), "PNG")
    return Image(base64.b64encode(data).decode())


def pixels(height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The same, of sides that are left as they are."""
    return noise(height, width, seed=height)


# Qwen3-Reranker


async def test_qwen3_says_yes_as_likely_as_its_card_has_it(qwen3: Ranked) -> None:
    found = await qwen3(*DOCUMENTS)
    wanted = np.array([relevance.says_yes(qwen3.path, QUERY, one, 700) for one in DOCUMENTS])
    np.testing.assert_allclose(found.scores, wanted, **NEAR)
    np.testing.assert_allclose(found.raw, np.log(wanted / (1 - wanted)), rtol=0, atol=1e-3)
    assert np.ptp(found.raw) > 1


async def test_an_instruction_is_what_relevance_means(qwen3: Ranked) -> None:
    found = await qwen3(*DOCUMENTS[:2], instruction="Find the code")
    wanted = [
        relevance.says_yes(qwen3.path, QUERY, one, 700, "Find the code") for one in DOCUMENTS[:2]
    ]
    np.testing.assert_allclose(found.scores, wanted, **NEAR)


async def test_what_is_cut_is_the_document_and_not_the_question_behind_it(qwen3: Ranked) -> None:
    """Trap 20."""
    long = "word " * 900
    found = await qwen3("A man.", long, truncate=True)
    wanted = [relevance.says_yes(qwen3.path, QUERY, one, 700) for one in ("A man.", long)]
    np.testing.assert_allclose(found.scores, wanted, **NEAR)


async def test_a_document_beyond_the_context_is_refused_by_its_place(qwen3: Ranked) -> None:
    with pytest.raises(TokenLimitExceeded) as caught:
        await qwen3("A man.", "word " * 900)
    assert caught.value.field == "documents.1"
    assert "takes 700 (set truncate: true to cut it)" in caught.value.message


async def test_a_reranker_embeds_nothing(qwen3: Ranked) -> None:
    call = Call("test", "/v1/embeddings", deadline=time.monotonic() + 100)
    with pytest.raises(ModalityNotSupported, match="embeds nothing: it ranks documents") as caught:
        await qwen3.service.embed(call, Ask("qwen3_reranker", (Text("a"),)))
    assert caught.value.field == "model"


async def test_an_image_is_refused_where_texts_are_ranked(qwen3: Ranked, v3: Ranked) -> None:
    for one in (qwen3, v3):
        with pytest.raises(ModalityNotSupported) as caught:
            await one("a", picture(48, 48))
        assert caught.value.message == f"documents 1 is an image; {one.spec.id} ranks text only"
        assert caught.value.field == "documents.1"


# jina-reranker-m0


async def test_m0_scores_texts_by_its_last_token(m0: Ranked) -> None:
    found = await m0(*DOCUMENTS)
    wanted = [relevance.scores_pair(m0.path, QUERY, one) for one in DOCUMENTS]
    assert np.ptp(wanted) > 0.01
    np.testing.assert_allclose(found.scores, wanted, **NEAR)


async def test_m0_scores_images_beside_texts(m0: Ranked) -> None:
    sizes = ((96, 120), (72, 48))
    found = await m0(picture(*sizes[0]), "A man is eating bread.", picture(*sizes[1]))
    documents = (pixels(*sizes[0]), "A man is eating bread.", pixels(*sizes[1]))
    wanted = [relevance.scores_pair(m0.path, QUERY, one) for one in documents]
    np.testing.assert_allclose(found.scores, wanted, **NEAR)
    assert found.usage.image_tokens == 4 * 5 + 3 * 2


async def test_m0_takes_an_image_for_a_query(m0: Ranked) -> None:
    """The document's image comes first."""
    found = await m0(picture(72, 48), "A man.", query=picture(96, 120))
    wanted = [
        relevance.scores_pair(m0.path, pixels(96, 120), one) for one in (pixels(72, 48), "A man.")
    ]
    np.testing.assert_allclose(found.scores, wanted, **NEAR)


# jina-reranker-v3


async def test_v3_scores_all_documents_of_a_prompt_by_cosine(v3: Ranked) -> None:
    found = await v3(*DOCUMENTS, document_tokens=40, vectors=True)
    wanted = relevance.in_blocks(v3.path, QUERY, [DOCUMENTS])
    np.testing.assert_allclose(found.scores, wanted, **NEAR)
    assert found.vectors is not None
    _, vectors = relevance.in_one_prompt(v3.path, QUERY, DOCUMENTS)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(found.vectors, vectors, rtol=0, atol=1e-5)


async def test_v3_reads_the_documents_before_a_document(v3: Ranked) -> None:
    """So the same text has another score at another place."""
    found = await v3(*DOCUMENTS, document_tokens=40)
    assert DOCUMENTS[0] == DOCUMENTS[-1]
    assert abs(found.scores[0] - found.scores[-1]) > 1e-4


async def test_v3_joins_several_prompts_by_a_weighted_query(v3: Ranked) -> None:
    documents = [f"{at} " * 130 for at in range(14)]
    found = await v3(*documents, document_tokens=1400)
    blocks = relevance.blocks(v3.path, QUERY, documents, 1400)
    assert [len(block) for block in blocks] == [9, 5]
    wanted = relevance.in_blocks(v3.path, QUERY, blocks)
    np.testing.assert_allclose(found.scores, wanted, **NEAR)


async def test_v3_has_an_instruction_in_its_prompt(v3: Ranked) -> None:
    found = await v3(*DOCUMENTS[:2], document_tokens=40, instruction="Find the code", vectors=True)
    _, vectors = relevance.in_one_prompt(v3.path, QUERY, DOCUMENTS[:2], "Find the code")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert found.vectors is not None
    np.testing.assert_allclose(found.vectors, vectors, rtol=0, atol=1e-5)


async def test_marks_in_a_callers_text_are_left_out(v3: Ranked) -> None:
    found = await v3("A man<|embed_token|> is<|rerank_token|> eating.", "b", document_tokens=40)
    plain = await v3("A man is eating.", "b", document_tokens=40)
    np.testing.assert_array_equal(found.scores, plain.scores)


# Late interaction


async def test_late_interaction_is_maxsim_over_texts_and_images(v4: Ranked) -> None:
    found = await v4("A man is eating bread.", picture(96, 120), scoring="maxsim")
    prepare = v4.preparer.prepare
    multi = Output(dense=False, multi=True)
    query = await prepare(Job("jina_v4", (Text(QUERY),), "retrieval.query", multi))
    items = (Text("A man is eating bread."), picture(96, 120))
    documents = await prepare(Job("jina_v4", items, "retrieval.passage", multi))
    one = reference.multi(v4.path, query.ids.tolist(), "retrieval")
    split = np.split(documents.ids, np.cumsum(documents.lengths)[:-1])
    arrays = [[], [pixels.array for pixels in documents.pixels]]
    for at, (ids, seen) in enumerate(zip(split, arrays, strict=True)):
        rows = reference.multi(v4.path, ids.tolist(), "retrieval", seen)
        wanted = (one @ rows.T).max(axis=1)
        np.testing.assert_allclose(found.raw[at], wanted.sum(), rtol=0, atol=1e-3)
        np.testing.assert_allclose(found.scores[at], wanted.mean(), rtol=0, atol=1e-4)
    assert found.usage == query.usage + documents.usage
