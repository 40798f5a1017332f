"""The engine around a function that the test holds back, lets go and makes fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from threading import Event, current_thread

import numpy as np
import pytest

from serving.engines import _threaded
from serving.engines._calls import Input, Results
from serving.engines._threaded import Broken, Compute, OutOfMemory, ThreadedEngine
from serving.errors import (
    DeadlinePassed,
    EngineDied,
    InputTooLarge,
    ModelUnavailable,
    PolyvecError,
    Unavailable,
)
from serving.models.spec import ModelSpec
from serving.values import Floats, Output, Prepared, ServiceClass, Usage, Vectors

SPEC = ModelSpec("gated", "none", "", "", dimensions=2, max_tokens=100000)


class Gate:
    """A model whose vector is (first token, length). `open` lets its batches through."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.entered = Event()
        self.open = Event()
        self.fail: Callable[[Sequence[Input]], None] = lambda inputs: None

    def __call__(self, inputs: Sequence[Input]) -> Results:
        self.threads.add(current_thread().name)
        self.batches.append([int(one.ids[0]) for one in inputs])
        self.entered.set()
        assert self.open.wait(30)
        self.fail(inputs)
        return Results(np.array([[one.ids[0], len(one.ids)] for one in inputs], np.float32))

    def finish(self, means: Floats) -> Floats:
        return means

    async def busy(self) -> None:
        """Return once a batch is under way."""
        assert await asyncio.to_thread(self.entered.wait, 30)


def started(compute: Compute, batch_tokens: int = 100) -> ThreadedEngine:
    return ThreadedEngine(SPEC, lambda: compute, batch_tokens=batch_tokens, queue_tokens=1_000_000)


@pytest.fixture
async def gate() -> Gate:
    return Gate()


@pytest.fixture
async def engine(gate: Gate) -> AsyncIterator[ThreadedEngine]:
    engine = started(gate)
    yield engine
    gate.open.set()
    await engine.close()


def ask(
    engine: ThreadedEngine,
    *inputs: tuple[int, int],
    service_class: ServiceClass = "interactive",
    seconds: float = 60.0,
    tenant: str = "",
) -> asyncio.Future[Vectors]:
    """A call under way for inputs `(first token, length)`."""
    ids = np.concatenate([np.full(length, token, np.int32) for token, length in inputs])
    lengths = np.array([length for _, length in inputs], np.int32)
    prepared = Prepared(
        ids,
        lengths,
        Usage(),
        output=Output(normalized=False),
        service_class=service_class,
        tenant=tenant,
    )
    return asyncio.ensure_future(engine.embed(prepared, time.monotonic() + seconds))


async def test_what_waits_when_the_thread_is_free_goes_together(
    engine: ThreadedEngine, gate: Gate
) -> None:
    first = ask(engine, (1, 10))
    await gate.busy()
    rest = [ask(engine, (n, 10)) for n in (2, 3, 4)]
    await asyncio.sleep(0)
    gate.open.set()
    answers = [await call for call in (first, *rest)]
    assert gate.batches == [[1], [2, 3, 4]]
    assert [answer.array.tolist() for answer in answers] == [[[n, 10]] for n in (1, 2, 3, 4)]
    assert len(gate.threads) == 1


async def test_calls_made_in_one_turn_of_the_loop_share_a_batch(
    engine: ThreadedEngine, gate: Gate
) -> None:
    gate.open.set()
    await asyncio.gather(*(ask(engine, (n, 5)) for n in range(10)))
    assert [len(batch) for batch in gate.batches] == [10]


async def test_a_job_of_several_batches_gets_its_vectors_in_order(
    engine: ThreadedEngine, gate: Gate
) -> None:
    gate.open.set()
    vectors = await ask(engine, (1, 90), (2, 3), (3, 70), (4, 200), (5, 3))
    assert len(gate.batches) > 2
    assert vectors.array.tolist() == [[1, 90], [2, 3], [3, 70], [4, 200], [5, 3]]
    assert vectors.queue_s > 0


async def test_a_call_that_was_cancelled_is_never_batched(
    engine: ThreadedEngine, gate: Gate
) -> None:
    first = ask(engine, (1, 10))
    await gate.busy()
    gone, here = ask(engine, (2, 10)), ask(engine, (3, 10))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    gate.open.set()
    await asyncio.gather(first, here)
    assert gate.batches == [[1], [3]]


async def test_a_deadline_that_passes_in_the_queue_is_told_at_once_and_never_batched(
    engine: ThreadedEngine, gate: Gate
) -> None:
    first = ask(engine, (1, 10))
    await gate.busy()
    with pytest.raises(DeadlinePassed):
        await ask(engine, (2, 10), seconds=0.01)
    gate.open.set()
    await first
    assert gate.batches == [[1]]


async def test_a_deadline_that_passes_in_a_batch_is_answered(
    engine: ThreadedEngine, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers: list[Callable[[], object]] = []
    loop = asyncio.get_running_loop()
    later = loop.call_later

    def remember(delay: float, callback: Callable[..., object], *args: object) -> object:
        timers.append(partial(callback, *args))
        return later(delay, callback, *args)

    monkeypatch.setattr(loop, "call_later", remember)
    call = ask(engine, (1, 10))
    await gate.busy()
    for timer in timers:
        timer()
    gate.open.set()
    assert (await call).array.tolist() == [[1, 10]]


async def test_interactive_calls_overtake_bulk_ones(engine: ThreadedEngine, gate: Gate) -> None:
    first = ask(engine, (1, 100))
    await gate.busy()
    calls = [ask(engine, (2, 100), service_class="bulk"), ask(engine, (3, 100))]
    await asyncio.sleep(0)
    gate.open.set()
    await asyncio.gather(first, *calls)
    assert gate.batches == [[1], [3], [2]]


async def test_a_tenant_s_flood_makes_no_other_wait(engine: ThreadedEngine, gate: Gate) -> None:
    flood = ask(engine, *((n, 50) for n in range(20)), tenant="one")
    await gate.busy()
    other = ask(engine, (99, 50), tenant="other")
    await asyncio.sleep(0)
    gate.open.set()
    await asyncio.gather(flood, other)
    assert any(99 in batch for batch in gate.batches[:3])


async def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    engine: ThreadedEngine, gate: Gate
) -> None:
    gate.open.set()
    gate.fail = lambda inputs: _refuse(len(inputs) > 2)
    vectors = await ask(engine, *((n, 10) for n in range(8)))
    assert vectors.array[:, 0].tolist() == list(range(8))
    assert [len(batch) for batch in gate.batches] == [8, 4, 2, 2, 4, 2, 2]


async def test_an_input_that_cannot_fit_is_refused_alone_and_the_engine_lives_on(
    engine: ThreadedEngine, gate: Gate
) -> None:
    gate.open.set()
    gate.fail = lambda inputs: _refuse(sum(len(one.ids) for one in inputs) > 30)
    small, large = ask(engine, (1, 20)), ask(engine, (2, 40))
    answers = await asyncio.gather(small, large, return_exceptions=True)
    assert isinstance(answers[0], Vectors)
    assert isinstance(answers[1], InputTooLarge)
    assert (await ask(engine, (3, 10))).array.tolist() == [[3, 10]]
    await engine.check()


async def test_a_batch_that_fails_fails_its_own_callers_and_tells_no_secrets(
    engine: ThreadedEngine, gate: Gate
) -> None:
    def fail(inputs: Sequence[Input]) -> None:
        if inputs[0].ids[0] == 1:
            raise ZeroDivisionError("/secret/path")

    gate.open.set()
    gate.fail = fail
    with pytest.raises(PolyvecError) as raised:
        await ask(engine, (1, 90), (4, 90))
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert (await ask(engine, (2, 10))).array.tolist() == [[2, 10]]


async def test_a_broken_model_refuses_everybody_and_check_says_why(
    engine: ThreadedEngine, gate: Gate
) -> None:
    def fail(inputs: Sequence[Input]) -> None:
        raise Broken("the device is gone")

    gate.fail = fail
    first = ask(engine, (1, 10))
    await gate.busy()
    waiting = ask(engine, (2, 10))
    await asyncio.sleep(0)
    gate.open.set()
    answers = await asyncio.gather(first, waiting, ask(engine, (3, 1)), return_exceptions=True)
    assert all(isinstance(answer, EngineDied) for answer in answers)
    assert [answer.taken for answer in answers] == [True, False, False]  # type: ignore[union-attr]
    with pytest.raises(EngineDied, match="the device is gone"):
        await engine.check()


async def test_a_batch_that_hangs_is_told_by_check(
    engine: ThreadedEngine, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ask(engine, (1, 10))
    await gate.busy()
    await engine.check()
    monkeypatch.setattr(_threaded, "STUCK_S", 0.0)
    with pytest.raises(Unavailable, match="in one batch"):
        await engine.check()
    gate.open.set()
    await call
    await ask(engine, (2, 10))


async def test_closing_finishes_the_batch_under_way_and_refuses_the_rest(
    engine: ThreadedEngine, gate: Gate
) -> None:
    first = ask(engine, (1, 10))
    await gate.busy()
    waiting = ask(engine, (2, 10))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(engine.close())
    with pytest.raises(Unavailable):
        await waiting
    gate.open.set()
    assert (await first).array.tolist() == [[1, 10]]
    await closing
    assert gate.batches == [[1]]


def test_an_engine_serves_one_event_loop_after_another(gate: Gate) -> None:
    gate.open.set()
    engine = started(gate)

    async def once(token: int) -> list[list[float]]:
        array: list[list[float]] = (await ask(engine, (token, 3))).array.tolist()
        return array

    assert [asyncio.run(once(n)) for n in (1, 2)] == [[[1, 3]], [[2, 3]]]
    asyncio.run(engine.close())


def test_what_cannot_be_built_is_raised_where_it_was_asked_for() -> None:
    def build() -> Compute:
        raise ModelUnavailable("no such checkpoint")

    with pytest.raises(ModelUnavailable, match="no such checkpoint"):
        ThreadedEngine(SPEC, build, batch_tokens=1, queue_tokens=1)


def _refuse(too_large: bool) -> None:
    if too_large:
        raise OutOfMemory
