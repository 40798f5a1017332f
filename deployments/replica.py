"""An engine with an address: one model in one process, asked in flights."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from deployments.flights import PackedPrepared, PackedVectors, pack_vectors, unpack_prepared
from deployments.loopback import bind_as_asked
from deployments.pixels import fetched
from serving.engines import EngineOptions, open_engine
from serving.errors import PolyvecError
from serving.models.catalog import Entry
from serving.models.loading import load_spec

__all__ = ["Replica"]

# For an item that was dropped: nobody reads it.
_GONE = PolyvecError("the caller has gone")

log = logging.getLogger("polyvec.replica")


class Replica:
    """Loads the model of `entry` into `engine` and embeds until it is stopped."""

    def __init__(self, entry: Entry, engine: str, options: EngineOptions) -> None:
        bind_as_asked()
        self._engine = open_engine(engine, load_spec(entry), options)
        self._flights: dict[str, list[asyncio.Task[PackedVectors | PolyvecError]]] = {}
        self._queued_tokens = 0

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
        prepared, deadline = unpack_prepared(item)
        self._queued_tokens += prepared.ids.size
        try:
            if prepared.pixels:
                prepared = await fetched(prepared, deadline)
            return pack_vectors(await self._engine.embed(prepared, deadline))
        except PolyvecError as error:
            return error
        except Exception:
            log.exception("the engine failed")
            return PolyvecError("an internal error; the server's log has the details")
        finally:
            self._queued_tokens -= prepared.ids.size

    async def drop(self, flight: str, index: int) -> None:
        """Forget one item of a flight, if it is here: its caller has gone."""
        if tasks := self._flights.get(flight):
            tasks[index].cancel()

    async def check(self) -> None:
        """See `Engine.check`."""
        await self._engine.check()

    async def check_health(self) -> None:
        """Serve's probe: a replica whose engine is dead is replaced."""
        await self._engine.check()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Tokens waiting or being embedded: the load that autoscaling looks at."""
        return {"queued_tokens": float(self._queued_tokens)}

    async def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None:
            await engine.close()
