"""A whole service in this process: the real tokenizer of all-MiniLM-L6-v2, no weights.

`client(service)` talks to it through its ASGI app; `listening(app)` puts the app behind a real
server on a free port of the loopback.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache

import httpx
import numpy as np
import uvicorn
from starlette.types import ASGIApp

from serving.api.app import ApiSettings, create_app
from serving.engines import Engine
from serving.errors import PolyvecError
from serving.limits.gate import Gate
from serving.models.catalog import find
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec, TaskSpec
from serving.preparing import Preparer, text
from serving.service import Served, Service
from serving.values import Job, Prepared, Usage, Vectors

__all__ = [
    "MODEL",
    "CountingPreparer",
    "HashEngine",
    "StuckEngine",
    "client",
    "listening",
    "minilm",
    "service",
    "tasked",
    "toy",
]

MODEL = "all-MiniLM-L6-v2"


class HashEngine:
    """No weights, no thread: the tokens decide the vector. `error` is raised instead, if set."""

    def __init__(self, width: int = 384, error: Exception | None = None) -> None:
        self.width, self.error, self.calls = width, error, 0

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        """Unit vectors from the tokens."""
        self.calls += 1
        if self.error is not None:
            raise self.error
        ends = np.cumsum(prepared.lengths)
        rows = []
        for end, length in zip(ends, prepared.lengths, strict=True):
            seed = prepared.ids[end - length : end].tolist()
            rows.append(np.random.default_rng(seed).standard_normal(self.width))
        array = np.array(rows, np.float32)[:, : prepared.output.dimensions]
        if prepared.output.normalized:
            array /= np.linalg.norm(array, axis=1, keepdims=True)
        return Vectors(np.ascontiguousarray(array))

    async def check(self) -> None:
        """Raise `error` where it is one of ours."""
        if isinstance(self.error, PolyvecError):
            raise self.error

    async def close(self) -> None:
        """Nothing to close."""


class StuckEngine(HashEngine):
    """Never answers; says when it was asked and when it was let go."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.cancelled = asyncio.Event(), asyncio.Event()

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        """Wait for ever."""
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise AssertionError

    async def check(self) -> None:
        """Wait for ever."""
        await asyncio.Event().wait()


class CountingPreparer:
    """One token a character, two special ones; counts how often it was called."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    async def prepare(self, job: Job) -> Prepared:
        """Characters as token ids."""
        self.jobs.append(job)
        texts = [[1, *map(ord, getattr(item, "text", "")), 2] for item in job.items]
        ids = np.array([one for text in texts for one in text], np.int32)
        lengths = np.array([len(text) for text in texts], np.int32)
        usage = Usage(text_tokens=len(ids))
        return Prepared(ids, lengths, usage, job.output, service_class=job.service_class)


@cache
def minilm() -> tuple[ModelSpec, Preparer]:
    """The facts and the tokenizer of the default model, from its package."""
    entry = find(MODEL)
    assert entry is not None
    spec = load_spec(entry)
    return spec, text.load(spec)


def toy(**facts: object) -> ModelSpec:
    """A made-up text model of 8 dimensions, with `facts` of its own."""
    spec = ModelSpec("toy", "none", "", "package:toy", dimensions=8, max_tokens=64)
    return replace(spec, **facts)  # type: ignore[arg-type]


def tasked() -> ModelSpec:
    """A made-up model with tasks and shorter vectors."""
    tasks = (
        TaskSpec("retrieval.query", "query: ", ("query",)),
        TaskSpec("retrieval.passage"),
        TaskSpec("separation"),
    )
    return toy(id="tasked", tasks=tasks, default_task="retrieval.passage", matryoshka=(2, 4))


def service(
    *specs: ModelSpec,
    engine: Engine | None = None,
    preparer: Preparer | None = None,
    gate: Gate | None = None,
    max_inputs: int = 2048,
) -> Service:
    """A service of those models (the default model where none is given)."""
    served = {}
    for spec in specs or (minilm()[0],):
        own = minilm()[1] if spec.id == MODEL else CountingPreparer()
        served[spec.id] = Served(spec, preparer or own, engine or HashEngine(spec.dimensions))
    return Service(served, gate or Gate(1024, 1 << 24), max_inputs)


def client(served: Service, settings: ApiSettings | None = None) -> httpx.AsyncClient:
    """A client of the app that serves it, without a socket."""
    app = create_app(served, settings or ApiSettings())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://polyvec")


@asynccontextmanager
async def listening(app: ASGIApp) -> AsyncIterator[int]:
    """The port of a real server that runs `app`."""
    config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        running = asyncio.create_task(server.serve([bound]))
        try:
            while not server.started:  # uvicorn has no event for it
                await asyncio.sleep(0)
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            await running
