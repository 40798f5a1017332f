"""An engine with an address: one model in one process, asked in flights."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence

from ray import serve
from ray.serve._private.common import ReplicaID, RequestRoutingInfo
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException

from deployments.autoscaling import Load
from deployments.flights import PackedPrepared, PackedVectors, pack_vectors, unpack_prepared
from deployments.loopback import bind_as_asked
from deployments.measuring import Observing, finish, telemetry_of
from deployments.pixels import fetched
from serving.engines import EngineOptions, open_engine
from serving.errors import EngineDied, PolyvecError, Unavailable
from serving.models.catalog import Entry
from serving.models.loading import load_spec
from serving.telemetry import metrics, traces
from serving.telemetry.carrying import taken_up

__all__ = ["Replica"]

# For an item that was dropped: nobody reads it.
_GONE = PolyvecError("the caller has gone")

_LAST_WORDS_S = 0.1  # for what its calls are told to leave the process

log = logging.getLogger("polyvec.replica")


def _own_id() -> ReplicaID | None:
    """Who this process is to Serve; None outside of it."""
    try:
        return serve.get_replica_context().replica_id
    except RayServeException:
        return None


def _tell_routers(adapters: Sequence[str]) -> None:
    """Have Serve's routers prefer this replica for those: its own multiplexing is not used, since
    that takes adapters from whoever uses them."""
    own = _own_id()
    if own is None:
        return
    found = RequestRoutingInfo(replica_id=own, multiplexed_model_ids=list(adapters))
    client = _get_global_client()
    assert client is not None  # it raises where there is none
    client.record_request_routing_info(found)


class Replica:
    """Loads the model of `entry` into `engine` and embeds until it is stopped."""

    def __init__(
        self,
        entry: Entry,
        engine: str,
        options: EngineOptions,
        observing: Observing | None = None,
    ) -> None:
        bind_as_asked()
        spec = load_spec(entry)
        self._telemetry = telemetry_of("replica", [spec.id], observing or Observing())
        self._ready = self._telemetry.series(metrics.MODEL_READY).bind(spec.id)
        self._traced: traces.Attributes = {"gen_ai.request.model": spec.id}
        self._engine = open_engine(engine, spec, options, self._telemetry, _tell_routers)
        self._flights: dict[str, list[asyncio.Task[PackedVectors | PolyvecError]]] = {}
        self._load = Load()
        self._ending: asyncio.Task[None] | None = None

    async def embed(
        self, flight: str, items: Sequence[PackedPrepared]
    ) -> list[PackedVectors | PolyvecError]:
        """A result or an error of ours for every item; one that fails, fails alone."""
        tasks = [asyncio.create_task(self._one(item)) for item in items]
        self._flights[flight] = tasks
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
            return [_GONE if task.cancelled() else task.result() for task in tasks]
        finally:
            del self._flights[flight]

    async def _one(self, item: PackedPrepared) -> PackedVectors | PolyvecError:
        prepared, deadline, carrier = unpack_prepared(item)
        parent, tokens = taken_up(carrier), prepared.ids.size
        try:
            with (
                traces.span("embed", self._traced, parent) as span,
                self._load.holding(tokens, prepared.service_class),
            ):
                if prepared.pixels:
                    prepared = await fetched(prepared, deadline)
                vectors = await self._engine.embed(prepared, deadline)
                queue_s, infer_s = vectors.queue_s, vectors.infer_s
                span.set({"tokens": tokens, "queue_s": queue_s, "infer_s": infer_s})
                return pack_vectors(vectors)
        except PolyvecError as error:
            if isinstance(error, EngineDied):
                self._end()
            return error
        except Exception:
            log.exception("the engine failed")
            return PolyvecError("an internal error; the server's log has the details")

    def _end(self) -> None:
        """Have this process end, so that Serve sends nothing more here and starts another one."""
        if self._ending is None and _own_id() is not None:
            self._ready(0)
            self._ending = asyncio.create_task(self._ended())

    async def _ended(self) -> None:
        await asyncio.sleep(_LAST_WORDS_S)
        await finish(self._telemetry)
        os._exit(1)

    async def drop(self, flight: str, index: int) -> None:
        """Forget one item of a flight, if it is here: its caller has gone."""
        if tasks := self._flights.get(flight):
            tasks[index].cancel()

    async def check(self) -> None:
        """See `Engine.check`."""
        await self._engine.check()

    async def check_health(self) -> None:
        """Serve's probe: a replica whose engine is dead is replaced."""
        try:
            await self._engine.check()
        except Unavailable:
            self._ready(0)
            raise
        self._ready(1)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """The load that autoscaling looks at: see `Load`."""
        return self._load.report()

    async def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None:
            await engine.close()
            self._ready(0)
            await finish(self._telemetry)
