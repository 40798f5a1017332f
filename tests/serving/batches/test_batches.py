"""Batches from end to end: what comes out of them, what is billed, and how they end."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from serving.errors import (
    BodyTooLarge,
    Forbidden,
    InputTooLarge,
    InvalidInput,
    LimitExceeded,
    ModelNotFound,
    ResourceNotFound,
    Unavailable,
)
from serving.limits.limit import Limits
from serving.limits.limiter import Limiter
from serving.limits.stores.memory import MemoryStore
from serving.tenants import LOCAL, Tenant
from serving.values import Prepared, Vectors
from tests.services import HashEngine
from tests.serving.batches.desks import QUICK, bills, desk, ledger, line, lines, owed, written

POISON = ord("☠")
PATIENT = replace(QUICK, lease_s=1e9)  # where the clock is not the one that leases run by


class Clock:
    """A time that goes on only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = time.time()
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def ms(self) -> int:
        return round(self.now * 1000)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Failing(HashEngine):
    """Raises `errors` first, one a call, and always for a poisoned text."""

    def __init__(self, *errors: Exception, poison: Exception | None = None) -> None:
        super().__init__(8)
        self.errors, self.poison, self.inputs = list(errors), poison, 0

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        if self.errors:
            raise self.errors.pop(0)
        if self.poison is not None and POISON in prepared.ids:
            raise self.poison
        self.inputs += len(prepared.lengths)
        return await super().embed(prepared, deadline)


class Held(HashEngine):
    """Answers when it is let go."""

    def __init__(self) -> None:
        super().__init__(8)
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        self.asked.set()
        await self.go.wait()
        return await super().embed(prepared, deadline)


def limited(clock: Clock, **limits: int) -> tuple[Tenant, Limiter]:
    limiter = Limiter(MemoryStore(clock.ms), clock=clock)
    return replace(LOCAL, id="acme", key_id="key", limits=Limits(**limits)), limiter


async def test_every_line_comes_out_in_order_and_is_billed(tmp_path: Path) -> None:
    meter, sent = ledger(tmp_path), lines(23)
    async with desk(tmp_path, meter=meter) as one:
        batch = await one.ended(await one.submit(sent))
        found = await one.result(batch)
        assert await one.result(batch, "errors") == []
    assert meter.close()
    assert [row["custom_id"] for row in found] == [str(n) for n in range(23)]
    assert all(row["response"]["status_code"] == 200 and row["error"] is None for row in found)
    assert {len(row["response"]["body"]["data"][0]["embedding"]) for row in found} == {8}
    assert (batch.status, batch.tally.completed, batch.tally.failed) == ("completed", 23, 0)
    assert batch.tally.tokens == owed(sent)
    every = bills(tmp_path)
    assert len(every) == 23
    assert sum(tokens for *_, tokens in every) == owed(sent)


async def test_a_line_has_its_own_options_inputs_and_usage(tmp_path: Path) -> None:
    sent = [
        line("a", ["one", "three"], task="separation", dimensions=2),
        line("b", "two", embedding_type="base64"),
        line("c", "four", dimensions=None),
    ]
    async with desk(tmp_path) as one:
        batch = await one.ended(await one.submit(sent, model="tasked", dimensions=4))
        first, second, third = (row["response"]["body"] for row in await one.result(batch))
    assert [len(entry["embedding"]) for entry in first["data"]] == [2, 2]
    assert first["usage"] == {"prompt_tokens": 12, "total_tokens": 12}
    assert isinstance(second["data"][0]["embedding"], str)
    assert len(third["data"][0]["embedding"]) == 4
    assert batch.tally.tokens == 12 + 5 + 6


async def test_tasks_are_billed_apart(tmp_path: Path) -> None:
    meter = ledger(tmp_path)
    sent = [line(n, task=("separation", "retrieval.query")[n % 2]) for n in range(8)]
    async with desk(tmp_path, meter=meter) as one:
        await one.ended(await one.submit(sent, model="tasked"))
    assert meter.close()
    assert sorted(task for _, task, _, _ in bills(tmp_path)) == [
        *["retrieval.query"] * 4,
        *["separation"] * 4,
    ]


async def test_lines_that_cannot_be_read_are_errors_of_their_own(tmp_path: Path) -> None:
    sent = [
        line("good"),
        b"{not json\n",
        b"\n",
        b"[1]\n",
        {"custom_id": "empty"},
        {"custom_id": 7, "body": {"input": "x"}},
        line("none", []),
        line("other", model="tasked"),
        line("unknown", model="nothing"),
        line("task", task="separation"),
        line("last"),
    ]
    async with desk(tmp_path) as one:
        batch = await one.ended(await one.submit(sent))
        found, errors = await one.result(batch), await one.result(batch, "errors")
    assert [row["custom_id"] for row in found] == ["good", "last"]
    assert [(row["error"]["line"], row["error"]["code"]) for row in errors] == [
        (2, "INPUT_INVALID_JSON"),
        (3, "INPUT_INVALID"),
        (4, "INPUT_INVALID"),
        (5, "INPUT_INVALID"),
        (6, "INPUT_INVALID"),
        (7, "INPUT_INVALID"),
        (8, "INPUT_MODEL_NOT_FOUND"),
        (9, "INPUT_TASK_NOT_FOUND"),
    ]
    assert [row["custom_id"] for row in errors][2:4] == ["empty", None]
    assert (batch.status, batch.lines, batch.tally.failed) == ("completed", 10, 8)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputTooLarge("it does not fit", "input"), "INPUT_TOO_LARGE_FOR_MEMORY"),
        (RuntimeError("the engine broke"), "INTERNAL_ERROR"),
    ],
)
async def test_a_line_that_fails_takes_nobody_with_it(
    tmp_path: Path, error: Exception, code: str
) -> None:
    clock, meter = Clock(), ledger(tmp_path)
    sent = [line(n, f"text {n}" + "☠" * (n in (3, 8, 9))) for n in range(14)]
    options = replace(PATIENT, piece_lines=8, retries=3)
    engine = Failing(poison=error)
    async with desk(
        tmp_path, engine=engine, options=options, meter=meter, sleep=clock.sleep
    ) as one:
        batch = await one.ended(await one.submit(sent))
        found, errors = await one.result(batch), await one.result(batch, "errors")
    assert meter.close()
    assert [row["custom_id"] for row in errors] == ["3", "8", "9"]
    assert {row["error"]["code"] for row in errors} == {code}
    assert "broke" not in str(errors)
    assert [row["custom_id"] for row in found] == [str(n) for n in range(14) if n not in (3, 8, 9)]
    assert len(bills(tmp_path)) == 11


async def test_an_outage_is_waited_out(tmp_path: Path) -> None:
    clock = Clock()
    engine = Failing(*[Unavailable("asleep", 1.0)] * 7, RuntimeError("once"))
    options = replace(PATIENT, requests=1)
    async with desk(
        tmp_path, engine=engine, options=options, clock=clock, sleep=clock.sleep
    ) as one:
        batch = await one.submit(lines(4))
        while (await one.batches.find(LOCAL, batch.id)).ended is None:
            await asyncio.sleep(0)
            clock.now += 0.5  # a long wait gives the batch back until then
        assert len(await one.result(batch)) == 4
    assert min(clock.slept[:2]) >= 1.0


async def test_a_quota_is_waited_for_as_it_says_and_nothing_is_lost(tmp_path: Path) -> None:
    clock = Clock()
    tenant, limiter = limited(clock, requests_per_minute=60)
    options = replace(PATIENT, piece_lines=1)
    async with desk(
        tmp_path, options=options, limiter=limiter, clock=clock, sleep=clock.sleep
    ) as one:
        one.books.tenants["key"] = tenant
        began = clock.now
        batch = await one.ended(await one.submit(lines(80), tenant), tenant)
        assert len(await one.result(batch, tenant=tenant)) == 80
    assert (batch.status, batch.tally.failed) == ("completed", 0)
    assert clock.slept and clock.now - began >= 20  # sixty at once, and then one a second


async def test_a_long_wait_leaves_the_place_to_another_tenant(tmp_path: Path) -> None:
    clock = Clock()
    tenant, limiter = limited(clock, requests_per_minute=1)
    options = replace(PATIENT, at_once=1, piece_lines=1, requests=1)
    async with desk(
        tmp_path, options=options, limiter=limiter, clock=clock, sleep=clock.sleep
    ) as one:
        one.books.tenants["key"] = tenant
        slow = await one.submit(lines(3), tenant)
        await one.ended(await one.submit(lines(2)))
        waiting = await one.batches.find(tenant, slow.id)
        assert (waiting.status, waiting.tally.completed) == ("processing", 1)
        for _ in range(2):
            clock.now += 61
        while (await one.batches.find(tenant, slow.id)).ended is None:
            clock.now += 61
            await asyncio.sleep(0.002)
        assert len(await one.result(slow, tenant=tenant)) == 3


async def test_a_piece_above_a_quota_is_asked_in_smaller_ones(tmp_path: Path) -> None:
    clock, meter = Clock(), ledger(tmp_path)
    tenant, limiter = limited(clock, tokens_per_minute=18)
    sent = [line("a", "x" * 8), line("b", "x" * 6), line("c", "x" * 40), line("d", "x")]
    async with desk(
        tmp_path, options=PATIENT, limiter=limiter, meter=meter, clock=clock, sleep=clock.sleep
    ) as one:
        one.books.tenants["key"] = tenant
        batch = await one.submit(sent, tenant)
        while (await one.batches.find(tenant, batch.id)).ended is None:
            clock.now += 5
            await asyncio.sleep(0.002)
        found = await one.result(batch, tenant=tenant)
        [error] = await one.result(batch, "errors", tenant=tenant)
    assert meter.close()
    assert [row["custom_id"] for row in found] == ["a", "b", "d"]
    assert (error["custom_id"], error["error"]["code"]) == ("c", "RATE_TOKEN_LIMIT_EXCEEDED")
    assert sorted(tokens for *_, tokens in bills(tmp_path)) == [3, 8, 10]


async def test_a_spent_month_fails_the_rest(tmp_path: Path) -> None:
    clock = Clock()
    tenant, limiter = limited(clock, monthly_tokens=100)
    options = replace(QUICK, requests=1)
    async with desk(tmp_path, options=options, limiter=limiter) as one:
        one.books.tenants["key"] = tenant
        batch = await one.ended(await one.submit(lines(16), tenant), tenant)
        found = await one.result(batch, tenant=tenant)
        errors = await one.result(batch, "errors", tenant=tenant)
    assert batch.status == "failed" and "month" in (batch.error or "")
    assert 0 < len(found) < 16 and len(found) + len(errors) == 16
    assert {row["error"]["code"] for row in errors} == {"RATE_MONTHLY_TOKEN_LIMIT_EXCEEDED"}


async def test_a_revoked_key_works_no_more(tmp_path: Path) -> None:
    tenant = replace(LOCAL, id="acme", key_id="key")
    async with desk(tmp_path) as one:
        batch = await one.ended(await one.submit(lines(5), tenant), tenant)
        errors = await one.result(batch, "errors", tenant=tenant)
    assert (batch.status, batch.tally.failed) == ("failed", 5)
    assert {row["error"]["code"] for row in errors} == {"AUTH_INVALID_API_KEY"}


async def test_cancelling_begins_nothing_more_and_keeps_what_is_done(tmp_path: Path) -> None:
    engine, meter = Held(), ledger(tmp_path)
    options = replace(QUICK, requests=1)
    async with desk(tmp_path, engine=engine, options=options, meter=meter) as one:
        batch = await one.submit(lines(20))
        await engine.asked.wait()
        assert (await one.batches.cancel(LOCAL, batch.id)).status == "cancelled"
        engine.go.set()
        while not (found := await one.result(batch)):
            await asyncio.sleep(0.002)
        again = await one.batches.cancel(LOCAL, batch.id)
    assert meter.close()
    assert engine.calls == len(found) == len(bills(tmp_path)) == 4  # the one piece that had begun
    assert (again.status, again.tally.completed) == ("cancelled", 4)


async def test_a_batch_that_is_not_done_in_time_expires_and_then_goes(tmp_path: Path) -> None:
    clock, engine = Clock(), Held()
    options = replace(PATIENT, requests=1, window_s=100, keep_s=50)
    async with desk(tmp_path, engine=engine, options=options, clock=clock) as one:
        batch = await one.submit(lines(20))
        assert batch.expires == clock.now + 100
        await engine.asked.wait()
        clock.now += 101
        ended = await one.ended(batch)
        assert (ended.status, ended.expires) == ("expired", clock.now + 50)
        engine.go.set()
        while len(await one.result(batch)) < 4:
            await asyncio.sleep(0.002)
        clock.now += 51
        folder = tmp_path / "batches" / batch.id
        while folder.exists():
            await asyncio.sleep(0.002)
        with pytest.raises(ResourceNotFound):
            await one.batches.find(LOCAL, batch.id)


async def test_another_tenants_batch_is_not_there(tmp_path: Path) -> None:
    other = replace(LOCAL, id="other")
    async with desk(tmp_path) as one:
        batch = await one.ended(await one.submit(lines(3)))
        assert await one.batches.listed(other, 10) == []
        for ask in (
            one.batches.find(other, batch.id),
            one.batches.cancel(other, batch.id),
            one.batches.result(other, batch.id, "output"),
            one.batches.find(LOCAL, "batch_0"),
        ):
            with pytest.raises(ResourceNotFound, match="no batch"):
                await ask


async def test_results_are_there_when_it_has_ended(tmp_path: Path) -> None:
    async with desk(tmp_path, start=False) as one:
        batch = await one.submit(lines(3))
        with pytest.raises(ResourceNotFound, match="pending"):
            await one.batches.result(LOCAL, batch.id, "output")


def left(folder: Path) -> list[str]:
    """What is in the batches' folder beside their database."""
    return sorted(name for name in os.listdir(folder / "batches") if "batches.db" not in name)


async def test_batches_are_bounded_and_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    options = replace(QUICK, lines=5, file_bytes=400, line_bytes=100, per_tenant=2)
    other = replace(LOCAL, id="other")
    async with desk(tmp_path, options=options, start=False) as one:
        for sent, error, words in (
            ([], InvalidInput, "no line"),
            ([b"\n \n"], InvalidInput, "no line"),
            (lines(6), InvalidInput, "more than the 5 lines"),
            ([line(0, "x" * 90)], BodyTooLarge, "line 1"),
            ([b"x" * 500], BodyTooLarge, "400 bytes"),
        ):
            with pytest.raises(error, match=words):
                await one.submit(sent)
        assert left(tmp_path) == []
        kept = [await one.submit(lines(2)) for _ in range(2)]
        with pytest.raises(LimitExceeded, match="2 unfinished"):
            await one.submit(lines(2))
        kept.append(await one.submit(lines(2), other))
        assert left(tmp_path) == sorted(batch.id for batch in kept)
        await one.batches.cancel(LOCAL, kept[0].id)
        await one.submit(lines(2))


async def test_what_no_line_could_do_is_refused_at_once(tmp_path: Path) -> None:
    narrow = replace(LOCAL, models=frozenset({"tasked"}), tasks=frozenset({"separation"}))
    async with desk(tmp_path, start=False) as one:
        for tenant, said, error in (
            (LOCAL, {"model": "nothing"}, ModelNotFound),
            (LOCAL, {"dimensions": 3}, InvalidInput),
            (LOCAL, {"embedding_type": "float99"}, InvalidInput),
            (narrow, {}, Forbidden),
            (narrow, {"model": "tasked"}, Forbidden),
        ):
            with pytest.raises(error):
                await one.submit(lines(2), tenant, **said)
        assert left(tmp_path) == []


async def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> object:
        async for chunk in written(lines(2)):
            yield chunk
        raise ConnectionResetError

    async with desk(tmp_path, start=False) as one:
        with pytest.raises(ConnectionResetError):
            await one.batches.submit(LOCAL, {"model": "toy"}, broken())  # type: ignore[arg-type]
        assert left(tmp_path) == []


async def test_what_a_kill_left_of_an_upload_goes_after_a_day_and_nothing_else(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, start=False) as one:
        kept = await one.submit(lines(2))
    root = tmp_path / "batches"
    torn, new, foreign = (root / name for name in ("batch_" + "0" * 32, "batch_" + "1" * 32, "own"))
    for folder in (torn, new, foreign):
        folder.mkdir()
        (folder / "input.jsonl").write_text("{")
    for folder in (torn, foreign, root / kept.id):
        os.utime(folder, (1, 1))
    async with desk(tmp_path) as one:
        await one.ended(kept)
        while torn.exists():
            await asyncio.sleep(0.002)
    assert left(tmp_path) == sorted([new.name, kept.id, "own"])


async def test_a_gateway_that_stops_finishes_what_is_under_way_and_another_goes_on(
    tmp_path: Path,
) -> None:
    engine, meter = Held(), ledger(tmp_path)
    options = replace(QUICK, requests=1, lease_s=1000)
    async with desk(tmp_path, engine=engine, options=options, meter=meter) as one:
        batch = await one.submit(lines(12))
        await engine.asked.wait()
        closing = asyncio.create_task(one.batches.stop(30))
        await asyncio.sleep(0)
        engine.go.set()
        await closing
    async with desk(tmp_path, options=options, meter=meter, start=False) as two:
        assert (await two.batches.find(LOCAL, batch.id)).tally.completed == 4
        two.batches.start()
        assert (await two.ended(batch)).tally.completed == 12
    assert meter.close()
    assert len(bills(tmp_path)) == 12
