"""Where batches are handed in and asked for, and the tasks of a gateway that work on them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import orjson

from serving.batches.asking import Books, Place
from serving.batches.batch import Batch, BatchOptions
from serving.batches.files import Files, Kind, new_id
from serving.batches.lines import Reader
from serving.batches.store import Store
from serving.batches.threads import Threads
from serving.batches.work import Work
from serving.errors import BodyTooLarge, InvalidConfig, ResourceNotFound, Unavailable
from serving.jobs import plan
from serving.metering.sinks import state_folder
from serving.service import Service
from serving.tenants import Tenant, allow

__all__ = ["Batches"]

log = logging.getLogger(__name__)

_THREADS = 4
_ABANDONED_S = 86_400.0
_DATABASE = "batches.db"


class Batches:
    """The batches of a folder. After `start`, this process works on them too, until `stop`.

    `reader` reads a line's body in the words of the wire. Raises `InvalidConfig` where the folder
    cannot be used; methods raise `Unavailable` where it cannot be later.
    """

    def __init__(
        self,
        service: Service,
        books: Books,
        reader: Reader,
        options: BatchOptions,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        root = Path(options.folder) if options.folder else state_folder() / "batches"
        try:
            files = Files(root)
            store = Store(root / _DATABASE)
        except (OSError, Unavailable) as wrong:
            raise InvalidConfig(f"batches.folder cannot be used: {wrong}") from wrong
        off = Threads(_THREADS)
        self._place = Place(service, books, reader, store, files, options, off, clock, sleep)
        self._tasks: list[asyncio.Task[None]] = []
        self._working: set[Work] = set()
        self._news, self._closing = asyncio.Event(), False

    @property
    def options(self) -> BatchOptions:
        """The numbers that bound a batch."""
        return self._place.options

    def start(self) -> None:
        """Work on what there is, in tasks of the running event loop."""
        work = [asyncio.create_task(self._work()) for _ in range(self.options.at_once)]
        self._tasks = [*work, asyncio.create_task(self._tidy())]

    async def stop(self, timeout_s: float = 0.0) -> None:
        """Begin nothing more, let what is under way be finished for so long, and give it back.

        Batches can still be handed in and asked for.
        """
        self._closing = True
        self._news.set()
        for work in self._working:
            work.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._tasks = []

    async def close(self) -> None:
        """Stop at once, and let go of the folder."""
        await self.stop()
        self._place.off.close()
        self._place.store.close()

    async def submit(
        self, tenant: Tenant, options: Mapping[str, object], chunks: AsyncIterator[bytes]
    ) -> Batch:
        """A new batch of the lines that `chunks` are, each with `options` where it has no others.

        Raises what a request with those options would, `LimitExceeded`, `BodyTooLarge` or
        `InvalidInput`; then nothing is left of it.
        """
        place, bounds = self._place, self.options
        model = self._checked(tenant, options)
        await place.off(partial(place.store.check, tenant.id, bounds.per_tenant))
        identifier = new_id()
        try:
            await self._receive(identifier, chunks)
            pieces = await place.off(partial(place.files.pieces, identifier, bounds))
            now = place.clock()
            batch = Batch(
                identifier,
                tenant.id,
                tenant.key_id,
                model,
                orjson.dumps({**options, "model": model}),
                sum(piece.lines for piece in pieces),
                now,
                now + bounds.window_s,
            )
            await place.off(partial(place.store.add, batch, pieces, bounds.per_tenant))
        except BaseException:
            await place.off(partial(place.files.remove, identifier))
            raise
        self._news.set()
        return batch

    async def find(self, tenant: Tenant, identifier: str) -> Batch:
        """The tenant's batch of that id; `ResourceNotFound` for any other."""
        found = await self._place.off(partial(self._place.store.find, identifier, tenant.id))
        if found is None:
            raise ResourceNotFound(f"there is no batch {identifier[:80]!r}, or none any more")
        return found

    async def listed(self, tenant: Tenant, most: int) -> list[Batch]:
        """The tenant's batches, the newest first."""
        return await self._place.off(partial(self._place.store.listed, tenant.id, most))

    async def cancel(self, tenant: Tenant, identifier: str) -> Batch:
        """End the batch, if it has not ended: nothing more is begun. Raises what `find` does."""
        now = self._place.clock()
        ending = (identifier, tenant.id, now, now + self.options.keep_s)
        await self._place.off(partial(self._place.store.cancel, *ending))
        return await self.find(tenant, identifier)

    async def result(
        self, tenant: Tenant, identifier: str, kind: Kind
    ) -> tuple[int, AsyncIterator[bytes]]:
        """The output or the errors of a batch that has ended: their size, and the bytes.

        Raises what `find` does, for one that has not ended too.
        """
        batch = await self.find(tenant, identifier)
        if batch.ended is None:
            raise ResourceNotFound(
                f"{identifier} is {batch.status}; its {kind} will be there once it has ended"
            )
        place = self._place
        pieces = await place.off(partial(place.store.pieces, identifier, done=True))
        sizes = {piece.result or "": getattr(piece, kind) for piece in pieces}
        return sum(sizes.values()), self._stream(identifier, sizes, kind)

    def _checked(self, tenant: Tenant, options: Mapping[str, object]) -> str:
        """The id of the model, where a request with these options would be taken."""
        service = self._place.service
        ask = self._place.reader({**options, "input": ""}).ask
        allow(tenant, ask.model, None)
        job = plan(service.catalog.spec(ask.model), ask, service.max_inputs, "bulk")
        allow(tenant, ask.model, job.task)
        return ask.model

    async def _receive(self, identifier: str, chunks: AsyncIterator[bytes]) -> None:
        place, most, size = self._place, self.options.file_bytes, 0
        file = await place.off(partial(place.files.begin, identifier))
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > most:
                    raise BodyTooLarge(f"the lines have more than the {most} bytes of a batch")
                await place.off(partial(place.files.write, file, chunk))
            await place.off(partial(place.files.finish, identifier, file))
        finally:
            file.close()

    async def _stream(
        self, identifier: str, sizes: Mapping[str, int], kind: Kind
    ) -> AsyncIterator[bytes]:
        for name, size in sizes.items():
            if size:
                chunks = self._place.files.chunks(identifier, name, kind)
                while chunk := await self._place.off(partial(next, chunks, b"")):
                    yield chunk

    async def _work(self) -> None:
        """One batch after another."""
        while not self._closing:
            self._news.clear()
            try:
                if await self._one():
                    continue
            except Unavailable as down:
                log.warning("no batch can be worked on: %s", down.message)
            if not self._closing:
                await self._pause()

    async def _one(self) -> bool:
        """Work on the next batch, if there is one."""
        place, holder = self._place, secrets.token_hex(8)
        claim = partial(place.store.claim, holder, place.clock(), self.options.lease_s)
        batch = await place.off(claim)
        if batch is None:
            return False
        work = Work(place, batch, holder)
        self._working.add(work)
        if self._closing:
            work.stop()
        try:
            await work.run()
        except Exception:  # the lease is left to run out, so that others come before the next try
            log.exception("the work on %s was broken off", batch.id)
        except asyncio.CancelledError:
            await place.off(partial(place.store.release, batch.id, holder, 0.0))
            raise
        else:
            await place.off(partial(place.store.release, batch.id, holder, work.later))
        finally:
            self._working.discard(work)
        return True

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self.options.poll_s):
                await self._news.wait()
        except TimeoutError:
            pass

    async def _tidy(self) -> None:
        """End and forget what it is time for."""
        place, fresh = self._place, True
        while not self._closing:
            try:
                now = place.clock()
                gone = await place.off(partial(place.store.sweep, now, self.options.keep_s))
                if fresh:
                    known = await place.off(place.store.known)
                    old = partial(place.files.orphans, known, now - _ABANDONED_S)
                    gone += await place.off(old)
                    fresh = False
                for identifier in gone:
                    await place.off(partial(place.files.remove, identifier))
            except Unavailable as down:
                log.warning("batches cannot be tidied: %s", down.message)
            await self._pause()
