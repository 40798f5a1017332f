"""Adapters that come and go: the vectors stay the same, and nobody loses what he uses."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.batching import Room
from serving.engines import AdapterOptions, Engine, EngineOptions, open_engine
from serving.engines._multiplexed import Multiplexed
from serving.engines._network import Network
from serving.engines._places import Places
from serving.errors import DeadlinePassed, ModelUnavailable, Overloaded, Unavailable
from serving.models.spec import Adapter, ModelSpec
from serving.telemetry import Telemetry
from serving.telemetry.prometheus import PrometheusBackend
from serving.values import Prepared, Usage, Vectors
from tests.adapted import make
from tests.serving.engines.harness import NEAR, TEXTS

NAMES = ("retrieval", "text-matching", "code")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """One with three adapters of its own."""
    return make("qwen_vl", tmp_path_factory.mktemp("models"))


def apart(spec: ModelSpec) -> ModelSpec:
    """The same with every adapter loadable, and none of its own."""
    return replace(spec, adapters=(), loadable=tuple(one.path for one in spec.adapters))


@asynccontextmanager
async def opened(
    spec: ModelSpec,
    resident: int,
    engine: str = "torch",
    loads_per_minute: int = 60_000,
    telemetry: Telemetry | None = None,
    told: Callable[[Sequence[str]], None] = lambda names: None,
    **options: Any,
) -> AsyncIterator[Engine]:
    adapters = AdapterOptions(resident, loads_per_minute)
    chosen = EngineOptions("float32", threads=1, adapters=adapters, **options)
    more = () if telemetry is None else (telemetry,)
    engine_ = open_engine(engine, spec, chosen, *more, residents=told)
    yield engine_
    await engine_.close()


async def ask(
    engine: Engine, adapter: str | None, texts: Sequence[Sequence[int]] = TEXTS, seconds: float = 60
) -> Vectors:
    ids = np.array([token for text in texts for token in text], np.int32)
    lengths = np.array([len(text) for text in texts], np.int32)
    job = Prepared(ids, lengths, Usage(), adapter=adapter)
    return await engine.embed(job, time.monotonic() + seconds)


@pytest.mark.parametrize("resident", [1, 2, 3])
async def test_an_adapter_gives_the_same_vectors_resident_and_multiplexed(
    spec: ModelSpec, resident: int
) -> None:
    async with opened(spec, 1) as engine:
        always = {one.name: await ask(engine, one.name) for one in spec.adapters}
        bare = await ask(engine, None)
    loadable = apart(spec)
    names = dict(zip(NAMES, loadable.loadable, strict=True))
    async with opened(loadable, resident) as engine:
        assert np.allclose((await ask(engine, None)).array, bare.array, **NEAR)
        calls = [name for _ in range(3) for name in NAMES]
        for name in calls:
            assert np.allclose((await ask(engine, names[name])).array, always[name].array, **NEAR)
        together = await asyncio.gather(
            *(ask(engine, names[name]) for name in calls), ask(engine, None)
        )
    for name, answer in zip(calls, together, strict=False):
        assert np.allclose(answer.array, always[name].array, **NEAR)
    assert np.allclose(together[-1].array, bare.array, **NEAR)


async def test_adapters_of_its_own_stay_beside_those_that_come_and_go(spec: ModelSpec) -> None:
    one, *others = spec.adapters
    mixed = replace(spec, adapters=(one,), loadable=tuple(other.path for other in others))
    async with opened(spec, 1) as engine:
        always = [(await ask(engine, each.name)).array for each in spec.adapters]
    async with opened(mixed, 1) as engine:
        for name in (others[0].path, one.name, others[1].path, one.name):
            answer = (await ask(engine, name)).array
            wanted = [each.name if each is one else each.path for each in spec.adapters]
            assert np.allclose(answer, always[wanted.index(name)], **NEAR)


async def test_a_cpu_encoder_takes_adapters_too_where_it_is_to_have_any(tmp_path: Path) -> None:
    spec = make("eurobert", tmp_path)
    async with opened(apart(spec), 1) as engine:
        first, second = apart(spec).loadable
        a, b, again = [(await ask(engine, one)).array for one in (first, second, first)]
    assert np.allclose(a, again, **NEAR)
    assert np.abs(a - b).max() > 1e-3


@pytest.fixture
async def held(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.Event]:
    """Batches of the torch engine wait for it; loads do not."""
    event, loop = asyncio.Event(), asyncio.get_running_loop()
    run = Network.__call__

    def later(self: Network, inputs: Any) -> Any:
        asyncio.run_coroutine_threadsafe(event.wait(), loop).result(30)
        return run(self, inputs)

    monkeypatch.setattr(Network, "__call__", later)
    yield event
    event.set()


async def turns(count: int = 50) -> None:
    """Let everything that can go on go on."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_in_use_stays_and_what_wants_its_place_waits(
    spec: ModelSpec, held: asyncio.Event
) -> None:
    loadable, seen = apart(spec), []
    first, second, _ = loadable.loadable
    async with opened(loadable, 1, told=lambda names: seen.append(tuple(names))) as engine:
        using = asyncio.ensure_future(ask(engine, first))
        await turns()
        wanting = asyncio.ensure_future(ask(engine, second))
        bare = asyncio.ensure_future(ask(engine, None))
        await turns()
        assert seen == [(first,)]
        held.set()
        await asyncio.gather(using, wanting, bare)
        assert seen == [(first,), (second,)]


async def test_a_caller_that_goes_away_while_it_waits_leaves_nothing_held(
    spec: ModelSpec, held: asyncio.Event
) -> None:
    loadable = apart(spec)
    first, second, third = loadable.loadable
    async with opened(loadable, 1) as engine:
        using = asyncio.ensure_future(ask(engine, first))
        await turns()
        gone = [asyncio.ensure_future(ask(engine, second)) for _ in range(3)]
        await turns()
        for one in gone:
            one.cancel()
        with pytest.raises(DeadlinePassed):
            await ask(engine, second, seconds=0.01)
        held.set()
        await asyncio.gather(using, *gone, return_exceptions=True)
        for name in (third, second, first):
            assert (await ask(engine, name)).array.shape[0] == len(TEXTS)


async def test_an_adapter_that_does_not_fit_is_refused_by_name_and_all_else_goes_on(
    spec: ModelSpec, tmp_path: Path
) -> None:
    loadable = apart(spec)
    wrong = make("qwen3", tmp_path).adapters[0].path
    nowhere = str(tmp_path / "nowhere")
    loadable = replace(loadable, loadable=(*loadable.loadable, wrong, nowhere))
    async with opened(loadable, 1) as engine:
        before = await ask(engine, loadable.loadable[0])
        for _ in range(2):
            with pytest.raises(ModelUnavailable, match=r"which qwen_vl does not have|wide"):
                await ask(engine, wrong)
            with pytest.raises(ModelUnavailable, match="there is no directory"):
                await ask(engine, nowhere)
        after = await ask(engine, loadable.loadable[0])
    assert np.array_equal(before.array, after.array)


async def test_loads_beyond_the_allowed_ones_wait_and_the_loaded_are_not_disturbed(
    spec: ModelSpec,
) -> None:
    loadable = apart(spec)
    first, second, _ = loadable.loadable
    async with opened(loadable, 1, loads_per_minute=1) as engine:
        await ask(engine, first)
        waiting = asyncio.ensure_future(ask(engine, second))
        for _ in range(5):
            await ask(engine, first)
        assert not waiting.done()
        waiting.cancel()


async def test_so_many_tokens_wait_for_adapters_and_no_more(spec: ModelSpec) -> None:
    loadable = apart(spec)
    first, second, _ = loadable.loadable
    tokens = sum(map(len, TEXTS))
    async with opened(loadable, 1, loads_per_minute=1, queue_tokens=2 * tokens) as engine:
        await ask(engine, first)
        waiting = [asyncio.ensure_future(ask(engine, second)) for _ in range(2)]
        await turns()
        with pytest.raises(Overloaded) as told:
            await ask(engine, second)
        assert told.value.retry_after_s == 60
        await ask(engine, first)
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(one, Unavailable) for one in answers)


async def test_the_metrics_tell_what_is_loaded(spec: ModelSpec) -> None:
    backend = PrometheusBackend()
    telemetry = Telemetry(backend, [spec.id])
    loadable = apart(spec)
    async with opened(loadable, 2, telemetry=telemetry) as engine:
        for name in (*loadable.loadable, loadable.loadable[0]):
            await ask(engine, name)
    text = backend.exposition().decode()
    assert 'polyvec_adapters_resident{model="qwen_vl"} 2' in text
    assert 'polyvec_adapter_loads_total{model="qwen_vl",result="loaded"} 4' in text
    assert 'polyvec_adapter_loads_total{model="qwen_vl",result="dropped"} 2' in text


async def test_the_engine_without_weights_has_them_come_and_go_too(spec: ModelSpec) -> None:
    loadable = apart(spec)
    first, second, _ = loadable.loadable
    async with opened(loadable, 1, engine="noop") as engine:
        answers = [(await ask(engine, name)).array for name in (first, second, first, None)]
    assert np.array_equal(answers[0], answers[2])
    assert not any(np.array_equal(answers[0], other) for other in (answers[1], answers[3]))


class Exchanging:
    """An engine that only knows which adapters it has."""

    def __init__(self) -> None:
        self.has: set[str] = set()

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        assert prepared.adapter in self.has
        return Vectors(np.zeros((1, 1), np.float32))

    async def exchange(self, gone: str | None, come: Adapter | None) -> None:
        assert gone is None or gone in self.has
        assert come is None or come.name not in self.has
        self.has = (self.has - {gone or ""}) | ({come.name} if come else set())

    async def check(self) -> None: ...

    async def close(self) -> None: ...


async def test_an_adapter_that_is_fetched_quickly_does_not_come_before_it_has_gone() -> None:
    fetching, fetched = threading.Event(), threading.Event()

    def fetch(name: str) -> Adapter:
        if name == "slow":
            fetching.set()
            assert fetched.wait(30)
        return Adapter(name, name, 1)

    inner = Exchanging()
    engine = Multiplexed(inner, ("a", "b", "slow"), Places(2, 60_000), fetch, Room(1000))

    def job(name: str) -> Prepared:
        return Prepared(np.array([1], np.int32), np.array([1], np.int32), Usage(), adapter=name)

    later = time.monotonic() + 30
    await engine.embed(job("a"), later)
    await engine.embed(job("b"), later)
    slow = asyncio.create_task(engine.embed(job("slow"), later))  # in the place of "a"
    await asyncio.to_thread(fetching.wait, 30)
    again = asyncio.create_task(engine.embed(job("a"), later))  # in the place of "b"
    await asyncio.wait([again], timeout=0.1)
    fetched.set()
    await asyncio.gather(slow, again)
    assert inner.has == {"slow", "a"}
    await engine.close()
