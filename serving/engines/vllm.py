"""vLLM's pooling runner in this process: its engine core and workers are processes of their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import accumulate
from threading import Lock
from time import monotonic

import numpy as np
import torch

from serving.batching import Room, Turns, retry_after_s
from serving.engines import EngineOptions
from serving.engines._calls import Rest, admitted, late, shaped
from serving.engines._hardware import chosen_device
from serving.engines._pooling import head
from serving.engines._threaded import STUCK_S
from serving.engines._vllm.arguments import BATCH_TOKENS
from serving.engines._vllm.backbones import BACKBONES, foreign, read_config, refusal
from serving.engines._vllm.core import Core, How
from serving.engines._vllm.inputs import Asked, asked, checked, pad_token, part, vocabulary
from serving.engines._vllm.packing import Answer
from serving.errors import EngineDied, InvalidConfig, ModelUnavailable, PolyvecError, Unavailable
from serving.models.spec import Adapter, ModelSpec
from serving.telemetry import SILENT, Telemetry
from serving.telemetry.engines import watch_queue
from serving.values import Floats, Output, Prepared, ServiceClass, Vectors
from serving.vectors.matryoshka import unit

__all__ = ["VllmEngine", "load", "unsuited"]

_QUEUED_BATCHES = 64

_log = logging.getLogger(__name__)


def load(spec: ModelSpec, options: EngineOptions, telemetry: Telemetry = SILENT) -> VllmEngine:
    """The model, loaded and warm.

    `InvalidConfig` where vLLM cannot run it or has no such option.
    """
    if (reason := refusal(spec)) is not None:
        raise InvalidConfig(f"{reason}; the torch engine runs it")
    began = monotonic()
    engine = VllmEngine(spec, options, telemetry)
    _log.info("vLLM has loaded %s in %.0f s", spec.id, monotonic() - began)
    return engine


def unsuited(spec: ModelSpec, options: EngineOptions) -> str | None:
    """Why the engine `auto` is not this one, in one sentence; None where it is."""
    if chosen_device(options).type != "cuda":
        return "vLLM is worth its start and its memory on a GPU, and there is none here"
    if find_spec("vllm") is None:
        return "vLLM is not installed (the extra gpu)"
    return refusal(spec)


class VllmEngine:
    """An `Engine`; the constructor returns when the model is loaded."""

    def __init__(
        self, spec: ModelSpec, options: EngineOptions, telemetry: Telemetry = SILENT
    ) -> None:
        config = read_config(spec)
        self._backbone = backbone = BACKBONES[str(config["model_type"])]
        self._spec = spec
        self._pad, self._vocabulary = pad_token(config), vocabulary(config)
        self._cacheable = backbone.causal and spec.pooling.modes == ("last",)
        self._adapters = frozenset(one.name for one in spec.adapters)
        self._head = head(spec.path, spec.heads, torch.device("cpu"))
        self._lock = Lock()
        self._turns: dict[ServiceClass, Turns] = {"interactive": Turns(), "bulk": Turns()}
        self._served = 0
        self._busy_since = self._moved = 0.0
        self._refusal: str | None = None
        self._jobs: dict[asyncio.Task[Vectors], float] = {}
        self._core = Core(spec, options, backbone, telemetry)
        self._room = Room(
            options.queue_tokens
            or _QUEUED_BATCHES * (options.batch_tokens or max(BATCH_TOKENS.values()))
        )
        watch_queue(telemetry, spec.id, self._standing)

    @property
    def unfinished(self) -> int:
        """How many inputs the engine core has that are not answered."""
        return self._core.unfinished

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        """See `Engine.embed`."""
        lengths = admitted(self._spec, self._adapters, prepared)
        self._refuse_if_unable()
        if not lengths:
            return self._vectors(prepared, Rest(prepared, []), [], [], monotonic())
        ids = prepared.ids
        if ids.size and not 0 <= ids.min() <= ids.max() < self._vocabulary:
            # vLLM would look it up all the same, and die of it.
            raise PolyvecError(f"a token id is none of the {self._vocabulary} of {self._spec.id}")
        with self._taken(sum(length or 1 for length in lengths), prepared.service_class):
            work = self._core.run(self._job(prepared, lengths, deadline))
            return await asyncio.wrap_future(work)

    async def exchange(self, gone: str | None, come: Adapter | None) -> None:
        """See `Adaptable.exchange`."""
        self._refuse_if_unable()
        self._adapters -= {gone}
        reason = come and foreign(self._spec, self._backbone, come)
        work = self._core.run(self._core.exchange(gone, None if reason else come))
        await asyncio.wrap_future(work)
        if reason:
            raise ModelUnavailable(f"{reason}; the torch engine runs it")
        self._adapters |= {come.name} if come else set()

    async def check(self) -> None:
        """See `Engine.check`."""
        self._refuse_if_unable()
        if self._room.tokens and (seconds := monotonic() - self._moved) > STUCK_S:
            message = f"the engine of {self._spec.id} has answered nothing for {seconds:.0f} s"
            raise Unavailable(message)

    async def close(self) -> None:
        """See `Engine.close`. What is in the engine is given up: vLLM cannot say what has begun."""
        if self._refusal is None:
            self._refusal = f"the engine of {self._spec.id} is closed"
            await asyncio.wrap_future(self._core.run(self._give_up()))
        await asyncio.to_thread(self._core.stop)

    def _standing(self) -> tuple[float, int]:
        """Of all that is not answered: vLLM does not say what has begun."""
        now = monotonic()
        return now - min(tuple(self._jobs.values()), default=now), self._room.tokens

    def _refuse_if_unable(self) -> None:
        if self._refusal is not None:
            raise Unavailable(self._refusal)
        if (died := self._core.died) is not None:
            raise EngineDied(died)

    @contextmanager
    def _taken(self, tokens: int, service_class: ServiceClass) -> Iterator[None]:
        """Room in the queue for so many tokens. `Overloaded`; an empty queue takes any job."""
        with self._lock:
            if not self._room.tokens:
                self._busy_since = self._moved = monotonic()
                self._served = 0
            self._room.enter(tokens, service_class, self._retry_after)
        try:
            yield
        finally:
            with self._lock:
                self._room.leave(tokens, service_class)
                self._served += tokens

    def _retry_after(self, too_many: int) -> float:
        """Seconds until there is room, at the rate of tokens since the queue was last empty."""
        return retry_after_s(too_many, self._served, monotonic() - self._busy_since)

    async def _job(self, prepared: Prepared, lengths: Sequence[int], deadline: float) -> Vectors:
        """In the core's loop: every input of a job at once; vLLM puts them into its steps."""
        if (left := deadline - (now := monotonic())) <= 0:
            raise late()
        job = asyncio.current_task()
        assert job is not None
        self._jobs[job] = now
        job.add_done_callback(_noticed)
        ends = list(accumulate(lengths))
        rest = Rest(prepared, ends)
        wanted = asked(prepared, rest, ends, self._pad, now)
        tasks = [asyncio.create_task(self._one(prepared, one)) for one in wanted]
        try:
            async with asyncio.timeout(left):
                answers = await asyncio.gather(*tasks)
        except TimeoutError:
            raise late() from None
        except asyncio.CancelledError:
            if self._refusal is not None:
                raise Unavailable(self._refusal) from None
            raise
        finally:
            del self._jobs[job]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self._vectors(prepared, rest, wanted, answers, now)

    async def _one(self, prepared: Prepared, one: Asked) -> Answer:
        cached = self._cacheable and one.wish.resumable
        turns = self._turns[prepared.service_class]
        turn = turns.next(prepared.tenant, len(one.ids))
        how = How(prepared.adapter, prepared.service_class == "bulk", turn, cached)
        reply = await self._core.ask(one.prompt, one.wish, how)
        turns.reached(turn)
        self._moved = monotonic()
        return checked(one, reply.row, reply.ids, cached, self._spec)

    async def _give_up(self) -> None:
        for job in self._jobs:
            job.cancel()

    def _vectors(
        self,
        prepared: Prepared,
        rest: Rest,
        wanted: Sequence[Asked],
        answers: Sequence[Answer],
        sent: float,
    ) -> Vectors:
        """A job's answers put together."""
        output = prepared.output
        for place, (one, found) in enumerate(zip(wanted, answers, strict=True)):
            rest.take(place, part(one, found, output, self._spec))
        waits = [found.waited_s for found in answers]
        infer_s = monotonic() - sent - min(waits, default=0.0)
        array = np.empty((0, output.dimensions or self._spec.dimensions), np.float32)
        if not output.dense:
            array = np.empty((prepared.vectors if answers else 0, 0), np.float32)
        elif (means := rest.means()) is not None:
            array = self._finished(means, output)
        elif answers:
            array = np.concatenate([found.dense for found in answers if found.dense is not None])
        return Vectors(array, max(waits, default=0.0), infer_s, *rest.beside(self._spec))

    def _finished(self, means: Floats, output: Output) -> Floats:
        """Means of spans `[vectors, hidden]` to vectors, as the pooler does with whole inputs."""
        with torch.inference_mode():
            vectors: Floats = self._head(torch.from_numpy(means)).numpy()
        if self._spec.normalize:
            vectors = unit(vectors)
        return shaped(self._spec, vectors, output)


def _noticed(job: asyncio.Task[Vectors]) -> None:
    """A job that fails after its caller has gone fails quietly."""
    if not job.cancelled():
        job.exception()
