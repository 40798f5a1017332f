"""A piece's lines put to the service: read, asked for as one request, and billed one by one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from serving.batches.batch import Batch, BatchOptions
from serving.batches.files import Files
from serving.batches.lines import Line, Reader, Reading, answered, failed, fields_of
from serving.batches.store import Store
from serving.batches.threads import Threads
from serving.calls import Call
from serving.errors import BodyTooLarge, InvalidInput, PolyvecError
from serving.jobs import plan
from serving.service import Service
from serving.tenants import Tenant, allow
from serving.values import Answer, Ask, Job, Stages

__all__ = ["ENDPOINT", "Asking", "Books", "Place", "Results"]

ENDPOINT = "/v1/batch/embeddings"
"""What requests of batches are counted under."""


class Books(Protocol):
    """What a batch asks of the accounts beside what each of its calls does."""

    def recall(self, tenant: str, key_id: str) -> Tenant:
        """The tenant of a key that was shown before, as both are now. Raises `InvalidKey`."""
        ...

    def kept(self, since: float) -> bool:
        """Whether what was answered by then, a `time.time()`, is billed though we are killed."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where batches are worked on, and with what. `clock` is a `time.time`."""

    service: Service
    books: Books
    reader: Reader
    store: Store
    files: Files
    options: BatchOptions
    off: Threads
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(slots=True)
class Results:
    """What became of a piece's lines: the lines of its files by number, and a bill for each."""

    output: dict[int, bytes] = field(default_factory=dict)
    errors: dict[int, bytes] = field(default_factory=dict)
    bills: list[Call] = field(default_factory=list)
    stages: Stages = field(default_factory=Stages)


@dataclass(frozen=True, slots=True)
class _Asked:
    line: Line
    reading: Reading
    job: Job


class Asking:
    """The requests of one batch."""

    def __init__(self, place: Place, batch: Batch) -> None:
        self._place, self._batch = place, batch
        self._options: Mapping[str, object] = orjson.loads(batch.options)

    async def ask(self, lines: Sequence[Line]) -> Results:
        """Every line's answer or error, by one request; nothing is billed yet.

        Raises what refuses or fails all of it, `BodyTooLarge` where fewer lines would have to do.
        """
        results = Results()
        tenant = self._place.books.recall(self._batch.tenant, self._batch.key_id)
        every = self._sorted(tenant, lines, results)
        if not every:
            return results
        call = self._call(f"{self._batch.id}-{lines[0].number}", tenant)
        answers = await self._run(call, [asked.reading.ask for asked in every])
        results.stages = answers[-1].stages
        for asked, answer in zip(every, answers, strict=True):
            body = await asked.reading.write(answer)
            results.output[asked.line.number] = answered(self._batch.id, asked.line, body)
            results.bills.append(self._bill(tenant, asked, answer))
        return results

    def refused(self, lines: Sequence[Line], error: PolyvecError) -> Results:
        """Every line with its own error, or with this one."""
        results = Results()
        for line in lines:
            own = line.body if isinstance(line.body, PolyvecError) else error
            results.errors[line.number] = failed(self._batch.id, line, own)
        return results

    async def _run(self, call: Call, asks: Sequence[Ask]) -> Sequence[Answer]:
        """The answers. The call's own end is told where it has none; else its lines' are, later."""
        service, began = self._place.service, time.perf_counter()
        try:
            return await service.run(call, asks)
        except asyncio.CancelledError:
            service.accounts.gone(call, time.perf_counter() - began)
            raise
        except Exception as error:
            service.accounts.failed(call, error, time.perf_counter() - began)
            raise

    def _sorted(self, tenant: Tenant, lines: Sequence[Line], results: Results) -> list[_Asked]:
        """What is asked. What cannot be is among the errors."""
        every: list[_Asked] = []
        for line in lines:
            try:
                every.append(self._read(tenant, line))
            except PolyvecError as error:
                results.errors[line.number] = failed(self._batch.id, line, error)
        inputs = sum(len(asked.job.items) for asked in every)
        if len(lines) > 1 and inputs > self._place.options.piece_inputs:
            raise BodyTooLarge(f"{inputs} inputs are too many for one request of a batch")
        return every

    def _read(self, tenant: Tenant, line: Line) -> _Asked:
        if isinstance(line.body, PolyvecError):
            raise line.body
        service, model = self._place.service, self._batch.model
        reading = self._place.reader(fields_of(line.body, self._options))
        if reading.ask.model != model:
            raise InvalidInput(
                f"model is {reading.ask.model!r}; all lines of this batch are for {model!r}",
                "model",
            )
        job = plan(service.catalog.spec(model), reading.ask, service.max_inputs, "bulk")
        allow(tenant, model, job.task)
        return _Asked(line, reading, job)

    def _call(self, identifier: str, tenant: Tenant) -> Call:
        deadline = time.monotonic() + self._place.options.request_timeout_s
        return Call(identifier, ENDPOINT, tenant, deadline, "bulk")

    def _bill(self, tenant: Tenant, asked: _Asked, answer: Answer) -> Call:
        """What a line owes. Its key is the line's, so that one that is asked again owes nothing."""
        identifier = f"{self._batch.id}-{asked.line.number}"
        bill = self._call(identifier, tenant)
        bill.idempotency_key = identifier
        bill.model = self._batch.model
        bill.planned([asked.job])
        bill.usage, bill.admitted = answer.usage, True
        bill.items, width = answer.vectors.shape
        bill.dimensions = width or self._place.service.catalog.spec(bill.model).dimensions
        return bill
