"""Adapters that come and go, a hop away: warm replicas first, and a full one is not the end."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from deployments.flights import pack_vectors, unpack_prepared
from deployments.local import LocalNode
from deployments.remote import RemoteEngine, TaskEngines
from serving.coalescing import Lane
from serving.engines import AdapterOptions, EngineOptions, open_engine
from serving.errors import Overloaded, PolyvecError
from serving.models.loading import load_spec
from serving.models.spec import TaskSpec
from serving.values import Prepared, Usage, Vectors
from tests.adapted import make

_SHOWN_S = 4.0  # by then `/metrics` has what was counted


class Handle:
    """A deployment whose replica with an adapter is `full`, and another is not."""

    def __init__(self, full: bool = False) -> None:
        self.full = full
        self.sent: list[tuple[str, list[str | None]]] = []
        self.wanted = ""

    def options(self, multiplexed_model_id: str = "", **_: object) -> Handle:
        one = object.__new__(Handle)
        one.__dict__ = {**self.__dict__, "wanted": multiplexed_model_id}
        return one

    async def remote(self, flight: str, items: list[Any]) -> list[Any]:
        jobs = [unpack_prepared(item)[0] for item in items]
        self.sent.append((self.wanted, [job.adapter for job in jobs]))
        if self.full and self.wanted:
            return [Overloaded("full", 1.0) for _ in jobs]
        return [pack_vectors(Vectors(np.array([[len(job.ids)]], np.float32))) for job in jobs]


def job(adapter: str | None, tokens: int = 1) -> Prepared:
    ids = np.ones(tokens, np.int32)
    return Prepared(ids, np.array([tokens], np.int32), Usage(), adapter=adapter)


def remote(handle: Handle) -> RemoteEngine:
    lane = Lane(1, 1000)
    return RemoteEngine(handle, lane, 4, adapters=("a", "b"))  # type: ignore[arg-type]


async def answers(handle: Handle, *jobs: Prepared) -> list[float]:
    engine, later = remote(handle), time.monotonic() + 5
    vectors = await asyncio.gather(*(engine.embed(one, later) for one in jobs))
    return [float(one.array[0, 0]) for one in vectors]


async def test_calls_for_one_adapter_leave_together_and_ask_for_a_warm_replica() -> None:
    handle = Handle()
    jobs = [job("a", 1), job("b", 2), job("a", 3), job(None, 4), job("own", 5)]
    assert await answers(handle, *jobs) == [1, 2, 3, 4, 5]
    assert sorted(handle.sent) == [("", [None, "own"]), ("a", ["a", "a"]), ("b", ["b"])]


async def test_where_the_warm_replica_is_full_any_other_is_asked() -> None:
    handle = Handle(full=True)
    assert await answers(handle, job("a", 2), job("a", 3)) == [2, 3]
    assert handle.sent == [("a", ["a", "a"]), ("", ["a", "a"])]


async def test_an_error_of_a_warm_replica_s_is_final() -> None:
    handle = Handle()

    async def failing(flight: str, items: list[Any]) -> list[Any]:
        handle.sent.append((flight, []))
        return [PolyvecError("the model failed on this input")]

    handle.remote = failing  # type: ignore[method-assign]
    with pytest.raises(PolyvecError, match="failed"):
        await answers(handle, job("a"))
    assert len(handle.sent) == 1


def loads(http: httpx.Client) -> Counter[str]:
    """Adapters loaded by the replicas of `tenants`, by result."""
    found: Counter[str] = Counter()
    for line in http.get("/metrics").text.splitlines():
        if line.startswith("ray_polyvec_adapter_loads_total") and 'model="tenants"' in line:
            result = re.search(r'result="(\w+)"', line)
            assert result is not None
            found[result[1]] += int(float(line.split()[-1]))
    return found


@pytest.mark.ray
def test_three_adapters_on_two_replicas_of_one_place_give_the_vectors_they_give_here(
    node: LocalNode, http: httpx.Client
) -> None:
    tasks = ("one", "two", "three", None)

    def asked(task: str | None) -> np.ndarray[Any, Any]:
        body = {"model": "tenants", "input": "a cat", **({"task": task} if task else {})}
        answer = http.post("/v1/embeddings", json=body)
        assert answer.status_code == 200, answer.text
        return np.array(answer.json()["data"][0]["embedding"], np.float32)

    first = {task: asked(task) for task in tasks}
    until, before, after = time.monotonic() + 60, Counter({"loaded": -1}), loads(http)
    while before != after:  # until the gateways have heard who has what
        assert time.monotonic() < until, "adapters are loaded for ever"
        for _ in range(10):
            for task in ("one", "two"):
                assert np.array_equal(asked(task), first[task])
        time.sleep(_SHOWN_S)
        before, after = after, loads(http)
    assert after["loaded"] >= 3
    here = asyncio.run(_here(node, tasks))
    for task in tasks:
        assert np.allclose(first[task], here[task], atol=1e-6)
    assert len({vector.tobytes() for vector in first.values()}) == 4


async def _here(node: LocalNode, tasks: tuple[str | None, ...]) -> dict[str | None, Any]:
    """The same vectors in this process, where every adapter stays."""
    [model] = [one for one in node.config.models if one.id == "tenants"]
    spec = load_spec(model.model_copy(update={"adapters": None}).entry())
    engine = open_engine("noop", spec, EngineOptions())
    of = {one.name: one.adapter for one in spec.tasks}
    ids = np.array([101, 1037, 4937, 102], np.int32)  # "a cat"
    found: dict[str | None, Any] = {}
    for task in tasks:
        asked = Prepared(ids, np.array([4], np.int32), Usage(), adapter=task and of[task])
        found[task] = (await engine.embed(asked, time.monotonic() + 5)).array[0]
    await engine.close()
    return found


async def test_a_request_gives_the_same_vectors_shared_per_task_and_multiplexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "cache"))
    base = make("qwen3", tmp_path)
    own = [one.path for one in base.adapters]
    tasks = tuple(TaskSpec(f"task {n}", adapter=path) for n, path in enumerate(own))
    always = replace(
        base, tasks=tasks, adapters=tuple(replace(one, name=one.path) for one in base.adapters)
    )
    moving = replace(base, tasks=tasks, adapters=(), loadable=tuple(own))
    options = EngineOptions("float32", threads=1, adapters=AdapterOptions(1, 60_000))
    shared = open_engine("torch", always, options)
    per_task = TaskEngines(
        {name: open_engine("torch", always, options) for name in (None, "task 0", "task 1")}
    )
    multiplexed = open_engine("torch", moving, options)
    ids, lengths = np.arange(10, 40, dtype=np.int32), np.array([5, 20, 1, 4], np.int32)
    for task in (*tasks, None, *tasks):
        name, adapter = (task.name, task.adapter) if task else (None, None)
        asked = Prepared(ids, lengths, Usage(), task=name, adapter=adapter)
        found = [
            (await engine.embed(asked, time.monotonic() + 30)).array
            for engine in (shared, per_task, multiplexed)
        ]
        assert np.allclose(found[1], found[0], rtol=0, atol=1e-5)
        assert np.allclose(found[2], found[0], rtol=0, atol=1e-5)
    for engine in (shared, per_task, multiplexed):
        await engine.close()
