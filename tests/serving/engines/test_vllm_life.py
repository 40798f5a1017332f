"""One vLLM engine from its start to its death: a full queue, and an engine core that is killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from serving.engines.vllm import VllmEngine, load
from serving.errors import EngineDied, Overloaded, Unavailable
from serving.values import Floats, Prepared, Usage
from tests.adapted import make
from tests.vllm_engines import OPTIONS, needs_vllm

Born = tuple[VllmEngine, set[psutil.Process]]

ROOT = Path(__file__).parents[3]
CORE = "EngineCore"
REPLICA = """
import sys
from pathlib import Path
from serving.operators import declare
declare()
from serving.engines.vllm import load
from tests.adapted import make
from tests.vllm_engines import OPTIONS

if __name__ == "__main__":
    engine = load(make("qwen3", Path(sys.argv[1])), OPTIONS)
    print("ready", flush=True)
    sys.stdin.read()
"""


def processes(of: int | None = None) -> set[psutil.Process]:
    return {one for one in psutil.Process(of).children(recursive=True) if "VLLM" in one.name()}


def folders() -> set[Path]:
    """Where the sockets of engines lie."""
    return set(Path(tempfile.gettempdir()).glob("pv-vllm-*"))


async def left(own: set[psutil.Process]) -> list[psutil.Process]:
    """Those of them that are still there after a while."""
    _, alive = await asyncio.to_thread(psutil.wait_procs, own, 60)
    return [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def born(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[VllmEngine, set[psutil.Process]]]:
    """An engine with a short queue, and its processes. It leaves no socket behind."""
    needs_vllm()
    before, others = processes(), folders()
    spec = make("qwen3", tmp_path_factory.mktemp("models"))
    engine = load(spec, replace(OPTIONS, queue_tokens=1000))
    [folder] = folders() - others
    assert any(one.is_socket() for one in folder.iterdir())
    yield engine, processes() - before
    asyncio.run(engine.close())
    assert not folder.exists()


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
    assert not await left(own)


@pytest.mark.slow
async def test_a_replica_that_is_killed_takes_its_engine_along(tmp_path: Path) -> None:
    needs_vllm()
    others = folders()
    script = tmp_path / "replica.py"
    script.write_text(REPLICA)
    command = [sys.executable, str(script), str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, text=True, env=env, **pipes) as replica:
        assert replica.stdout
        assert await asyncio.to_thread(replica.stdout.readline) == "ready\n"
        own = processes(replica.pid)
        assert len(own) == 2
        replica.kill()
    for folder in folders() - others:
        shutil.rmtree(folder)
    assert not await left(own)
