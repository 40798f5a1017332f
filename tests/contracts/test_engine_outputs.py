"""What every engine gives beside one vector a text: adapters, spans, multi-vectors, images."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from serving.engines import ENGINES, Engine, EngineOptions
from serving.errors import InvalidInput, PolyvecError
from serving.models.spec import ModelSpec
from serving.values import Ints, Output, Pixels, Prepared, Ragged, Sparse, Usage, Vectors
from tests.adapted import END, MAKERS, PAD, START, make
from tests.vllm_engines import shared_engine

WITHOUT = {"vllm": frozenset({"rotary"})}
"""The models of `tests.adapted` that an engine cannot run at all, by the engine's name."""

LENGTHS = (8, 3, 30, 2, 17)
TEXTS = [[0, *(10 + (7 * n + 3 * at) % 250 for at in range(n - 1))] for n in LENGTHS]
NEAR = {"rtol": 0.0, "atol": 1e-5}

Opened = tuple[Engine, ModelSpec]
Opener = Callable[[str], Opened]


@pytest.fixture(scope="module", params=ENGINES.names())
def opener(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Opener]:
    """A model in the engine of that name, opened once."""
    folder, opened = tmp_path_factory.mktemp("models"), dict[str, Opened]()
    try:
        module = ENGINES.load(request.param)
    except ImportError as error:
        pytest.skip(f"{request.param}: {error}")

    def get(name: str) -> Opened:
        if name in WITHOUT.get(request.param, frozenset()):
            pytest.skip(f"{request.param} does not run {name}")
        if name not in opened:
            spec = make(name, folder)
            opened[name] = load(spec), spec
        return opened[name]

    def load(spec: ModelSpec) -> Engine:
        if request.param == "vllm":
            return shared_engine(spec)
        engine: Engine = module.load(spec, EngineOptions(dtype="float32", threads=1))
        return engine

    yield get
    for engine, _ in opened.values():
        if request.param != "vllm":
            asyncio.run(engine.close())


def job(inputs: Sequence[Sequence[int]], **facts: Any) -> Prepared:
    ids = np.array([token for one in inputs for token in one], np.int32)
    lengths = np.array([len(one) for one in inputs], np.int32)
    return Prepared(ids, lengths, Usage(text_tokens=len(ids)), **facts)


async def embed(engine: Engine, inputs: Sequence[Sequence[int]], **facts: Any) -> Vectors:
    return await engine.embed(job(inputs, **facts), time.monotonic() + 60)


def is_unit(rows: np.ndarray[Any, Any]) -> bool:
    return bool(np.allclose(np.linalg.norm(rows, axis=-1), 1.0, atol=1e-5))


ADAPTED = [name for name in MAKERS if name != "heads"]


@pytest.mark.parametrize("name", ADAPTED)
async def test_mixed_adapters_are_as_if_alone_and_each_gives_its_own(
    opener: Opener, name: str
) -> None:
    engine, spec = opener(name)
    adapters = [None, *(one.name for one in spec.adapters)]
    mixed = await asyncio.gather(*(embed(engine, TEXTS, adapter=one) for one in adapters))
    for adapter, answer in zip(adapters, mixed, strict=True):
        assert is_unit(answer.array)
        for text, vector in zip(TEXTS, answer.array, strict=True):
            alone = await embed(engine, [text], adapter=adapter)
            assert np.allclose(alone.array[0], vector, **NEAR)
    for n, one in enumerate(mixed):
        assert all(np.abs(one.array - other.array).max() > 1e-3 for other in mixed[:n])


SPANS: Ints = np.array(
    [[0, 0, 0, 4], [1, 0, 4, 8], [2, 2, 3, 29], [2, 0, 1, 3], [3, 4, 0, 17], [4, 4, 5, 6]], np.int32
)


@pytest.mark.parametrize("name", ["qwen_vl", "rotary"])
async def test_every_span_has_a_vector_also_over_several_inputs(opener: Opener, name: str) -> None:
    engine, _ = opener(name)
    answer = await embed(engine, TEXTS, spans=SPANS)
    assert answer.array.shape[0] == 5
    assert answer.array.flags.c_contiguous and answer.array.dtype == np.float32
    assert is_unit(answer.array)
    for vector in range(5):
        mine = SPANS[SPANS[:, 0] == vector] * [0, 1, 1, 1]
        alone = await embed(engine, TEXTS, spans=mine.astype(np.int32))
        assert np.allclose(alone.array[0], answer.array[vector], **NEAR)
    short = await embed(engine, TEXTS, spans=SPANS, output=Output(dimensions=16))
    prefix = answer.array[:, :16] / np.linalg.norm(answer.array[:, :16], axis=1, keepdims=True)
    assert np.allclose(short.array, prefix, **NEAR)


async def test_a_span_over_all_of_a_text_is_its_mean_vector(opener: Opener) -> None:
    engine, _ = opener("rotary")
    whole = await embed(engine, [TEXTS[2]], spans=np.array([[0, 0, 0, 30]], np.int32))
    halves = np.array([[0, 0, 0, 11], [0, 0, 11, 30]], np.int32)
    assert np.allclose(whole.array, (await embed(engine, [TEXTS[2]], spans=halves)).array, **NEAR)


@pytest.mark.parametrize(
    "spans",
    [
        [[0, 5, 0, 1]],
        [[0, 0, 0, 9]],
        [[0, 0, 3, 3]],
        [[0, 0, -1, 3]],
        [[1, 0, 0, 3]],
        [[0, 0, 0, 1], [2, 0, 1, 2]],
    ],
)
async def test_a_span_that_is_not_there_fails_its_own_job_alone(
    opener: Opener, spans: list[list[int]]
) -> None:
    engine, _ = opener("rotary")
    wrong = embed(engine, TEXTS, spans=np.array(spans, np.int32))
    refused, answer = await asyncio.gather(wrong, embed(engine, TEXTS), return_exceptions=True)
    assert isinstance(refused, PolyvecError)
    assert isinstance(answer, Vectors)


def rows_of(multi: Ragged | None) -> list[np.ndarray[Any, Any]]:
    assert multi is not None
    return np.split(multi.values, np.cumsum(multi.counts)[:-1])


@pytest.mark.parametrize("name", ["qwen_vl", "heads"])
async def test_every_token_has_a_vector_of_unit_length_where_asked_for(
    opener: Opener, name: str
) -> None:
    engine, spec = opener(name)
    assert spec.multi is not None
    both, plain = await asyncio.gather(
        embed(engine, TEXTS, output=Output(multi=True)), embed(engine, TEXTS)
    )
    assert both.multi is not None and plain.multi is None
    assert both.multi.values.shape[1] == spec.multi.dimensions
    assert both.multi.counts.tolist() == [n - spec.multi.skip for n in LENGTHS]
    assert both.multi.counts.dtype == np.int32 and both.multi.values.dtype == np.float32
    assert is_unit(both.multi.values)
    assert np.allclose(both.array, plain.array, **NEAR)
    for text, rows in zip(TEXTS, rows_of(both.multi), strict=True):
        alone = await embed(engine, [text], output=Output(multi=True))
        assert np.allclose(rows_of(alone.multi)[0], rows, **NEAR)


async def test_multi_vectors_have_the_adapter_too(opener: Opener) -> None:
    engine, spec = opener("qwen_vl")
    names = [one.name for one in spec.adapters]
    output = Output(multi=True)
    calls = (embed(engine, TEXTS, adapter=one, output=output) for one in names)
    answers = await asyncio.gather(*calls)
    values = [one.multi.values for one in answers if one.multi is not None]
    assert all(np.abs(values[0] - other).max() > 1e-3 for other in values[1:])


def entries(sparse: Sparse | None) -> list[dict[int, float]]:
    assert sparse is not None
    ends = np.cumsum(sparse.counts).tolist()
    pairs = list(zip(sparse.ids.tolist(), sparse.weights.tolist(), strict=True))
    return [dict(pairs[end - n : end]) for end, n in zip(ends, sparse.counts, strict=True)]


async def test_sparse_weights_are_above_zero_and_their_ids_ascend(opener: Opener) -> None:
    engine, spec = opener("heads")
    assert spec.sparse is not None
    texts = [[*text, *text[1:3]] for text in TEXTS]
    answer = await embed(engine, texts, output=Output(sparse=True))
    assert answer.sparse is not None
    assert sum(map(len, entries(answer.sparse))) == len(answer.sparse.ids) > 10
    for text, found in zip(texts, entries(answer.sparse), strict=True):
        assert list(found) == sorted(found)
        assert set(found) <= set(text) - set(spec.sparse.without)
        assert all(weight > 0 for weight in found.values())
        alone = await embed(engine, [text], output=Output(sparse=True))
        [same] = entries(alone.sparse)
        assert same == pytest.approx(found, abs=1e-5)


async def test_without_a_dense_vector_there_are_no_dimensions(opener: Opener) -> None:
    engine, _ = opener("heads")
    bare = Output(dense=False, multi=True, sparse=True)
    answer, whole = await asyncio.gather(
        embed(engine, TEXTS, output=bare),
        embed(engine, TEXTS, output=Output(multi=True, sparse=True)),
    )
    assert answer.array.shape == (len(TEXTS), 0)
    for one, other in zip(rows_of(answer.multi), rows_of(whole.multi), strict=True):
        assert np.allclose(one, other, **NEAR)
    assert entries(answer.sparse)[2] == pytest.approx(entries(whole.sparse)[2], abs=1e-5)


async def test_without_a_dense_vector_spans_still_count_the_vectors(opener: Opener) -> None:
    engine, _ = opener("qwen_vl")
    bare = Output(dense=False, multi=True)
    answer = await embed(engine, TEXTS, spans=SPANS, output=bare)
    assert answer.array.shape == (5, 0)
    assert answer.multi is not None and len(answer.multi.counts) == len(TEXTS)


async def test_a_job_without_inputs_has_none_of_anything(opener: Opener) -> None:
    engine, spec = opener("heads")
    assert spec.multi is not None
    answer = await embed(engine, [], output=Output(multi=True, sparse=True))
    assert answer.array.shape == (0, spec.dimensions)
    assert answer.multi is not None and answer.sparse is not None
    assert answer.multi.values.shape == (0, spec.multi.dimensions)
    assert len(answer.multi.counts) == len(answer.sparse.counts) == len(answer.sparse.ids) == 0


def images(*sizes: tuple[int, int]) -> tuple[list[list[int]], dict[str, Any]]:
    """Inputs of one image each, and the pixels and spans of them."""
    inputs: list[list[int]] = []
    pixels, spans = [], []
    for n, (height, width) in enumerate(sizes):
        tokens, at = height * width // 28**2, sum(map(len, inputs))
        array = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
        pixels.append(Pixels(at + 2, tokens, array))
        spans.append([n, n, 1, 3 + tokens])
        inputs.append([10, START, *[PAD] * tokens, END, 11, 12])
    return inputs, {"pixels": tuple(pixels), "spans": np.array(spans, np.int32)}


SIZES = ((56, 112), (28, 28), (84, 56))


async def test_images_have_vectors_and_beside_texts_the_same_ones(opener: Opener) -> None:
    engine, spec = opener("qwen_vl")
    inputs, facts = images(*SIZES)
    output = Output(multi=True)
    together, _ = await asyncio.gather(
        embed(engine, inputs, adapter="retrieval", output=output, **facts), embed(engine, TEXTS)
    )
    assert together.array.shape == (len(SIZES), spec.dimensions)
    assert is_unit(together.array)
    for size, vector, rows in zip(SIZES, together.array, rows_of(together.multi), strict=True):
        one, own = images(size)
        alone = await embed(engine, one, adapter="retrieval", output=output, **own)
        assert np.allclose(alone.array[0], vector, **NEAR)
        assert np.allclose(rows_of(alone.multi)[0], rows, **NEAR)


async def test_another_image_of_the_same_size_has_another_vector(opener: Opener) -> None:
    engine, _ = opener("qwen_vl")
    inputs, facts = images(SIZES[0])
    [first] = facts["pixels"]
    other = {**facts, "pixels": (Pixels(first.at, first.tokens, 255 - first.array),)}
    one, two = await asyncio.gather(embed(engine, inputs, **facts), embed(engine, inputs, **other))
    assert np.abs(one.array - two.array).max() > 1e-3


@pytest.mark.parametrize("wrong", ["tokens", "side", "place"])
async def test_an_image_that_does_not_fill_its_place_fails_its_own_job_alone(
    opener: Opener, wrong: str
) -> None:
    engine, _ = opener("qwen_vl")
    inputs, facts = images(SIZES[0])
    [good] = facts["pixels"]
    bad = {
        "tokens": Pixels(good.at, good.tokens - 1, good.array),
        "side": Pixels(good.at, good.tokens, np.pad(good.array, ((0, 1), (0, 0), (0, 0)))),
        "place": Pixels(good.at + 9, good.tokens, good.array),
    }[wrong]
    refused, answer = await asyncio.gather(
        embed(engine, inputs, **{**facts, "pixels": (bad,)}),
        embed(engine, inputs, **facts),
        return_exceptions=True,
    )
    assert isinstance(refused, PolyvecError)
    assert isinstance(answer, Vectors)


async def test_what_a_model_does_not_have_is_refused(opener: Opener) -> None:
    engine, _ = opener("rotary")
    with pytest.raises(InvalidInput, match="multi-vectors"):
        await embed(engine, TEXTS, output=Output(multi=True))
    with pytest.raises(InvalidInput, match="sparse"):
        await embed(engine, TEXTS, output=Output(sparse=True))
    inputs, facts = images(SIZES[0])
    with pytest.raises(InvalidInput, match="images"):
        await embed(engine, inputs, **facts)
    with pytest.raises(InvalidInput, match="adapter"):
        await embed(engine, TEXTS, adapter="nobody")
