"""The promises of `Engine`, kept by every file in `serving/engines/`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from serving.engines import ENGINES, Engine, EngineOptions
from serving.errors import DeadlinePassed, InvalidInput, Overloaded, TokenLimitExceeded, Unavailable
from serving.models.catalog import Entry
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec
from serving.values import Floats, Output, Prepared, ServiceClass, Usage, Vectors
from tests.checkpoints import build
from tests.vllm_engines import shared_engine

CLS, SEP = 2, 3
TEXTS = tuple([CLS, *range(10, 10 + n), SEP] for n in (5, 1, 17, 5, 40, 9))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    path: Path = build("bert_matryoshka", tmp_path_factory.mktemp("checkpoints"))
    return load_spec(Entry("tiny", str(path)))


def load(name: str, spec: ModelSpec, **options: int) -> Engine:
    """An engine of the test's own. vLLM's start slowly: its own tests have one for all of them."""
    if name == "vllm":
        pytest.skip("see tests/serving/engines/test_vllm_life.py")
    try:
        module = ENGINES.load(name)
    except ImportError as error:
        pytest.skip(f"{name}: {error}")
    engine: Engine = module.load(spec, EngineOptions(dtype="float32", threads=1, **options))
    return engine


@pytest.fixture(params=ENGINES.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def engine(name: str, spec: ModelSpec) -> AsyncIterator[Engine]:
    if name == "vllm":
        yield shared_engine(spec)
        return
    engine = load(name, spec)
    yield engine
    await engine.close()


def prepared(
    texts: Sequence[Sequence[int]],
    output: Output | None = None,
    service_class: ServiceClass = "interactive",
    adapter: str | None = None,
) -> Prepared:
    ids = np.array([token for text in texts for token in text], np.int32)
    lengths = np.array([len(text) for text in texts], np.int32)
    usage = Usage(text_tokens=len(ids))
    return Prepared(
        ids,
        lengths,
        usage,
        output=output or Output(),
        adapter=adapter,
        service_class=service_class,
    )


async def embed(
    engine: Engine, texts: Sequence[Sequence[int]], output: Output | None = None
) -> Floats:
    vectors: Vectors = await engine.embed(prepared(texts, output), time.monotonic() + 60)
    return vectors.array


async def test_every_input_gets_a_vector_of_unit_length(engine: Engine, spec: ModelSpec) -> None:
    array = await embed(engine, TEXTS)
    assert array.shape == (len(TEXTS), spec.dimensions)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    assert np.allclose(np.linalg.norm(array, axis=1), 1.0, atol=1e-5)


async def test_batched_equals_single(engine: Engine) -> None:
    together = await embed(engine, TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        alone = await embed(engine, [text])
        assert np.allclose(alone[0], vector, atol=1e-5)


async def test_the_order_of_inputs_does_not_matter(engine: Engine) -> None:
    forwards = await embed(engine, TEXTS)
    backwards = await embed(engine, TEXTS[::-1])
    assert np.allclose(forwards, backwards[::-1], atol=1e-5)


async def test_the_same_tokens_give_the_same_vector_and_others_another(engine: Engine) -> None:
    array = await embed(engine, TEXTS)
    assert np.allclose(array[0], array[3], atol=1e-5)
    assert not np.allclose(array[0], array[5], atol=1e-2)


async def test_calls_at_the_same_time_get_their_own_vectors(engine: Engine) -> None:
    together = await embed(engine, TEXTS)
    calls = await asyncio.gather(*(embed(engine, [text, TEXTS[1]]) for text in TEXTS))
    for vector, call in zip(together, calls, strict=True):
        assert np.allclose(call, [vector, together[1]], atol=1e-5)


async def test_a_shorter_vector_is_a_prefix_of_unit_length(engine: Engine) -> None:
    whole = await embed(engine, TEXTS)
    short = await embed(engine, TEXTS, Output(dimensions=16))
    prefix = whole[:, :16] / np.linalg.norm(whole[:, :16], axis=1, keepdims=True)
    assert short.shape == (len(TEXTS), 16)
    assert np.allclose(short, prefix, atol=1e-5)


async def test_a_prefix_that_is_not_normalized_keeps_its_length(engine: Engine) -> None:
    short = await embed(engine, TEXTS, Output(dimensions=16, normalized=False))
    assert np.all(np.linalg.norm(short, axis=1) < 0.99)


async def test_an_empty_text_has_a_vector(engine: Engine) -> None:
    array = await embed(engine, [[CLS, SEP], [CLS, 20, SEP], []])
    assert np.allclose(np.linalg.norm(array, axis=1), 1.0, atol=1e-5)


async def test_a_job_without_inputs_has_no_vectors(engine: Engine, spec: ModelSpec) -> None:
    assert (await embed(engine, [])).shape == (0, spec.dimensions)


async def test_the_time_of_each_stage_is_told(engine: Engine) -> None:
    vectors = await engine.embed(prepared(TEXTS), time.monotonic() + 60)
    assert vectors.queue_s >= 0.0
    assert vectors.infer_s > 0.0


async def test_bulk_jobs_are_answered_too(engine: Engine) -> None:
    job = prepared(TEXTS, service_class="bulk")
    vectors = await engine.embed(job, time.monotonic() + 60)
    assert np.allclose(vectors.array, await embed(engine, TEXTS), atol=1e-5)


async def test_a_deadline_that_has_passed_is_an_error_and_others_are_answered(
    engine: Engine,
) -> None:
    late = engine.embed(prepared(TEXTS), time.monotonic() - 1)
    late_answer, answer = await asyncio.gather(late, embed(engine, TEXTS), return_exceptions=True)
    assert isinstance(late_answer, DeadlinePassed)
    assert isinstance(answer, np.ndarray)


async def test_a_caller_that_goes_away_disturbs_nobody(engine: Engine) -> None:
    gone = asyncio.ensure_future(embed(engine, TEXTS))
    here = asyncio.ensure_future(embed(engine, TEXTS))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await here).shape[0] == len(TEXTS)
    with pytest.raises(asyncio.CancelledError):
        await gone
    await engine.check()


async def test_a_full_queue_refuses_at_once_and_serves_what_it_took(
    name: str, spec: ModelSpec
) -> None:
    engine = load(name, spec, batch_tokens=64, queue_tokens=100)
    calls = (embed(engine, [[CLS] * 40]) for _ in range(20))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Overloaded)]
    assert refused
    assert all(error.retry_after_s for error in refused)
    assert sum(isinstance(answer, np.ndarray) for answer in answers) == 20 - len(refused) > 0
    await engine.close()


async def test_an_idle_engine_takes_a_job_larger_than_its_queue(name: str, spec: ModelSpec) -> None:
    engine = load(name, spec, batch_tokens=64, queue_tokens=100)
    assert (await embed(engine, [[CLS] * 40] * 32)).shape[0] == 32
    await engine.close()


async def test_what_the_model_cannot_take_is_refused(engine: Engine, spec: ModelSpec) -> None:
    with pytest.raises(InvalidInput, match="adapter"):
        await engine.embed(prepared(TEXTS, adapter="nobody"), time.monotonic() + 60)
    with pytest.raises(InvalidInput, match="dimensions"):
        await embed(engine, TEXTS, Output(dimensions=spec.dimensions + 1))
    with pytest.raises(TokenLimitExceeded):
        await embed(engine, [[CLS] * (spec.max_tokens + 1)])


async def test_a_closed_engine_says_so(name: str, spec: ModelSpec) -> None:
    engine = load(name, spec)
    await engine.check()
    await engine.close()
    with pytest.raises(Unavailable):
        await embed(engine, TEXTS)
    with pytest.raises(Unavailable):
        await engine.check()


async def test_closing_answers_everybody_who_waits(name: str, spec: ModelSpec) -> None:
    engine = load(name, spec)
    calls = [asyncio.ensure_future(embed(engine, TEXTS)) for _ in range(5)]
    await asyncio.sleep(0)
    await engine.close()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(answer, Unavailable | np.ndarray) for answer in answers)
