"""A real server with real vectors of all-MiniLM-L6-v2, for clients as their users install them.

A client that is not installed is skipped; `make clients` installs all of them.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from anyio.from_thread import start_blocking_portal

from serving.api.app import ApiSettings, create_app
from serving.engines import EngineOptions, open_engine
from serving.limits.gate import Gate
from serving.models.spec import TaskSpec
from serving.preparing import text
from serving.service import Served, Service
from tests.services import MODEL, CountingPreparer, HashEngine, able, listening, minilm

TASKED = "jina-embeddings-v3"  # MiniLM with the tasks that clients of that model name
SEEING = "jina-embeddings-v4"  # no weights: images, and a vector for every token
TEXTS = [
    "A cat sits on the mat.",
    "Stocks fell sharply on Monday.",
    "A kitten rests on a rug.",
    "",
]
Vectors = npt.NDArray[np.float32]

# Read when a client is imported: none of them may ask anything of the network.
os.environ |= {
    "ANONYMIZED_TELEMETRY": "False",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "LANGSMITH_TRACING": "false",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Foreign code warns about itself and others; that is not ours to fail on."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.filterwarnings("ignore"))


def served() -> Service:
    """The default model, the same with tasks, and one that sees."""
    spec, preparer = minilm()
    engine = open_engine("torch", spec, EngineOptions(dtype="float32", threads=1))
    tasks = tuple(TaskSpec(f"retrieval.{side}") for side in ("query", "passage"))
    tasked = replace(spec, id=TASKED, aliases=(), tasks=(*tasks, TaskSpec("text-matching")))
    seeing = able(id=SEEING)
    return Service(
        {
            MODEL: Served(spec, preparer, engine),
            TASKED: Served(tasked, text.load(tasked), engine),
            SEEING: Served(seeing, CountingPreparer(), HashEngine(8)),
        },
        Gate(64, 1 << 20),
        2048,
    )


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """Where the service is."""
    app = create_app(served(), ApiSettings(open_models=True))
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(listening(app)) as port,
    ):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def vectors(url: str) -> Callable[[list[str]], Vectors]:
    """What the service answers to a plain request, for a client's answer to be held against."""

    def ask(texts: list[str]) -> Vectors:
        body = json.dumps({"model": MODEL, "input": texts}).encode()
        with urllib.request.urlopen(f"{url}/v1/embeddings", body) as answer:
            data = json.load(answer)["data"]
        return np.array([one["embedding"] for one in data], np.float32)

    return ask


@pytest.fixture
def right(vectors: Callable[[list[str]], Vectors]) -> Callable[..., None]:
    """Holds vectors of texts that a client gave against the service's own."""

    def hold(found: object, texts: list[str] = TEXTS) -> None:
        np.testing.assert_allclose(np.array(found, np.float32), vectors(texts), atol=2e-3)

    return hold
