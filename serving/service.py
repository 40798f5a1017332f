"""The road from a request to its vectors: plan, prepare, lease tokens, embed. No I/O of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from serving.accounts import Accounts
from serving.calls import Call
from serving.engines import Engine
from serving.errors import DeadlinePassed, PolyvecError, Unavailable
from serving.jobs import plan
from serving.limits.gate import Gate
from serving.models.catalog import Catalog
from serving.models.spec import ModelSpec
from serving.preparing import Preparer
from serving.tenants import allow
from serving.values import Answer, Ask, Job, Output, Prepared, Stages, Vectors

__all__ = ["Served", "Service"]


@dataclass(frozen=True, slots=True)
class Served:
    """A model and the two seams that serve it, here or a hop away."""

    spec: ModelSpec
    preparer: Preparer
    engine: Engine


class Service:
    """Every model of a gateway, by public id. `accounts` has who may ask, and what they owe."""

    def __init__(
        self,
        served: Mapping[str, Served],
        gate: Gate,
        max_inputs: int,
        accounts: Accounts | None = None,
    ) -> None:
        self._served = dict(served)
        self._gate = gate
        self.max_inputs = max_inputs
        self.accounts = accounts or Accounts()
        self._draining = False
        self.catalog = Catalog([one.spec for one in self._served.values()])

    async def embed(self, call: Call, ask: Ask) -> Answer:
        """Vectors for every item of `ask`, before the call's deadline.

        Refusals are raised before anything is spent; `DeadlinePassed` and `Unavailable` after.
        """
        [answer] = await self.run(call, [ask])
        return answer

    async def run(self, call: Call, asks: Sequence[Ask]) -> list[Answer]:
        """Several asks of one model as one request: charged together, embedded side by side."""
        served, jobs = self._planned(call, asks)
        spec = served.spec
        self.accounts.arrive(call)
        with self._gate.request():
            try:
                async with asyncio.timeout(call.deadline - time.monotonic()):
                    started = time.perf_counter()
                    prepared = [
                        replace(await served.preparer.prepare(job), tenant=call.tenant.id)
                        for job in jobs
                    ]
                    ready = time.perf_counter()
                    call.prepared(prepared)
                    with self._gate.tokens(call.usage.total_tokens):
                        async with self.accounts.charge(call) as admission:
                            call.decision, call.admitted = admission.decision, True
                            vectors = await _embed(served.engine, prepared, call.deadline)
            except TimeoutError as late:
                raise DeadlinePassed("the request's time ran out before it was embedded") from late
        call.dimensions = vectors[-1].array.shape[1] or spec.dimensions
        prepare_s, embed_s = ready - started, time.perf_counter() - ready
        return [
            Answer(
                found.array,
                one.usage,
                Stages(prepare_s, found.queue_s, found.infer_s, embed_s),
                found.multi,
                found.sparse,
                one.tokens,
                one.spans,
            )
            for one, found in zip(prepared, vectors, strict=True)
        ]

    async def prepare(self, call: Call, ask: Ask) -> Prepared:
        """The token ids of `ask`, before the call's deadline: nothing is charged nor embedded.

        Its texts too, where `ask.output.tokens`, of every token. Errors are those of `embed`.
        """
        served, [job] = self._planned(call, [replace(ask, output=Output())])
        with self._gate.request():
            try:
                async with asyncio.timeout(call.deadline - time.monotonic()):
                    return await served.preparer.prepare(replace(job, output=ask.output))
            except TimeoutError as late:
                raise DeadlinePassed("the request's time ran out") from late

    def _planned(self, call: Call, asks: Sequence[Ask]) -> tuple[Served, list[Job]]:
        """What the call asks for, once it is known to be valid and allowed."""
        if self._draining:
            raise Unavailable("this gateway is stopping; another one answers", 1.0)
        served = self._served[self.catalog.spec(asks[0].model).id]
        spec, tenant = served.spec, call.tenant
        call.model = spec.id
        allow(tenant, spec.id, None)
        jobs = [plan(spec, ask, self.max_inputs, call.wanted_class) for ask in asks]
        for job in jobs:
            allow(tenant, spec.id, job.task)
        call.planned(jobs)
        return served, jobs

    @property
    def under_way(self) -> int:
        """Requests that have been taken and not answered."""
        return self._gate.under_way

    def stop_taking(self) -> None:
        """Refuse every request from now on with `Unavailable`; those under way are finished."""
        self._draining = True

    async def unready(self) -> dict[str, str]:
        """Model id to the reason why it does not answer; empty when every model does."""
        if self._draining:
            return dict.fromkeys(self._served, "the gateway is stopping")
        return await self.failing()

    async def failing(self) -> dict[str, str]:
        """Model id to the reason why its engine cannot answer, draining or not."""
        reasons = await asyncio.gather(*(_reason(one.engine) for one in self._served.values()))
        return {name: why for name, why in zip(self._served, reasons, strict=True) if why}

    async def close(self) -> None:
        """Close every engine, and the accounts."""
        await asyncio.gather(*(one.engine.close() for one in self._served.values()))
        await self.accounts.close()


async def _embed(
    engine: Engine, prepared: Sequence[Prepared], deadline: float
) -> Sequence[Vectors]:
    if len(prepared) == 1:
        return [await engine.embed(prepared[0], deadline)]
    tasks = [asyncio.ensure_future(engine.embed(one, deadline)) for one in prepared]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _reason(engine: Engine) -> str | None:
    try:
        await engine.check()
    except Unavailable as why:
        return why.message
    except PolyvecError as why:
        return f"{why.code}: {why.message}"
    return None
