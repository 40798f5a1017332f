"""The seams one hop away: Ray's errors translated, a dead replica's calls sent again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorUnavailableError, RayTaskError
from ray.serve.exceptions import BackPressureError

from deployments.flights import PackedVectors, pack_vectors, unpack_prepared
from deployments.pixels import Elsewhere, PixelsLost
from deployments.remote import RemoteEngine, RemotePreparer, SplitPreparer, translated
from serving.coalescing import Lane
from serving.errors import (
    EngineCrashed,
    EngineDied,
    InputTooLarge,
    Overloaded,
    PolyvecError,
    Unavailable,
)
from serving.telemetry import Telemetry, logs
from serving.telemetry.prometheus import PrometheusBackend
from serving.values import (
    Fused,
    Image,
    Item,
    Job,
    Output,
    Pdf,
    Pixels,
    Prepared,
    Text,
    Usage,
    Vectors,
)
from tests.scraping import shown
from tests.services import CountingPreparer


class Response:
    """What a handle gives: awaitable, and it can be cancelled."""

    def __init__(self, work: Any) -> None:
        self._task = asyncio.ensure_future(work)
        self.cancelled = False

    def __await__(self) -> Any:
        return self._task.__await__()

    def cancel(self) -> None:
        self.cancelled = True
        self._task.cancel()


class Handle:
    """A deployment's handle whose `embed` is a function of the flight's packed items."""

    def __init__(self, embed: Callable[[list[Any]], list[Any]]) -> None:
        self._embed = embed
        self.calls: list[int] = []
        self.by_reference: list[bool] = []
        self.broadcasts: list[tuple[Any, ...]] = []
        self.down: list[Exception] = []  # what a check raises
        self.hold = asyncio.Event()
        self.hold.set()

    def options(self, **options: Any) -> Handle:
        one = object.__new__(Handle)
        one.__dict__ = {**self.__dict__, "_options": options}
        return one

    def remote(self, *words: Any) -> Response:
        if not words:
            return Response(self._checked())
        items = words[-1]

        async def work() -> list[Any]:
            self.calls.append(len(items))
            self.by_reference.append(self.__dict__["_options"]["_by_reference"])
            await self.hold.wait()
            return self._embed(items)

        return Response(work())

    async def _checked(self) -> None:
        for why in self.down:
            raise why

    def broadcast(self, *words: Any) -> None:
        self.broadcasts.append(words)


def prepared(*ids: int) -> Prepared:
    return Prepared(np.array(ids, np.int32), np.array([len(ids)], np.int32), Usage(len(ids)))


def summed(items: list[Any]) -> list[PackedVectors | PolyvecError]:
    """Every item's vector is `[sum of its ids, 1]`; a sum of 13 does not fit."""
    results: list[PackedVectors | PolyvecError] = []
    for item in items:
        total = int(unpack_prepared(item)[0].ids.sum())
        array = np.array([[total, 1]], np.float32)
        results.append(
            InputTooLarge("13", "input") if total == 13 else pack_vectors(Vectors(array))
        )
    return results


def engine(handle: Handle, width: int = 8) -> RemoteEngine:
    return RemoteEngine(handle, Lane(1, 1000), width)  # type: ignore[arg-type]


async def test_vectors_and_errors_come_back_to_their_own_callers() -> None:
    handle = Handle(summed)
    remote = engine(handle)
    later = time.monotonic() + 5
    calls = [remote.embed(prepared(*ids), later) for ids in ((1, 2), (6, 7), (5,))]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert handle.calls == [3]
    assert isinstance(results[1], InputTooLarge)
    assert [r.array[0, 0] for r in results if isinstance(r, Vectors)] == [3, 5]


async def test_a_call_is_sent_once_more_when_its_replica_dies() -> None:
    deaths = iter([ActorUnavailableError("gone", b"x" * 16)])

    def embed(items: list[Any]) -> list[Any]:
        for death in deaths:
            raise death
        return summed(items)

    handle = Handle(embed)
    vectors = await engine(handle).embed(prepared(4), time.monotonic() + 5)
    assert vectors.array[0, 0] == 4
    assert handle.calls == [1, 1]


async def test_a_call_that_has_killed_two_replicas_is_not_sent_again() -> None:
    def embed(items: list[Any]) -> list[Any]:
        raise ActorUnavailableError("gone", b"x" * 16)

    handle = Handle(embed)
    with pytest.raises(EngineCrashed, match="2 replicas died"):
        await engine(handle).embed(prepared(4), time.monotonic() + 5)
    assert handle.calls == [1, 1]


async def test_an_engine_that_died_is_why_nothing_is_ready() -> None:
    died = iter([[EngineDied("the engine has died: why", 1.0, True)]])
    handle = Handle(lambda items: next(died, None) or summed(items))
    remote = engine(handle)
    assert (await remote.embed(prepared(4), time.monotonic() + 5)).array[0, 0] == 4
    gone = ActorUnavailableError("gone", b"x" * 16)
    handle.down.append(gone)
    with pytest.raises(Unavailable, match="has died: why"):
        await remote.check()
    handle.down.clear()
    await remote.check()
    handle.down.append(gone)
    with pytest.raises(Unavailable, match="no replica is alive"):
        await remote.check()


async def test_large_answers_go_by_reference() -> None:
    handle = Handle(summed)
    await engine(handle, width=8).embed(prepared(1), time.monotonic() + 5)
    await engine(handle, width=2**22).embed(prepared(1), time.monotonic() + 5)
    assert handle.by_reference == [False, True]


@pytest.mark.parametrize(
    ("output", "by_reference"),
    [
        (Output(), False),
        (Output(dense=False, multi=True), True),
        (Output(dense=False, sparse=True), False),
    ],
)
async def test_the_size_of_every_output_counts(output: Output, by_reference: bool) -> None:
    handle = Handle(summed)
    remote = RemoteEngine(handle, Lane(1, 1000), 8, row=2**20)  # type: ignore[arg-type]
    await remote.embed(replace(prepared(1, 2), output=output), time.monotonic() + 5)
    assert handle.by_reference == [by_reference]


def pictured(again: Callable[[], Awaitable[Prepared]] | None) -> Prepared:
    """Prepared with an image that is elsewhere."""
    place: Any = Elsewhere("a reference", 0, again)  # type: ignore[arg-type]
    return replace(prepared(1, 2), pixels=(Pixels(0, 1, place),))


async def test_images_go_by_reference_and_not_with_texts() -> None:
    handle = Handle(summed)
    remote, later = engine(handle), time.monotonic() + 5
    await asyncio.gather(*(remote.embed(one, later) for one in (prepared(4), pictured(None))))
    assert sorted(handle.by_reference) == [False, True]


async def test_a_job_whose_images_were_lost_is_prepared_once_more() -> None:
    asked = []

    async def again() -> Prepared:
        asked.append(1)
        return prepared(9)

    def embed(items: list[Any]) -> list[Any]:
        return summed(items) if asked else [PixelsLost("gone") for _ in items]

    vectors = await engine(Handle(embed)).embed(pictured(again), time.monotonic() + 5)
    assert vectors.array[0, 0] == 9
    assert asked == [1]


async def test_images_lost_twice_are_unavailable() -> None:
    async def again() -> Prepared:
        return pictured(again)

    handle = Handle(lambda items: [PixelsLost("gone") for _ in items])
    with pytest.raises(Unavailable, match="gone"):
        await engine(handle).embed(pictured(again), time.monotonic() + 5)
    assert handle.calls == [1, 1]


def job(*items: Item) -> Job:
    return Job("m", items)


def numbered(items: list[tuple[Job, None]]) -> list[Prepared]:
    return [pictured(None) if type(job.items[0]) is Image else prepared(1) for job, _ in items]


async def test_jobs_with_images_leave_alone_and_by_reference() -> None:
    handle = Handle(numbered)
    remote = RemotePreparer(handle, Lane(1, 1000))  # type: ignore[arg-type]
    jobs = (job(Text("a")), job(Image("x")), job(Text("b")), job(Image("y")))
    await asyncio.gather(*map(remote.prepare, jobs))
    assert sorted(handle.calls) == [1, 1, 2]
    assert sorted(handle.by_reference) == [False, True, True]


async def test_what_comes_back_with_images_can_be_prepared_again() -> None:
    handle = Handle(numbered)
    remote = RemotePreparer(handle, Lane(1, 1000))  # type: ignore[arg-type]
    place: Any = (await remote.prepare(job(Image("x")))).pixels[0].array
    assert len((await place.again()).pixels) == 1
    assert handle.calls == [1, 1]


@pytest.mark.parametrize(
    ("item", "away"),
    [
        (Text("a"), False),
        (Text("a" * 30_000), False),
        (Text("a" * 40_000), True),
        (Image("x"), True),
        (Pdf("x"), True),
        (Fused((Text("a"), Image("x"))), True),
    ],
)
async def test_short_texts_stay_and_the_rest_goes_away(item: Item, away: bool) -> None:
    here, there = CountingPreparer(), CountingPreparer()
    await SplitPreparer(here, there).prepare(job(item))
    assert (len(here.jobs), len(there.jobs)) == (1 - away, away)


async def test_the_replicas_are_told_of_a_caller_that_has_gone() -> None:
    handle = Handle(summed)
    handle.hold.clear()
    remote = engine(handle)
    later = time.monotonic() + 5
    calls = [asyncio.create_task(remote.embed(prepared(i), later)) for i in (1, 2)]
    await asyncio.sleep(0.01)
    calls[0].cancel()
    await asyncio.sleep(0.01)
    handle.hold.set()
    assert (await calls[1]).array[0, 0] == 2
    assert [(words[0], words[2]) for words in handle.broadcasts] == [("drop", 0)]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InputTooLarge("x", "input"), InputTooLarge),
        (BackPressureError(1, 1), Overloaded),
        (ActorUnavailableError("gone", b"x" * 16), Unavailable),
        (KeyError("inside"), PolyvecError),
    ],
)
def test_rays_errors_become_ours(error: Exception, kind: type[PolyvecError]) -> None:
    assert type(translated(error)) is kind


def test_what_went_wrong_inside_is_not_told_to_callers() -> None:
    wrapped = RayTaskError("f", "Traceback: /secret/path", KeyError("secret"))
    assert "secret" not in translated(wrapped).message


async def test_calls_that_leave_together_are_told_by_hop_and_model() -> None:
    telemetry = Telemetry(PrometheusBackend())
    lane, later = Lane(1, 1000), time.monotonic() + 5
    handle: Any = Handle(summed)
    remote = RemoteEngine(handle, lane, 8, telemetry=telemetry, model="m")
    await asyncio.gather(*(remote.embed(prepared(n), later) for n in (1, 2, 3)))
    handle = Handle(numbered)
    preparer = RemotePreparer(handle, lane, telemetry=telemetry, model="m")
    await asyncio.gather(*(preparer.prepare(job(one)) for one in (Text("a"), Text("b"))))
    found = shown(telemetry)
    assert found["polyvec_calls_per_hop_sum", "embed", "m"] == 3
    assert found["polyvec_calls_per_hop_count", "embed", "m"] == 1
    assert found["polyvec_calls_per_hop_sum", "m", "preprocess"] == 2


async def test_every_call_crosses_with_its_own_request() -> None:
    crossed: list[Any] = []

    def embed(items: list[Any]) -> list[PackedVectors | PolyvecError]:
        crossed.extend(unpack_prepared(item)[2] for item in items)
        return summed(items)

    def prepare(items: list[Any]) -> list[Prepared]:
        crossed.extend(carrier for _, carrier in items)
        return numbered(items)

    handle: Any = Handle(prepare)
    remote, preparer = engine(Handle(embed)), RemotePreparer(handle, Lane(1, 1000))

    async def ask(name: str) -> None:
        with logs.about(name, f"of {name}"):
            await remote.embed(prepared(1), time.monotonic() + 5)
            await preparer.prepare(job(Text("a")))

    await asyncio.gather(*map(ask, ("a", "b")))
    assert crossed == [("a", "of a", ""), ("b", "of b", "")] * 2
