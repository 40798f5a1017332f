"""An engine with more adapters than it has places for: loaded when asked for, held while in use.

An input whose adapter has no place waits here, before the engine's queue, and no other input waits
for it. Which adapter comes and goes is decided in `_places`.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol, TypeAlias

from serving.batching import Room
from serving.engines import AdapterOptions, EngineOptions
from serving.engines._calls import another, late
from serving.engines._places import Move, Places
from serving.errors import PolyvecError, Unavailable
from serving.models.own import own_adapter
from serving.models.spec import Adapter, ModelSpec
from serving.values import Prepared, Vectors

__all__ = ["Adaptable", "Multiplexed", "multiplexed"]

_AGAIN_S = 30.0  # before an adapter that could not be loaded is tried again
_WAITING_TOKENS = 2**20

_log = logging.getLogger(__name__)

_Waiting: TypeAlias = "asyncio.Future[None]"


class Adaptable(Protocol):
    """An `Engine` whose adapters can be exchanged while it runs."""

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        """See `Engine.embed`."""
        ...

    async def exchange(self, gone: str | None, come: Adapter | None) -> None:
        """Drop one adapter and load another. `ModelUnavailable` where that does not fit; the first
        is dropped all the same. No input under way has an adapter that goes."""
        ...

    async def check(self) -> None:
        """See `Engine.check`."""
        ...

    async def close(self) -> None:
        """See `Engine.close`."""
        ...


def multiplexed(
    engine: Adaptable,
    spec: ModelSpec,
    options: EngineOptions,
    told: Callable[[Sequence[str]], None],
) -> Multiplexed:
    """That engine with the spec's loadable adapters, all of them at once where nobody says."""
    adapters = options.adapters or AdapterOptions(len(spec.loadable))
    return Multiplexed(
        engine,
        spec.loadable,
        Places(adapters.resident, adapters.loads_per_minute),
        lambda source: own_adapter(spec, source, adapters.rank),
        Room(options.queue_tokens or _WAITING_TOKENS),
        told,
    )


class Multiplexed:
    """An `Engine` over one that has `places` for adapters; `fetch` finds an adapter by its name.

    So many tokens wait for adapters at most as in `room`. `told` hears which adapters have a place,
    the coming ones too, whenever that changes.
    """

    def __init__(
        self,
        engine: Adaptable,
        names: Sequence[str],
        places: Places,
        fetch: Callable[[str], Adapter],
        room: Room,
        told: Callable[[Sequence[str]], None] = lambda names: None,
    ) -> None:
        self._engine, self._fetch, self._told = engine, fetch, told
        self._names = frozenset(names)
        self._places = places
        self._room = room
        self._waiting: dict[str, dict[_Waiting, None]] = {}  # by name, the first to wait first
        self._failed: dict[str, tuple[float, PolyvecError]] = {}
        self._loads: set[asyncio.Task[None]] = set()
        self._going: dict[str, asyncio.Task[None]] = {}  # by name: the load that drops it
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        """See `Engine.embed`; `ModelUnavailable` where the adapter cannot be loaded."""
        name = prepared.adapter
        if name is None or name not in self._names:
            return await self._engine.embed(prepared, deadline)
        if not self._places.hold(name):
            await self._wait(name, prepared, deadline)
        try:
            return await self._engine.embed(prepared, deadline)
        finally:
            self._places.release(name)
            if self._waiting:
                self._advance()

    async def check(self) -> None:
        """See `Engine.check`."""
        await self._engine.check()

    async def close(self) -> None:
        """See `Engine.close`."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for name in list(self._waiting):
            self._refuse(name, Unavailable("the engine is closed"))
        await self._engine.close()
        await asyncio.gather(*self._loads, return_exceptions=True)

    async def _wait(self, name: str, prepared: Prepared, deadline: float) -> None:
        """Until the adapter is held by this caller."""
        if self._closed:
            raise Unavailable("the engine is closed")
        if (failure := self._failure(name)) is not None:
            raise failure
        tokens = max(prepared.ids.size, 1)
        self._room.enter(tokens, prepared.service_class, self._retry_after)
        future: _Waiting = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, {})[future] = None
        self._advance()
        try:
            async with asyncio.timeout(deadline - monotonic()):
                await asyncio.shield(future)
        except BaseException as error:
            if not self._forget(name, future) and not future.exception():
                self._places.release(name)
            self._advance()
            if isinstance(error, TimeoutError):
                raise late() from None
            raise
        finally:
            self._room.leave(tokens, prepared.service_class)

    def _forget(self, name: str, future: _Waiting) -> bool:
        """Whether the caller still waited."""
        waiting = self._waiting.get(name, {})
        if future not in waiting:
            return False
        del waiting[future]
        if not waiting:
            del self._waiting[name]
        return True

    def _advance(self) -> None:
        """Load what can be loaded, and let those go on who can."""
        now = monotonic()
        while (move := self._places.next(self._waiting, now)) is not None:
            # In a context of its own: it belongs to no request.
            load = self._load(move, self._going.get(move.come))
            task = asyncio.get_running_loop().create_task(load, context=contextvars.Context())
            if move.gone is not None:
                self._going[move.gone] = task
            self._loads.add(task)
            task.add_done_callback(self._loads.discard)
            self._told(self._places.names)
        for name in list(self._waiting):
            while name in self._waiting and self._places.hold(name):
                future = next(iter(self._waiting[name]))
                self._forget(name, future)
                future.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting and (seconds := self._places.later(now)) is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._advance)

    async def _load(self, move: Move, before: asyncio.Task[None] | None) -> None:
        """`before` drops what comes here: what was fetched more quickly must not come before."""
        name, gone = move
        come: Adapter | None = None
        try:
            try:
                come = await asyncio.to_thread(self._fetch, name)
            finally:
                if before is not None:
                    await asyncio.wait([before])
                await self._engine.exchange(gone, come)
        except Exception as error:
            if not isinstance(error, PolyvecError):
                _log.exception("the adapter %s could not be loaded", name)
                error = PolyvecError("an adapter could not be loaded; the server's log says why")
            self._failed[name] = monotonic() + _AGAIN_S, error
            self._places.lost(name)
            self._refuse(name, error)
            self._told(self._places.names)
        else:
            self._places.loaded(name, monotonic())
        if gone is not None and self._going.get(gone) is asyncio.current_task():
            del self._going[gone]
        if not self._closed:
            self._advance()

    def _failure(self, name: str) -> PolyvecError | None:
        """Why that adapter is not tried again yet."""
        until, error = self._failed.get(name, (0.0, None))
        if error is None or monotonic() < until:
            return error and another(error)
        del self._failed[name]
        return None

    def _refuse(self, name: str, error: PolyvecError) -> None:
        for future in self._waiting.pop(name, {}):
            future.set_exception(another(error))

    def _retry_after(self, _: int) -> float:
        return max(self._places.load_s * len(self._waiting), 1.0)
