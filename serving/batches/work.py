"""One batch, worked on by the one process that holds it: its pieces asked, billed, written down.

A piece ends in one of three ways: it is done, with every line in its output or among its errors; it
is cut in two, where something in it is refused or it is too much at once; or it is left as it was,
because the batch has ended, was lost, or this process stops.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import random

from serving.batches.asking import Asking, Place, Results
from serving.batches.batch import Batch, Piece, Status, Tally
from serving.batches.lines import Line, parse
from serving.batches.pieces import halved, lines_of
from serving.errors import (
    InvalidKey,
    LimitExceeded,
    MonthlyLimitExceeded,
    PolyvecError,
    Unavailable,
)
from serving.telemetry.logs import about

__all__ = ["Work"]

log = logging.getLogger(__name__)

_FIRST_S, _LONGEST_S = 0.5, 60.0
_LONG_S = 5.0
_LOOK_S = 0.01  # a meter syncs every 50 ms
_TOGETHER = 2  # failures on our side before lines are tried apart


class Work:
    """A batch that `holder` holds, and keeps while it works on it.

    `later` is when it is worth going on, by the place's clock, where `run` ended for a long wait.
    """

    def __init__(self, place: Place, batch: Batch, holder: str) -> None:
        self._place, self._batch, self._holder = place, batch, holder
        self._asking = Asking(place, batch)
        self._todo: deque[Piece] = deque()
        self._over = asyncio.Event()
        self._verdict: PolyvecError | None = None  # on every line that is left
        self.later = 0.0

    def stop(self) -> None:
        """Begin nothing more; what is under way is finished."""
        self._over.set()

    async def run(self) -> None:
        """Work until the batch has ended, is another's, or `stop`."""
        place, batch = self._place, self._batch
        self._todo.extend(await place.off(partial(place.store.pieces, batch.id, done=False)))
        renewing = asyncio.create_task(self._renew())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(place.options.requests, len(self._todo))):
                    group.create_task(self._worker())
        finally:
            renewing.cancel()
            with suppress(asyncio.CancelledError):
                await renewing
        if not self._over.is_set():
            verdict, now = self._verdict, place.clock()
            ended = replace(
                batch,
                status="failed" if verdict else "completed",
                error=verdict.message if verdict else None,
                ended=now,
                expires=now + place.options.keep_s,
            )
            await place.off(partial(place.store.end, ended, self._holder))

    async def _renew(self) -> None:
        """Keep the batch ours, until cancelled: what is under way may outlast `stop`."""
        place, lease_s = self._place, self._place.options.lease_s
        while True:
            await asyncio.sleep(lease_s / 3)
            until = place.clock() + lease_s
            renewal = partial(place.store.renew, self._batch.id, self._holder, until)
            try:
                self._heard(await place.off(renewal))
            except Unavailable as down:
                log.warning("%s: %s", self._batch.id, down.message)

    def _heard(self, status: Status | None) -> None:
        """The store has said how the batch stands; None where it is another's."""
        if status != "processing":
            self._over.set()

    async def _worker(self) -> None:
        while self._todo and not self._over.is_set():
            piece = self._todo.popleft()
            with about(f"{self._batch.id}-{piece.first}", self._batch.tenant):
                await self._do(piece)

    async def _do(self, piece: Piece) -> None:
        place = self._place
        raw = await place.off(partial(place.files.read, self._batch.id, piece))
        lines = [parse(line, number) for number, line in enumerate(lines_of(raw), piece.first)]
        tries = failures = 0
        while not self._over.is_set():
            error = self._verdict or await self._attempt(piece, lines)
            if error is None:
                return
            if isinstance(error, InvalidKey | MonthlyLimitExceeded):
                self._verdict = error
            else:
                failures += error.status >= 500 and not isinstance(error, Unavailable)
                wait_s = self._wait_s(error, tries, failures, piece.lines > 1)
                if wait_s is not None:
                    tries += 1
                    await self._rest(wait_s, error.status in (429, 503))
                    continue
                if piece.lines > 1:
                    await self._split(piece, raw)
                    return
            await self._settle(piece, self._asking.refused(lines, error), time.perf_counter())
            return

    def _wait_s(
        self, error: PolyvecError, tries: int, failures: int, several: bool
    ) -> float | None:
        """Seconds until the same may be asked again; None where that is in vain."""
        if isinstance(error, LimitExceeded):
            return error.retry_after_s
        backoff_s = min(_LONGEST_S, _FIRST_S * 2.0 ** min(tries, 32)) * (0.5 + random() / 2)
        if isinstance(error, Unavailable):
            return max(error.retry_after_s or 0.0, backoff_s)
        most = _TOGETHER if several else self._place.options.retries
        return backoff_s if error.status >= 500 and failures <= most else None

    async def _rest(self, seconds: float, patient: bool) -> None:
        """Wait so long, or until it is over; a long wait, where nothing is lost by it, ends `run`.

        Otherwise tenants whose quotas are spent would hold places that others could work in.
        """
        if patient and seconds > _LONG_S:
            self.later = max(self.later, self._place.clock() + seconds)
            self._over.set()
            return
        waiting = (
            asyncio.ensure_future(self._place.sleep(seconds)),
            asyncio.ensure_future(self._over.wait()),
        )
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()

    async def _split(self, piece: Piece, raw: bytes) -> None:
        """Go on with two pieces instead of one, in the order of their lines."""
        place, halves = self._place, halved(piece, raw)
        split = partial(place.store.split, self._batch.id, self._holder, halves)
        self._heard(await place.off(split))
        self._todo.extendleft(reversed(halves))

    async def _attempt(self, piece: Piece, lines: Sequence[Line]) -> PolyvecError | None:
        """Ask for a piece once, and settle it; or what went wrong."""
        began = time.perf_counter()
        try:
            await self._settle(piece, await self._asking.ask(lines), began)
        except PolyvecError as known:
            return known
        except Exception:
            log.exception("a piece failed")
            return PolyvecError("something failed on our side; the log has it under this id")
        return None

    async def _settle(self, piece: Piece, results: Results, began: float) -> None:
        """Keep the results, bill them, and write down that the piece is done, in this order."""
        place, accounts = self._place, self._place.service.accounts
        kept = await self._kept(piece, results)
        for bill in results.bills:
            await accounts.answered(bill, time.perf_counter() - began, results.stages)
        billed = time.time()
        while not place.books.kept(billed):  # noqa: ASYNC110 - a sync of the meter tells nobody
            await asyncio.sleep(_LOOK_S)
        done = partial(place.store.done, self._batch.id, self._holder, kept)
        self._heard(await place.off(done))

    async def _kept(self, piece: Piece, results: Results) -> Piece:
        """The piece with what became of it, which is on the disk."""
        place = self._place
        output = [results.output[number] for number in sorted(results.output)]
        errors = [results.errors[number] for number in sorted(results.errors)]
        tokens = sum(bill.usage.total_tokens for bill in results.bills)
        keep = partial(place.files.keep, self._batch.id, piece.first, output, errors)
        return replace(
            piece,
            result=await place.off(keep),
            tally=Tally(len(output), len(errors), tokens),
            output=sum(map(len, output)),
            errors=sum(map(len, errors)),
        )
