"""A ledger with a few events, of SQLite, and of a private PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.metering.sinks import open_sink
from tests.postgres import Postgres
from tests.usage import at, event

EVENTS = [
    event("a", time=at(9).timestamp(), text_tokens=1_000_000, items=3),
    event("b", time=at(10).timestamp(), task="code", text_tokens=500, image_tokens=90),
    event("c", time=at(10).timestamp(), tenant="zorn", model="clip", text_tokens=7),
    event("d", time=at(10).timestamp(), tenant="zorn", model="clip", text_tokens=0, status=503),
]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.close()


def fill(url: str) -> str:
    """Write `EVENTS`, twice, into the ledger of that URL."""
    sink = open_sink(url)
    sink.write(EVENTS)
    sink.write(EVENTS)
    sink.close()
    return url


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a ledger in SQLite that has `EVENTS`."""
    return fill(f"sqlite://{tmp_path}/usage.db")


@pytest.fixture
def config(tmp_path: Path, url: str) -> Path:
    """A config that names the ledger, and prices of one of its models."""
    path = tmp_path / "polyvec.yaml"
    path.write_text(
        f"""
ledger: {{url: "{url}"}}
prices: {{currency: EUR, places: 4, models: {{minilm: {{text: "0.02", image: "0.05"}}}}}}
"""
    )
    return path
