"""The seams of `serving`, one hop away. Ray's errors are translated here and nowhere else."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, TypeAlias

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.flights import PackedVectors, pack_prepared, unpack_vectors
from deployments.pixels import PixelsLost, prepared_again, with_remedy
from deployments.suspects import Suspects
from serving.coalescing import Coalescer, Flight, Lane
from serving.engines import Engine
from serving.errors import EngineDied, Overloaded, PolyvecError, Unavailable
from serving.preparing import Preparer
from serving.telemetry import SILENT, Telemetry, metrics
from serving.telemetry.carrying import Carrier, carried
from serving.values import Image, Job, Pdf, Prepared, Text, TokenIds, Vectors, parts_of

__all__ = ["RemoteEngine", "RemotePreparer", "SplitPreparer", "TaskEngines", "translated"]

log = logging.getLogger("polyvec.remote")

_Asked: TypeAlias = tuple[Prepared, float, Carrier | None]
_Wanted: TypeAlias = tuple[Job, Carrier | None]

# By value up to here, through the object store beyond: gRPC between replicas refuses 4 MiB, and the
# store is cheaper from about there (measured by Ray's own transport, both ways).
_BY_VALUE_BYTES = 2 * 2**20
# References to objects cross by reference only: by value nobody would count them.
_BY_REFERENCE = _BY_VALUE_BYTES
_WEIGHT_BYTES = 8  # a token id and its weight
_CHECK_S = 2.0
# A text of so many characters takes a preprocessor's core some 15 ms.
_LONG_CHARACTERS = 32_768


def translated(error: BaseException) -> PolyvecError:
    """The error as one of ours, whatever Ray made of it. Its text never shows Ray's inside."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    match cause:
        case PolyvecError():
            return cause
        case BackPressureError():
            return Overloaded("every replica's queue is full", 1.0)
        case RayActorError() | DeploymentUnavailableError():
            return Unavailable("no replica is alive; one is being started", 2.0)
        case RayServeException():
            return Unavailable("the deployment is changing; try again", 1.0)
    log.error("unexpected error from a hop", exc_info=error)
    return PolyvecError("an internal error; the server's log has the details")


class _Hop:
    """A method of a deployment: by value when the payload is small, else by the object store."""

    def __init__(self, handle: DeploymentHandle[Any], method: str) -> None:
        self._small = handle.options(
            method_name=method,
            _by_reference=False,
            request_serialization="pickle",
            response_serialization="pickle",
        )
        self._large = handle.options(method_name=method, _by_reference=True)

    async def __call__(self, size: int, *args: object, adapter: str | None = None) -> Any:
        """The method's result; a cancelled caller cancels the call.

        Replicas that said they have `adapter` are preferred.
        """
        handle = self._small if size < _BY_VALUE_BYTES else self._large
        if adapter is not None:
            handle = handle.options(multiplexed_model_id=adapter)
        response: Any = handle.remote(*args)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except BaseException as error:
            if isinstance(error, RayActorError) or not isinstance(error, Exception):
                raise
            raise translated(error) from None


class RemoteEngine:
    """`Engine`, in a replica group. `width` is the bytes of a full vector, `row` of a token's.

    `model` is the public id for which `telemetry` is told of hops. A group that `sleeps` may have
    no replica, and to ask it how it is would start one. What wants one of `adapters` goes where
    that is loaded, and elsewhere only where those replicas are full.
    """

    def __init__(
        self,
        handle: DeploymentHandle[Any],
        lane: Lane,
        width: int,
        row: int = 0,
        *,
        telemetry: Telemetry = SILENT,
        model: str = "",
        sleeps: bool = False,
        adapters: Collection[str] = (),
    ) -> None:
        self._sleeps, self._died = sleeps, ""
        self._adapters = frozenset(adapters)
        self._handle, self._width, self._row = handle, width, row
        self._embed = _Hop(handle, "embed")
        self._check = handle.options(method_name="check", _by_reference=False)
        self._name = f"{os.getpid()}-{id(self):x}"
        self._alone = count()
        self._suspects: Suspects[_Asked, Vectors] = Suspects(
            lambda items: self._hop(items, f"alone-{next(self._alone)}"), _mark
        )
        self._drops: set[asyncio.Task[None]] = set()
        self._coalesced: Coalescer[_Asked, Vectors] = Coalescer(
            self._send,
            lane,
            weigh=lambda item: int(item[0].ids.size),
            kind=self._kind,
            drop=self._drop,
            left=telemetry.series(metrics.CALLS_PER_HOP).bind("embed", model),
        )

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        """See `Engine.embed`; shares its hop with whoever calls at the same time."""
        carrier = carried()
        try:
            return await self._embedded((prepared, deadline, carrier))
        except PixelsLost:
            again = await prepared_again(prepared)
            if again is None:
                raise
        log.warning("a preprocessor died with a request's images, which are prepared again")
        again = replace(again, tenant=prepared.tenant)
        return await self._embedded((again, deadline, carrier))

    async def check(self) -> None:
        """See `Engine.check`; `Unavailable` too where no replica answers within two seconds.

        It says then what the last replica died of.
        """
        if self._sleeps:
            return
        try:
            async with asyncio.timeout(_CHECK_S):
                await self._check.remote()
        except TimeoutError:
            raise Unavailable(self._died or "no replica answers yet") from None
        except Exception as error:
            found = translated(error)
            if self._died and isinstance(found, Unavailable):
                found = Unavailable(self._died)
            raise found from None
        self._died = ""

    async def close(self) -> None:
        """End the calls under way; the replicas are Serve's to stop."""
        await self._coalesced.close()

    async def _embedded(self, asked: _Asked) -> Vectors:
        return await self._suspects.alone(asked) or await self._coalesced(asked)

    async def _send(self, flight: Flight[_Asked, Vectors]) -> Sequence[Vectors | BaseException]:
        first = self._hop(flight.items, str(flight.number))
        return await self._suspects.outlive(flight.items, first)

    async def _hop(self, items: Sequence[_Asked], name: str) -> Sequence[Vectors | BaseException]:
        adapter = self._loadable(items[0])
        results = await self._hop_to(items, name, adapter)
        full = [at for at, result in enumerate(results) if isinstance(result, Overloaded)]
        if adapter is not None and full:
            again = await self._hop_to([items[at] for at in full], f"{name}-again", None)
            for at, result in zip(full, again, strict=True):
                results[at] = result
        return results

    async def _hop_to(
        self, items: Sequence[_Asked], name: str, adapter: str | None
    ) -> list[Vectors | BaseException]:
        packed = [pack_prepared(*item) for item in items]
        size = sum(self._size(prepared) for prepared, _, _ in items)
        flight = f"{self._name}-{name}"
        results: list[PackedVectors | PolyvecError]
        results = await self._embed(size, flight, packed, adapter=adapter)
        for result in results:
            if isinstance(result, EngineDied):
                self._died = result.message
        return [r if isinstance(r, PolyvecError) else unpack_vectors(r) for r in results]

    def _kind(self, item: _Asked) -> Hashable:
        return "images" if item[0].pixels else item[0].service_class, self._loadable(item)

    def _loadable(self, item: _Asked) -> str | None:
        adapter = item[0].adapter
        return adapter if adapter in self._adapters else None

    def _size(self, prepared: Prepared) -> int:
        """Bytes of the job and of its answer, whichever way they go."""
        if prepared.pixels:
            return _BY_REFERENCE
        tokens, output = prepared.ids.size, prepared.output
        size = 4 * tokens
        if output.dense:
            size += self._width * prepared.vectors
        if output.multi:
            size += self._row * tokens
        if output.sparse:
            size += _WEIGHT_BYTES * tokens
        return size

    def _drop(self, flight: Flight[_Asked, Vectors], index: int) -> None:
        # The router alone knows which replica has the flight, so all are told; only the one that
        # has it does anything. Callers go away seldom enough.
        async def tell() -> None:
            self._handle.broadcast("drop", f"{self._name}-{flight.number}", index)

        task = asyncio.create_task(tell())
        self._drops.add(task)
        task.add_done_callback(self._drops.discard)


class TaskEngines:
    """`Engine` over one replica group per adapter (`placement: per_task`)."""

    def __init__(self, engines: Mapping[str | None, Engine]) -> None:
        self._engines = dict(engines)

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        """See `Engine.embed`; the group is that of the job's task."""
        return await self._engines[prepared.task].embed(prepared, deadline)

    async def check(self) -> None:
        """See `Engine.check`: every group must answer."""
        await asyncio.gather(*(engine.check() for engine in self._engines.values()))

    async def close(self) -> None:
        """Close every group's engine."""
        await asyncio.gather(*(engine.close() for engine in self._engines.values()))


class RemotePreparer:
    """`Preparer`, in the Preprocessor deployment, for one model: `model`, by its public id."""

    def __init__(
        self,
        handle: DeploymentHandle[Any],
        lane: Lane,
        *,
        telemetry: Telemetry = SILENT,
        model: str = "",
    ) -> None:
        self._prepare = _Hop(handle, "prepare")
        self._suspects: Suspects[_Wanted, Prepared] = Suspects(
            self._hop, lambda wanted: hash((wanted[0].model, wanted[0].items))
        )
        # What has images flies alone, at once: no text waits for a download.
        self._coalesced: Coalescer[_Wanted, Prepared] = Coalescer(
            self._send,
            lane,
            weigh=lambda one: lane.capacity if _has_media(one[0]) else _letters(one[0]),
            left=telemetry.series(metrics.CALLS_PER_HOP).bind("preprocess", model),
        )

    async def prepare(self, job: Job) -> Prepared:
        """See `Preparer.prepare`; shares its hop with whoever calls at the same time."""
        wanted = (job, carried())
        prepared = await self._suspects.alone(wanted) or await self._coalesced(wanted)
        return with_remedy(prepared, lambda: self.prepare(job))

    async def _send(self, flight: Flight[_Wanted, Prepared]) -> Sequence[Prepared | BaseException]:
        return await self._suspects.outlive(flight.items, self._hop(flight.items))

    async def _hop(self, items: Sequence[_Wanted]) -> Sequence[Prepared | BaseException]:
        jobs = [job for job, _ in items]
        size = _BY_REFERENCE if any(map(_has_media, jobs)) else 4 * sum(map(_letters, jobs))
        results: list[Prepared | BaseException] = await self._prepare(size, list(items))
        return results


class SplitPreparer:
    """`Preparer`: short texts `here`, images, documents and very long texts `there`."""

    def __init__(self, here: Preparer, there: Preparer) -> None:
        self._here, self._there = here, there

    async def prepare(self, job: Job) -> Prepared:
        """See `Preparer.prepare`."""
        away = _has_media(job) or _letters(job) > _LONG_CHARACTERS
        return await (self._there if away else self._here).prepare(job)


def _mark(asked: _Asked) -> int:
    """The same for the same tokens; images are told apart by where they are."""
    prepared = asked[0]
    return hash((prepared.ids.tobytes(), prepared.adapter, *(id(p.array) for p in prepared.pixels)))


def _has_media(job: Job) -> bool:
    return any(type(part) not in (Text, TokenIds) for part in _parts(job))


def _letters(job: Job) -> int:
    return sum(len(getattr(part, "text", "")) for part in _parts(job))


def _parts(job: Job) -> Iterator[Text | TokenIds | Image | Pdf]:
    return (part for item in job.items for part in parts_of(item))
