"""Every family through every engine that runs it, from upstream's layout to vectors.

Checkpoint, view, tokenizer, pixels and engine are the real ones; the vectors are held against the
plain model with the adapter merged by hand (`tests.upstream.reference`).
"""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pictures

from serving.engines import ENGINES, Engine, EngineOptions
from serving.errors import InvalidConfig
from serving.media import MediaOptions
from serving.models.catalog import Entry
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec
from serving.preparing import Preparer, open_preparer
from serving.values import Fused, Image, Item, Job, Output, Prepared, Text, Vectors
from tests.upstream import NAMES, build, reference
from tests.vllm_forks import forking

TEXTS = (
    Text("A man is eating bread."),
    Text("今天天气很好"),
    Text(""),
    Text("x = [0, 1, 2]  # ok"),
)
CHUNKS = (Text("Berlin is the capital. "), Text("Ihre Einwohner: "), Text("3.7 Mio. 人"))
DEADLINE_S = 100.0


@dataclass(frozen=True, slots=True)
class Served:
    path: Path
    spec: ModelSpec
    preparer: Preparer
    engine: Engine

    async def embed(self, prepared: Prepared) -> Vectors:
        return await self.engine.embed(prepared, time.monotonic() + DEADLINE_S)

    async def prepare(self, *items: Item, **facts: object) -> Prepared:
        job = Job(self.spec.id, items, **{"task": self.spec.default_task, **facts})  # type: ignore[arg-type]
        return await self.preparer.prepare(job)


@pytest.fixture(scope="module", params=[e for e in ENGINES.names() if e != "noop"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=NAMES)
def served(
    engine: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    path = build(request.param, tmp_path_factory.mktemp("upstream"))
    spec = load_spec(Entry(request.param, str(path)))
    try:
        module = ENGINES.load(engine)
        with forking(engine):
            loaded = module.load(spec, EngineOptions(dtype="float32", threads=1))
    except (ImportError, InvalidConfig) as reason:
        pytest.skip(f"{engine}: {reason}")
    yield Served(path, spec, open_preparer(spec, MediaOptions()), loaded)
    asyncio.run(loaded.close())


def inputs(prepared: Prepared) -> list[list[int]]:
    return [part.tolist() for part in np.split(prepared.ids, np.cumsum(prepared.lengths)[:-1])]


def picture(height: int, width: int) -> Image:
    draw = np.random.default_rng(height)
    data = io.BytesIO()
    Pictures.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8)).save(data, "PNG")
    return Image(base64.b64encode(data.getvalue()).decode())


async def test_all_tasks_at_once_give_the_vectors_of_each_alone(served: Served) -> None:
    """Traps 2 to 7 and 17 to 19: prompts, rope, attention, adapters and pooling of every task."""
    tasks = [task.name for task in served.spec.tasks]
    names = tasks if served.spec.default_task else [None, *tasks]
    jobs = [await served.prepare(*TEXTS, task=name) for name in names]
    answers = await asyncio.gather(*(served.embed(job) for job in jobs))
    for job, answer in zip(jobs, answers, strict=True):
        wanted = [reference.dense(served.path, ids, job.adapter) for ids in inputs(job)]
        np.testing.assert_allclose(answer.array, wanted, rtol=0, atol=1e-5)


async def test_adapters_differ_visibly(served: Served) -> None:
    """So that the test above cannot pass with the wrong one."""
    adapters = {task.adapter: task.name for task in served.spec.tasks if task.adapter}
    if len(adapters) < 2:
        pytest.skip("has no adapters")
    jobs = [await served.prepare(TEXTS[0], task=name) for name in adapters.values()]
    arrays = [(await served.embed(job)).array[0] for job in jobs]
    gram = np.array(arrays) @ np.array(arrays).T
    assert np.max(gram - np.eye(len(arrays))) < 0.99


async def test_a_vector_a_token_is_the_projection_of_its_state(served: Served) -> None:
    if served.spec.multi is None:
        pytest.skip("has no multi-vectors")
    job = await served.prepare(*TEXTS[:2], output=Output(multi=True))
    answer = await served.embed(job)
    assert answer.multi is not None
    wanted = [reference.multi(served.path, ids, job.adapter) for ids in inputs(job)]
    assert answer.multi.counts.tolist() == [len(one) for one in wanted]
    np.testing.assert_allclose(answer.multi.values, np.concatenate(wanted), rtol=0, atol=1e-5)
    assert answer.array.shape == (2, served.spec.dimensions)


async def test_sparse_weights_are_by_token_id(served: Served) -> None:
    if served.spec.sparse is None:
        pytest.skip("has no sparse weights")
    job = await served.prepare(TEXTS[0], output=Output(dense=False, sparse=True))
    answer = await served.embed(job)
    assert answer.sparse is not None
    wanted = reference.sparse(served.path, inputs(job)[0])
    assert answer.sparse.ids.tolist() == list(wanted)
    np.testing.assert_allclose(answer.sparse.weights, list(wanted.values()), rtol=0, atol=1e-5)
    assert answer.array.shape == (1, 0)


async def test_late_chunks_are_means_over_one_document(served: Served) -> None:
    """Trap 1: the states are not normalised before they are averaged."""
    if not served.spec.late_chunking:
        pytest.skip("does not pool by a mean")
    job = await served.prepare(*CHUNKS, late_chunking=True)
    answer = await served.embed(job)
    assert job.spans is not None
    [ids] = inputs(job)
    wanted = [
        reference.dense(served.path, ids, job.adapter, span=(start, end))
        for _, _, start, end in job.spans.tolist()
    ]
    assert len(wanted) == len(CHUNKS)
    np.testing.assert_allclose(answer.array, wanted, rtol=0, atol=1e-5)


async def test_images_beside_texts_are_those_of_the_reference(served: Served) -> None:
    """Traps 9, 10, 13 and 14: the span, the prompt, the placeholders and their positions."""
    if served.spec.vision is None:
        pytest.skip("takes no images")
    images = (picture(90, 130), picture(61, 50))
    fused = Fused((Text("a chart of "), images[1]))
    job = await served.prepare(images[0], TEXTS[0], images[1], fused, output=Output(multi=True))
    answer = await served.embed(job)
    assert job.spans is not None
    arrays = [[0], [], [1], [2]]
    for at, ids in enumerate(inputs(job)):
        seen = [job.pixels[one].array for one in arrays[at]]
        multi = reference.multi(served.path, ids, job.adapter, seen)
        rows = np.split(answer.multi.values, np.cumsum(answer.multi.counts)[:-1])  # type: ignore[union-attr]
        np.testing.assert_allclose(rows[at], multi, rtol=0, atol=2e-5)
        states = reference.states(served.path, ids, job.adapter, seen)
        pieces = [states[s:e] for v, _, s, e in job.spans.tolist() if v == at]
        wanted = reference.unit(np.concatenate(pieces).mean(axis=0))
        np.testing.assert_allclose(answer.array[at], wanted, rtol=0, atol=1e-5)
