"""An engine over a plain function: asyncio on one side, one thread on the other.

The thread builds the model, and nothing else ever touches it. Whenever it is free it takes the next
batch, with whatever waits at that moment; results go back to each caller's own event loop.
A batch that fails, fails its own callers; one that does not fit memory is halved and tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate
from threading import Condition, Event, Thread
from time import monotonic
from typing import Protocol, TypeAlias

import numpy as np

from serving.batching import Batch, Queue, Row, Ticket
from serving.engines._calls import (
    Call,
    Input,
    Rest,
    Results,
    Settled,
    admitted,
    another,
    deliver,
    late,
    send,
    settle,
    shaped,
)
from serving.errors import EngineDied, InputTooLarge, PolyvecError, Unavailable
from serving.models.spec import Adapter, ModelSpec
from serving.telemetry import SILENT, Telemetry
from serving.telemetry.engines import BatchMetrics, watch_queue
from serving.values import Floats, Output, Prepared, Vectors

__all__ = ["STUCK_S", "Broken", "Compute", "OutOfMemory", "ThreadedEngine"]

STUCK_S = 120.0
"""A batch under way for longer than this means that the engine hangs."""

_log = logging.getLogger(__name__)


class OutOfMemory(Exception):
    """The batch does not fit memory; a smaller one may."""


class Broken(Exception):
    """`Broken(reason)`: the model cannot be used any more, by anyone."""


class Compute(Protocol):
    """A model, for one thread. Its methods raise `OutOfMemory` or `Broken`."""

    def __call__(self, inputs: Sequence[Input]) -> Results:
        """Inputs, shortest first, to their vectors and whatever else they want."""
        ...

    def finish(self, means: Floats) -> Floats:
        """Means of token states `[vectors, hidden]` to `[vectors, dimensions]`."""
        ...

    def exchange(self, gone: str | None, come: Adapter | None) -> None:
        """Drop one adapter and load another; `ModelUnavailable` where that does not fit."""
        ...


_Row: TypeAlias = Row[Call]
_Outcome: TypeAlias = tuple[Sequence[_Row], Results | PolyvecError]
_Errand: TypeAlias = tuple[str | None, Adapter | None, asyncio.Future[None]]


class ThreadedEngine:
    """An `Engine`. `build` runs in the thread; the constructor returns when it has."""

    def __init__(
        self,
        spec: ModelSpec,
        build: Callable[[], Compute],
        *,
        batch_tokens: int,
        queue_tokens: int,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._spec = spec
        self._batches = BatchMetrics(telemetry, spec.id)
        self._adapters = frozenset(one.name for one in spec.adapters)
        self._queue: Queue[Call] = Queue(batch_tokens, queue_tokens)
        self._errands: deque[_Errand] = deque()
        self._ready = Condition()
        self._idle = False
        self._refusal: Unavailable | None = None
        self._batch_began: float | None = None
        self._compute: Compute | None = None
        failure: list[BaseException] = []
        built = Event()
        self._thread = Thread(
            target=self._work, args=(build, built, failure), name=f"engine {spec.id}", daemon=True
        )
        self._thread.start()
        built.wait()
        if failure:
            raise failure[0]
        watch_queue(telemetry, spec.id, self._standing)

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        """See `Engine.embed`."""
        lengths = admitted(self._spec, self._adapters, prepared)
        output, now = prepared.output, monotonic()
        width = output.dimensions or self._spec.dimensions if output.dense else 0
        array = np.empty((prepared.vectors if lengths else 0, width), np.float32)
        loop = asyncio.get_running_loop()
        ends = list(accumulate(lengths))
        call = Call(prepared, loop, loop.create_future(), ends, array, len(lengths))
        if prepared.spans is not None or prepared.pixels or _more(output):
            call.rest = Rest(prepared, ends)
        if not lengths:
            return call.vectors(self._spec, array, call.began)
        with self._ready:
            self._refuse_if_unable()
            rows, whose = [length or 1 for length in lengths], prepared.tenant
            ticket = self._queue.add(call, rows, prepared.service_class, now, deadline, whose)
            if self._idle:  # woken after this turn of the loop: all that is ready now goes together
                loop.call_soon(self._wake)
        timer = loop.call_later(max(deadline - now, 0.0), self._expire, ticket)
        try:
            return await call.future
        finally:
            timer.cancel()
            if ticket.rows:
                with self._ready:
                    self._queue.drop(ticket)

    async def exchange(self, gone: str | None, come: Adapter | None) -> None:
        """See `Adaptable.exchange`; between two batches."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._ready:
            self._refuse_if_unable()
            self._errands.append((gone, come, future))
            self._ready.notify()
        await future

    async def check(self) -> None:
        """See `Engine.check`."""
        self._refuse_if_unable()
        if not self._thread.is_alive():
            raise Unavailable(f"the engine of {self._spec.id} has stopped")
        began = self._batch_began
        if began is not None and (seconds := monotonic() - began) > STUCK_S:
            message = f"the engine of {self._spec.id} has been in one batch for {seconds:.0f} s"
            raise Unavailable(message)

    async def close(self) -> None:
        """See `Engine.close`."""
        self._stop(Unavailable(f"the engine of {self._spec.id} is closed"))
        await asyncio.to_thread(self._thread.join)

    def _refuse_if_unable(self) -> None:
        if self._refusal is not None:
            raise another(self._refusal)

    def _standing(self) -> tuple[float, int]:
        with self._ready:
            oldest, tokens = self._queue.oldest, self._queue.tokens
        return 0.0 if oldest is None else monotonic() - oldest, tokens

    def _wake(self) -> None:
        with self._ready:
            self._ready.notify()

    def _expire(self, ticket: Ticket[Call]) -> None:
        with self._ready:
            waited = ticket.rows > 0
            self._queue.drop(ticket)
        if waited:
            deliver([(ticket.owner, late())])

    def _stop(self, reason: Unavailable) -> None:
        """Refuse what waits and whatever comes; the thread ends after the batch under way."""
        with self._ready:
            self._refusal = self._refusal or reason
            waiting, errands = self._queue.clear(), list(self._errands)
            self._errands.clear()
            self._ready.notify()
        for _, _, future in errands:
            settle(future, another(self._refusal))
        send([(call, another(self._refusal)) for call in waiting])

    def _work(
        self, build: Callable[[], Compute], built: Event, failure: list[BaseException]
    ) -> None:
        try:
            self._compute = build()
        except BaseException as error:  # raised in the constructor, in the caller's thread
            failure.append(error)
            return
        finally:
            built.set()
        batch: Batch[Call] = Batch()
        try:
            while (batch := self._next()).rows:
                self._serve(batch.rows)
        except BaseException as error:
            _log.exception("the engine of %s has died", self._spec.id)
            reason = str(error) if isinstance(error, Broken) else type(error).__name__
            message = f"the engine of {self._spec.id} has died: {reason}"
            self._stop(EngineDied(message))
            died = EngineDied(message, 1.0, True)
            send([(call, died) for call in {row.ticket.owner for row in batch.rows}])
        finally:
            self._compute = None  # frees the model

    def _next(self) -> Batch[Call]:
        """The next batch, when there is one; an empty one when the engine has to stop."""
        while True:
            with self._ready:
                self._batch_began = None
                errand = self._errands.popleft() if self._errands else None
                batch = Batch() if errand else self._queue.take(monotonic())
                if errand or batch.rows:
                    self._batch_began = monotonic()
                elif not batch.late:
                    if self._refusal is not None:
                        return batch
                    self._idle = True
                    self._ready.wait()
                    self._idle = False
            if errand is not None:
                self._exchange(*errand)
            send([(call, late()) for call in batch.late])
            if batch.rows:
                return batch

    def _exchange(
        self, gone: str | None, come: Adapter | None, future: asyncio.Future[None]
    ) -> None:
        assert self._compute is not None
        self._adapters = frozenset(one for one in self._adapters if one != gone)
        try:
            self._compute.exchange(gone, come)
        except Exception as error:
            settle(future, error)
            if isinstance(error, Broken):
                raise
        else:
            self._adapters |= {come.name} if come else set()
            settle(future)

    def _serve(self, rows: Sequence[_Row]) -> None:
        began = monotonic()
        for ticket in {row.ticket for row in rows}:
            call = ticket.owner
            call.began = call.began or began
            call.queue_s = began - ticket.arrival
        outcomes = self._run(rows)
        ended = monotonic()
        settled: list[Settled] = []
        for some, outcome in outcomes:
            if isinstance(outcome, PolyvecError):
                settled += self._failed(some, outcome)
            else:
                settled += self._done(some, outcome, ended)
        send(settled)
        tokens = sum(row.length for row in rows)
        self._batches.ran(len(rows), tokens, len(rows) * rows[-1].length - tokens)
        with self._ready:
            self._queue.served(tokens, ended - began)

    def _run(self, rows: Sequence[_Row]) -> list[_Outcome]:
        assert self._compute is not None
        try:
            return [(rows, self._compute([row.ticket.owner.input(row.place) for row in rows]))]
        except OutOfMemory:
            pass  # tried again below, where the failed try's frames no longer hold its memory
        except PolyvecError as error:
            return [(rows, error)]
        except Broken:
            raise
        except Exception:
            _log.exception("a batch of %d inputs failed", len(rows))
            return [(rows, PolyvecError("the model failed on this input"))]
        if len(rows) == 1:
            message = f"an input of {rows[0].length} tokens does not fit this engine's memory"
            return [(rows, InputTooLarge(message, "input"))]
        half = len(rows) // 2
        _log.warning("a batch of %d inputs did not fit memory; halved", len(rows))
        return self._run(rows[:half]) + self._run(rows[half:])

    def _done(self, rows: Sequence[_Row], results: Results, ended: float) -> list[Settled]:
        """Hand each caller its rows; the callers that now have all of theirs."""
        cut: dict[Output, Floats] = {}
        places: dict[Call, tuple[list[int], list[int]]] = {}
        for at, row in enumerate(rows):
            to, of = places.setdefault(row.ticket.owner, ([], []))
            to.append(row.place)
            of.append(at)
        settled: list[Settled] = []
        for call, (to, of) in places.items():
            prepared, output = call.prepared, call.prepared.output
            if output.dense and prepared.spans is None:
                if output not in cut:
                    cut[output] = shaped(self._spec, results.array, output)
                call.array[to] = cut[output][of]
            if call.rest is not None:
                for place, at in zip(to, of, strict=True):
                    call.rest.take(place, results.parts[at])
            call.left -= len(to)
            if not call.left:
                settled.append((call, self._answer(call, ended)))
        return settled

    def _answer(self, call: Call, ended: float) -> Vectors | PolyvecError:
        """The answer to a call that has all it needs."""
        array = call.array
        if call.rest is not None and (means := call.rest.means()) is not None:
            assert self._compute is not None
            try:
                array = shaped(self._spec, self._compute.finish(means), call.prepared.output)
            except Broken:
                raise
            except Exception:
                _log.exception("the last step of %d vectors failed", len(means))
                return PolyvecError("the model failed on this input")
        return call.vectors(self._spec, array, ended)

    def _failed(self, rows: Sequence[_Row], error: PolyvecError) -> list[Settled]:
        tickets = {row.ticket for row in rows}
        with self._ready:
            for ticket in tickets:
                self._queue.drop(ticket)
        return [(ticket.owner, error) for ticket in tickets]


def _more(output: Output) -> bool:
    """Whether something else than a dense vector is wanted."""
    return output.multi or output.sparse or not output.dense
