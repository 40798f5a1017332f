"""The vLLM engine against transformers, peft and the torch engine: chunks, caches, images."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import psutil
import pytest

from serving.engines import EngineOptions, vllm
from serving.engines._vllm.packing import Answer
from serving.engines.torch import load as load_torch
from serving.errors import DeadlinePassed, PolyvecError
from serving.models.spec import ModelSpec
from serving.values import Output, Pixels, Prepared, Usage, Vectors
from tests.adapted import END, PAD, START, make
from tests.serving.engines.harness import Reference, unit
from tests.vllm_engines import OPTIONS, needs_vllm, shared_engine

NEAR = {"rtol": 0.0, "atol": 1e-5}
LONG = [1, *(10 + (11 * n + 5) % 250 for n in range(440))]
LENGTHS = (8, 3, 130, 2, 300, 17)
TEXTS = [[0, *(10 + (7 * n + 3 * at) % 250 for at in range(n - 1))] for n in LENGTHS]

Given = Callable[[str], tuple[vllm.VllmEngine, ModelSpec]]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """A model of `tests.adapted` and its engine, which all tests share."""
    needs_vllm()
    folder, made = tmp_path_factory.mktemp("models"), dict[str, ModelSpec]()

    def get(name: str) -> tuple[vllm.VllmEngine, ModelSpec]:
        if name not in made:
            made[name] = make(name, folder)
        return shared_engine(made[name]), made[name]

    return get


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many token states every input from now on is made of."""
    counts: list[int] = []
    original = vllm.checked

    def remembered(*args: Any) -> Answer:
        found = original(*args)
        counts.append(found.tokens)
        return found

    monkeypatch.setattr(vllm, "checked", remembered)
    return counts


def job(inputs: Sequence[Sequence[int]], **facts: Any) -> Prepared:
    ids = np.array([token for one in inputs for token in one], np.int32)
    lengths = np.array([len(one) for one in inputs], np.int32)
    return Prepared(ids, lengths, Usage(text_tokens=len(ids)), **facts)


async def embed(engine: Any, inputs: Sequence[Sequence[int]], **facts: Any) -> Vectors:
    answer: Vectors = await engine.embed(job(inputs, **facts), time.monotonic() + 120)
    return answer


@pytest.mark.parametrize("name", ["qwen_vl", "qwen3", "eurobert", "heads"])
async def test_vectors_are_those_of_the_torch_engine(given: Given, name: str) -> None:
    engine, spec = given(name)
    oracle = load_torch(spec, EngineOptions(dtype="float32", threads=1))
    adapters = [None, *(one.name for one in spec.adapters)]
    full = Output(multi=spec.multi is not None, sparse=spec.sparse is not None)
    try:
        for output in (full, Output(dimensions=16), Output(dimensions=16, normalized=False)):
            jobs = [{"adapter": one, "output": output} for one in adapters]
            found = await asyncio.gather(*(embed(engine, TEXTS, **one) for one in jobs))
            wanted = [await embed(oracle, TEXTS, **one) for one in jobs]
            for one, other in zip(found, wanted, strict=True):
                assert np.allclose(one.array, other.array, **NEAR)
                if one.multi is not None and other.multi is not None:
                    assert np.array_equal(one.multi.counts, other.multi.counts)
                    assert np.allclose(one.multi.values, other.multi.values, rtol=0, atol=3e-5)
                if one.sparse is not None and other.sparse is not None:
                    assert np.array_equal(one.sparse.ids, other.sparse.ids)
                    assert np.allclose(one.sparse.weights, other.sparse.weights, **NEAR)
    finally:
        await oracle.close()


async def test_a_long_input_in_chunks_is_as_if_whole(given: Given) -> None:
    engine, spec = given("qwen_vl")
    assert OPTIONS.batch_tokens is not None and len(LONG) > 3 * OPTIONS.batch_tokens
    reference, adapter = Reference(spec), "retrieval"
    states = reference.states(LONG, adapter)
    spans = np.array(
        [[0, 0, 0, 100], [0, 1, 3, 50], [1, 0, 100, 300], [2, 0, 290, 441], [3, 1, 7, 8]], np.int32
    )
    answer, whole = await asyncio.gather(
        embed(engine, [LONG, TEXTS[2]], adapter=adapter, spans=spans),
        embed(engine, [LONG], adapter=adapter, output=Output(multi=True)),
    )
    other = reference.states(TEXTS[2], adapter)
    sums = [states[:100].sum(0) + other[3:50].sum(0), states[100:300].sum(0)]
    sums += [states[290:441].sum(0), other[7]]
    for vector, wanted in zip(answer.array, sums, strict=True):
        assert np.allclose(vector, unit(wanted[None])[0], **NEAR)
    assert np.allclose(whole.array[0], unit(states.mean(0)[None])[0], **NEAR)
    assert whole.multi is not None
    assert np.allclose(whole.multi.values, reference.projected(states, adapter), atol=3e-5)


async def test_a_beginning_that_was_computed_is_not_computed_again(
    given: Given, seen: list[int]
) -> None:
    engine, spec = given("qwen3")
    text = [*LONG[:-1], 7]
    first = await embed(engine, [text], adapter="retrieval")
    again = await embed(engine, [text], adapter="retrieval")
    longer = await embed(engine, [[*text[:400], 9, 8]], adapter="retrieval")
    assert seen[0] == len(text) > seen[1]
    assert seen[2] < 402
    assert np.allclose(first.array, again.array, **NEAR)
    states = Reference(spec).states([*text[:400], 9, 8], "retrieval")
    assert np.allclose(longer.array[0], unit(states[-1:])[0], **NEAR)


async def test_another_adapter_computes_the_same_beginning_for_itself(
    given: Given, seen: list[int]
) -> None:
    engine, spec = given("qwen3")
    text = [*LONG[1:-1], 6]
    for adapter in ("retrieval", "clustering", None):
        found = await embed(engine, [text], adapter=adapter)
        states = Reference(spec).states(text, adapter)
        assert np.allclose(found.array[0], unit(states[-1:])[0], **NEAR)
    assert seen == [len(text)] * 3


async def test_what_needs_every_state_takes_none_from_the_cache(
    given: Given, seen: list[int]
) -> None:
    engine, spec = given("qwen3")
    text = [*LONG[2:-1], 5]
    await embed(engine, [text])
    found = await embed(engine, [text], spans=np.array([[0, 0, 0, len(text)]], np.int32))
    assert seen == [len(text)] * 2
    mean = Reference(spec).states(text).mean(0)
    assert np.allclose(found.array[0], unit(mean[None])[0], **NEAR)


async def test_a_model_that_pools_by_mean_takes_nothing_from_a_cache(
    given: Given, seen: list[int]
) -> None:
    engine, _ = given("qwen_vl")
    one, two = await embed(engine, [LONG]), await embed(engine, [LONG])
    assert seen == [len(LONG)] * 2
    assert np.allclose(one.array, two.array, **NEAR)


def image(height: int, width: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(height + width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("adapter", [None, "text-matching"])
async def test_images_give_what_transformers_gives_also_two_with_text_around(
    given: Given, adapter: str | None
) -> None:
    engine, spec = given("qwen_vl")
    one, two = image(56, 112), image(84, 28)
    ids = [10, 11, START, *[PAD] * 8, END, 12, 13, 14, START, *[PAD] * 3, END, 15, 16]
    pixels = (Pixels(3, 8, one), Pixels(16, 3, two))
    found = await embed(engine, [ids], adapter=adapter, pixels=pixels, output=Output(multi=True))
    reference = Reference(spec)
    states = reference.states(ids, adapter, (one, two))
    assert np.allclose(found.array[0], unit(states.mean(0)[None])[0], **NEAR)
    assert found.multi is not None
    assert np.allclose(found.multi.values, reference.projected(states, adapter), atol=3e-5)


async def test_a_placeholder_that_is_text_fails_its_own_job_alone(given: Given) -> None:
    engine, _ = given("qwen_vl")
    ids = [10, PAD, 11, START, *[PAD] * 8, END]
    pixels = (Pixels(4, 8, image(56, 112)),)
    refused, answer = await asyncio.gather(
        embed(engine, [ids], pixels=pixels), embed(engine, TEXTS), return_exceptions=True
    )
    assert isinstance(refused, PolyvecError)
    assert isinstance(answer, Vectors)


@pytest.mark.parametrize("token", [-1, 300])
async def test_a_token_beyond_the_vocabulary_fails_its_own_job_alone(
    given: Given, token: int
) -> None:
    engine, _ = given("qwen3")
    with pytest.raises(PolyvecError, match="none of the 300"):
        await embed(engine, [[10, token]])
    assert len((await embed(engine, TEXTS)).array) == len(TEXTS)


async def nothing_unfinished(engine: vllm.VllmEngine) -> None:
    async with asyncio.timeout(30):
        while engine.unfinished:
            await asyncio.sleep(0)


async def test_a_caller_that_goes_away_takes_its_inputs_along(given: Given) -> None:
    engine, _ = given("qwen_vl")
    gone = asyncio.ensure_future(embed(engine, [LONG] * 60))
    while not engine.unfinished:
        await asyncio.sleep(0)
    gone.cancel()
    with suppress(asyncio.CancelledError):
        await gone
    assert gone.cancelled()
    await nothing_unfinished(engine)
    assert len((await embed(engine, TEXTS)).array) == len(TEXTS)


async def test_a_deadline_that_passes_takes_the_inputs_out(given: Given) -> None:
    engine, _ = given("qwen_vl")
    with pytest.raises(DeadlinePassed):
        await engine.embed(job([LONG] * 60), time.monotonic() + 0.05)
    await nothing_unfinished(engine)


async def test_nobody_beyond_this_machine_can_reach_it(given: Given) -> None:
    given("qwen3")
    here = psutil.Process()
    children = here.children(recursive=True)
    assert len(children) > 1
    open_ports = [
        one.laddr.ip
        for process in (here, *children)
        for one in process.net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    ]
    assert set(open_ports) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
