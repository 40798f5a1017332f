"""The road from a request to its vectors: plan, prepare, lease tokens, embed. No I/O of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from serving.engines import Engine
from serving.errors import DeadlinePassed, PolyvecError, Unavailable
from serving.jobs import plan
from serving.limits.gate import Gate
from serving.models.catalog import Catalog
from serving.models.spec import ModelSpec
from serving.preparing import Preparer
from serving.values import Answer, Ask, Stages

__all__ = ["Served", "Service"]


@dataclass(frozen=True, slots=True)
class Served:
    """A model and the two seams that serve it, here or a hop away."""

    spec: ModelSpec
    preparer: Preparer
    engine: Engine


class Service:
    """Every model of a gateway, by public id."""

    def __init__(self, served: Mapping[str, Served], gate: Gate, max_inputs: int) -> None:
        self._served = dict(served)
        self._gate = gate
        self.max_inputs = max_inputs
        self._draining = False
        self.catalog = Catalog([one.spec for one in self._served.values()])

    async def embed(self, ask: Ask, deadline: float) -> Answer:
        """Vectors for every item of `ask`, before `deadline` (a `time.monotonic()`).

        Refusals are raised before anything is spent; `DeadlinePassed` and `Unavailable` after.
        """
        if self._draining:
            raise Unavailable("this gateway is stopping; another one answers", 1.0)
        served = self._served[self.catalog.spec(ask.model).id]
        job = plan(served.spec, ask, self.max_inputs)
        with self._gate.request():
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    started = time.perf_counter()
                    prepared = await served.preparer.prepare(job)
                    ready = time.perf_counter()
                    with self._gate.tokens(prepared.usage.total_tokens):
                        vectors = await served.engine.embed(prepared, deadline)
            except TimeoutError as late:
                raise DeadlinePassed("the request's time ran out before it was embedded") from late
        done = time.perf_counter()
        stages = Stages(ready - started, vectors.queue_s, vectors.infer_s, done - ready)
        return Answer(
            vectors.array, prepared.usage, stages, vectors.multi, vectors.sparse, prepared.tokens
        )

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
        """Close every engine."""
        await asyncio.gather(*(one.engine.close() for one in self._served.values()))


async def _reason(engine: Engine) -> str | None:
    try:
        await engine.check()
    except Unavailable as why:
        return why.message
    except PolyvecError as why:
        return f"{why.code}: {why.message}"
    return None
