"""One vLLM engine from its start to its death: a full queue, and an engine core that is killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import psutil
import pytest

from serving.engines.vllm import VllmEngine, load
from serving.errors import EngineDied, Overloaded, Unavailable
from serving.values import Floats, Prepared, Usage
from tests.adapted import make
from tests.vllm_engines import OPTIONS, needs_vllm

Born = tuple[VllmEngine, set[psutil.Process]]

CORE = "EngineCore"


def processes() -> set[psutil.Process]:
    return {one for one in psutil.Process().children(recursive=True) if "VLLM" in one.name()}


@pytest.fixture(scope="module")
def born(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[VllmEngine, set[psutil.Process]]]:
    """An engine with a short queue, and its processes."""
    needs_vllm()
    before = processes()
    spec = make("qwen3", tmp_path_factory.mktemp("models"))
    engine = load(spec, replace(OPTIONS, queue_tokens=1000))
    yield engine, processes() - before
    asyncio.run(engine.close())


async def embed(engine: VllmEngine, inputs: int, tokens: int) -> Floats:
    """That many different inputs of so many tokens."""
    ids = np.array([10 + (n + 7 * n // tokens) % 250 for n in range(inputs * tokens)], np.int32)
    job = Prepared(ids, np.full(inputs, tokens, np.int32), Usage(text_tokens=len(ids)))
    return (await engine.embed(job, time.monotonic() + 120)).array


async def test_a_full_queue_refuses_at_once_and_serves_what_it_took(
    born: Born,
) -> None:
    engine, _ = born
    calls = (embed(engine, 1, 400) for _ in range(8))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [one for one in answers if isinstance(one, Overloaded)]
    assert len(refused) == 6
    assert all(one.retry_after_s for one in refused)
    assert sum(isinstance(one, np.ndarray) for one in answers) == 2


async def test_an_idle_engine_takes_a_job_larger_than_its_queue(
    born: Born,
) -> None:
    engine, _ = born
    assert len(await embed(engine, 10, 400)) == 10


async def test_an_engine_core_that_dies_fails_all_who_wait_and_the_check_says_so(
    born: Born,
) -> None:
    engine, own = born
    await engine.check()
    call = asyncio.ensure_future(embed(engine, 200, 400))
    while not engine.unfinished:
        await asyncio.sleep(0)
    [core] = [one for one in own if CORE in one.name()]
    core.kill()
    with pytest.raises(EngineDied, match="qwen3 has died") as first:
        await call
    with pytest.raises(EngineDied, match="qwen3 has died"):
        await engine.check()
    with pytest.raises(EngineDied, match="qwen3 has died") as later:
        await embed(engine, 1, 4)
    assert (first.value.taken, later.value.taken) == (True, False)


async def test_a_closed_engine_says_so_and_leaves_no_process(
    born: Born,
) -> None:
    engine, own = born
    await engine.close()
    with pytest.raises(Unavailable, match="closed"):
        await embed(engine, 1, 4)
    with pytest.raises(Unavailable, match="closed"):
        await engine.check()
    _, alive = await asyncio.to_thread(psutil.wait_procs, own, 60)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
