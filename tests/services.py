"""A whole service in this process: the real tokenizer of all-MiniLM-L6-v2, no weights.

`client(service)` talks to it through its ASGI app; `listening(app)` puts the app behind a real
server on a free port of the loopback.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache

import httpx
import numpy as np
import uvicorn
from starlette.types import ASGIApp

from serving.accounts import Accounts
from serving.api.app import ApiSettings, create_app
from serving.calls import Call
from serving.engines import Engine
from serving.errors import PolyvecError
from serving.limits.gate import Gate
from serving.models.catalog import find
from serving.models.loading import load_spec
from serving.models.spec import Dense, ModelSpec, MultiVector, SparseWeights, TaskSpec, Vision
from serving.preparing import Preparer, text
from serving.service import Served, Service
from serving.tenants import LOCAL
from serving.values import (
    Floats,
    Fused,
    Item,
    Job,
    Pdf,
    Prepared,
    Ragged,
    Sparse,
    Text,
    Usage,
    Vectors,
)

__all__ = [
    "MODEL",
    "CountingPreparer",
    "HashEngine",
    "StuckEngine",
    "able",
    "call",
    "client",
    "everything",
    "listening",
    "minilm",
    "service",
    "tasked",
    "toy",
    "vision",
]

MODEL = "all-MiniLM-L6-v2"


def call(seconds: float = 60.0, **facts: object) -> Call:
    """A call of the local tenant, with some time to run."""
    known: dict[str, object] = {"tenant": LOCAL, "deadline": time.monotonic() + seconds}
    return Call("request", "/v1/embeddings", **(known | facts))  # type: ignore[arg-type]


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
        return everything(prepared, np.ascontiguousarray(array))

    async def check(self) -> None:
        """Raise `error` where it is one of ours."""
        if isinstance(self.error, PolyvecError):
            raise self.error

    async def close(self) -> None:
        """Nothing to close."""


def everything(prepared: Prepared, array: Floats) -> Vectors:
    """`array` and, as far as they are asked for, a multi-vector and a weight for every token."""
    output, lengths = prepared.output, prepared.lengths
    multi = sparse = None
    if output.multi:
        rows = [[token % 2, 1 - token % 2, 0.0] for token in prepared.ids.tolist()]
        multi = Ragged(np.array(rows, np.float32), lengths)
    if output.sparse:
        inputs = np.split(prepared.ids, np.cumsum(lengths)[:-1])
        ids = [np.unique(one) for one in inputs]
        counts = np.array([len(one) for one in ids], np.int32)
        flat = np.concatenate(ids)
        sparse = Sparse(flat, (1 / (1 + flat)).astype(np.float32), counts)
    dense = array if output.dense else np.empty((len(lengths), 0), np.float32)
    return Vectors(dense, multi=multi, sparse=sparse)


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
    """One token a character, three an image, two special ones; a PDF has two pages.

    Remembers the jobs it was given.
    """

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    async def prepare(self, job: Job) -> Prepared:
        """Characters as token ids."""
        self.jobs.append(job)
        inputs = [page for item in job.items for page in _pages(item)]
        ids = np.array([one for tokens in inputs for one in tokens], np.int32)
        lengths = np.array([len(tokens) for tokens in inputs], np.int32)
        images = int((ids == _IMAGE).sum())
        return Prepared(
            ids,
            lengths,
            Usage(len(ids) - images, images),
            job.output,
            task=job.task,
            service_class=job.service_class,
            tokens=tuple(tuple(map(chr, one)) for one in inputs) if job.output.tokens else None,
        )


_IMAGE = 7


def _pages(item: Item) -> list[list[int]]:
    if isinstance(item, Pdf):
        return [[1, *[_IMAGE] * 3, 2]] * 2
    parts = item.parts if isinstance(item, Fused) else (item,)
    tokens = [list(map(ord, p.text)) if isinstance(p, Text) else [_IMAGE] * 3 for p in parts]
    return [[1, *(one for part in tokens for one in part), 2]]


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


def able(**facts: object) -> ModelSpec:
    """A made-up model that can do everything."""
    head = Dense("", "head.pt", 8, 1, True, "")
    spec = toy(
        id="able",
        modalities=("text", "image"),
        least_dimensions=2,
        multi=MultiVector(3),
        sparse=SparseWeights(head),
        late_chunking=True,
        vision=vision(),
    )
    return replace(spec, **facts)  # type: ignore[arg-type]


def vision(**facts: object) -> Vision:
    """Made-up facts of a vision tower, of 28-pixel squares."""
    names = ("prompt", "opening", "closing", "start", "end", "pad")
    third = (1 / 3, 1 / 3, 1 / 3)
    numbers = {"patch": 14, "merge": 2, "temporal": 2, "min_pixels": 784, "max_pixels": 7840}
    known = dict.fromkeys(names, "") | numbers | {"mean": third, "std": third}
    return Vision(**(known | facts))  # type: ignore[arg-type]


def service(
    *specs: ModelSpec,
    engine: Engine | None = None,
    preparer: Preparer | None = None,
    gate: Gate | None = None,
    max_inputs: int = 2048,
    accounts: Accounts | None = None,
) -> Service:
    """A service of those models (the default model where none is given)."""
    served = {}
    for spec in specs or (minilm()[0],):
        own = minilm()[1] if spec.id == MODEL else CountingPreparer()
        served[spec.id] = Served(spec, preparer or own, engine or HashEngine(spec.dimensions))
    return Service(served, gate or Gate(1024, 1 << 24), max_inputs, accounts)


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
