"""The road: what is refused where, what is given back, and when the time runs out."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from serving.errors import (
    DeadlinePassed,
    InvalidInput,
    ModelNotFound,
    Overloaded,
    PolyvecError,
    TokenLimitExceeded,
    Unavailable,
)
from serving.limits.gate import Gate
from serving.tenants import Tenant
from serving.values import Answer, Ask, Job, Output, Pdf, Prepared, Text, Vectors
from tests.services import (
    CountingPreparer,
    HashEngine,
    StuckEngine,
    able,
    call,
    minilm,
    service,
    tasked,
    toy,
)


def ask(*texts: str, model: str = "toy", **wanted: object) -> Ask:
    return Ask(model, tuple(Text(one) for one in texts), **wanted)  # type: ignore[arg-type]


async def embed(served: object, wanted: Ask) -> Answer:
    return await served.embed(call(), wanted)  # type: ignore[attr-defined, no-any-return]


async def test_there_is_one_vector_an_input_in_order() -> None:
    served = service(toy())
    both = await embed(served, ask("a", "b"))
    assert both.vectors.shape == (2, 8)
    for row, text in zip(both.vectors, "ab", strict=True):
        alone = await embed(served, ask(text))
        np.testing.assert_array_equal(row, alone.vectors[0])


async def test_an_alias_asks_the_same_model() -> None:
    served = service(toy(aliases=("org/toy",)))
    by_alias = await embed(served, ask("a", model="org/toy"))
    np.testing.assert_array_equal(by_alias.vectors, (await embed(served, ask("a"))).vectors)


async def test_the_engine_is_told_whose_a_job_is_and_of_which_class() -> None:
    told: list[Prepared] = []

    class Told(HashEngine):
        async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
            told.append(prepared)
            return await super().embed(prepared, deadline)

    served = service(toy(), engine=Told(8))
    await served.embed(call(tenant=Tenant("acme", service_class="bulk")), ask("a"))
    assert [(one.tenant, one.service_class) for one in told] == [("acme", "bulk")]


async def test_usage_is_what_the_models_own_tokenizer_counts() -> None:
    spec, _ = minilm()
    answer = await embed(service(), ask("the quick brown fox", "", model=spec.id))
    assert answer.usage.total_tokens == (4 + 2) + 2


async def test_everything_asked_for_is_in_the_answer() -> None:
    wanted = Output(dense=False, multi=True, sparse=True, tokens=True)
    answer = await embed(service(able()), ask("ab", "", model="able", output=wanted))
    assert answer.vectors.shape == (2, 0)
    assert answer.multi is not None
    assert answer.multi.counts.tolist() == [4, 2]
    assert answer.sparse is not None
    assert answer.sparse.counts.tolist() == [4, 2]
    assert answer.tokens == (("\x01", "a", "b", "\x02"), ("\x01", "\x02"))


async def test_images_are_charged_before_they_are_embedded() -> None:
    engine, gate = HashEngine(8), Gate(10, 20)
    served = service(able(), engine=engine, gate=gate)
    wanted = Ask("able", (Pdf("x"),))
    with gate.tokens(11), pytest.raises(Overloaded):
        await embed(served, wanted)
    assert engine.calls == 0
    answer = await embed(served, wanted)
    assert answer.vectors.shape == (2, 8)
    assert (answer.usage.total_tokens, answer.usage.image_tokens) == (10, 6)


async def test_an_unknown_model_is_refused_with_the_models() -> None:
    with pytest.raises(ModelNotFound, match="toy, tasked"):
        await embed(service(toy(), tasked()), ask("a", model="x"))


async def test_a_refusal_at_the_door_prepares_nothing() -> None:
    preparer = CountingPreparer()
    with pytest.raises(InvalidInput):
        await embed(service(toy(), preparer=preparer), ask("a", output=Output(3)))
    assert preparer.jobs == []


async def test_an_input_that_is_too_long_is_refused_with_the_counts_and_embeds_nothing() -> None:
    spec, _ = minilm()
    engine = HashEngine(spec.dimensions)
    with pytest.raises(TokenLimitExceeded, match=r"302.*256"):
        await embed(service(spec, engine=engine), ask("dog " * 300, model=spec.id))
    assert engine.calls == 0


async def test_a_truncated_input_is_counted_by_what_the_model_sees() -> None:
    spec, _ = minilm()
    answer = await embed(service(), ask("dog " * 300, model=spec.id, truncate=True))
    assert answer.usage.total_tokens == 256


async def test_a_full_gate_refuses_before_anything_is_prepared() -> None:
    preparer, gate = CountingPreparer(), Gate(1, 1000)
    served = service(toy(), preparer=preparer, gate=gate)
    with gate.request(), pytest.raises(Overloaded):
        await embed(served, ask("a"))
    assert preparer.jobs == []


async def test_tokens_that_do_not_fit_are_refused_before_the_engine() -> None:
    engine, gate = HashEngine(8), Gate(10, 20)
    served = service(toy(), engine=engine, gate=gate)
    with gate.tokens(18), pytest.raises(Overloaded):
        await embed(served, ask("a"))
    assert engine.calls == 0
    assert (await embed(served, ask("a"))).usage.total_tokens == 3


async def test_a_failure_gives_the_place_and_the_tokens_back() -> None:
    gate = Gate(1, 5)
    served = service(toy(), engine=HashEngine(8, Unavailable("dead")), gate=gate)
    for _ in range(3):
        with pytest.raises(Unavailable, match="dead"):
            await embed(served, ask("a"))
    assert gate.under_way == 0


async def test_a_passed_deadline_ends_the_engines_work() -> None:
    engine, gate = StuckEngine(), Gate(1, 5)
    served = service(toy(), engine=engine, gate=gate)
    with pytest.raises(DeadlinePassed):
        await served.embed(call(0.01), ask("a"))
    assert engine.cancelled.is_set()
    assert gate.under_way == 0


async def test_cancellation_reaches_the_engine() -> None:
    engine = StuckEngine()
    task = asyncio.create_task(service(toy(), engine=engine).embed(call(), ask("a")))
    await engine.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.cancelled.is_set()


async def test_it_is_ready_when_every_model_is() -> None:
    assert await service(toy(), tasked()).unready() == {}


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Unavailable("loading"), "loading"), (PolyvecError("odd"), "INTERNAL_ERROR: odd")],
)
async def test_the_reasons_are_named_by_model(error: Exception, reason: str) -> None:
    served = service(toy(), engine=HashEngine(8, error))
    assert await served.unready() == {"toy": reason}


async def test_a_service_that_stops_refuses_and_is_not_ready() -> None:
    served = service(toy())
    served.stop_taking()
    assert list(await served.unready()) == ["toy"]
    assert await served.failing() == {}
    with pytest.raises(Unavailable, match="stopping"):
        await embed(served, ask("a"))


async def test_the_stages_are_told() -> None:
    stages = (await embed(service(toy()), ask("a"))).stages
    assert stages.prepare_s > 0
    assert stages.embed_s > 0


async def test_tokens_are_counted_without_being_embedded_or_charged() -> None:
    engine = HashEngine(8)
    served, asked = service(tasked(), engine=engine), call()
    prepared = await served.prepare(asked, ask("ab", model="tasked", output=Output(tokens=True)))
    assert prepared.ids.tolist() == [1, ord("a"), ord("b"), 2]
    assert prepared.tokens == (("\x01", "a", "b", "\x02"),)
    assert (prepared.task, asked.model) == ("retrieval.passage", "tasked")
    assert (engine.calls, asked.admitted, asked.usage.total_tokens) == (0, False, 0)


async def test_tokens_are_counted_within_the_same_bounds() -> None:
    with pytest.raises(ModelNotFound):
        await service(toy()).prepare(call(), ask("a", model="x"))

    class Endless:
        async def prepare(self, job: Job) -> Prepared:
            await asyncio.Event().wait()
            raise AssertionError

    with pytest.raises(DeadlinePassed):
        await service(toy(), preparer=Endless()).prepare(call(0.01), ask("a"))
    full = Gate(0, 100)
    with pytest.raises(Overloaded):
        await service(toy(), gate=full).prepare(call(), ask("a"))
    leaving = service(toy())
    leaving.stop_taking()
    with pytest.raises(Unavailable):
        await leaving.prepare(call(), ask("a"))
