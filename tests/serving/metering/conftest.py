"""A private PostgreSQL for the whole run, a ledger in SQLite, and the other side of an export."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.metering.sinks import open_sink
from serving.metering.sinks._ledger import SqlLedger
from tests.billing import Billing
from tests.postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server; tests make databases of their own in it."""
    server = Postgres()
    yield server
    server.close()


@pytest.fixture
def billing() -> Iterator[Billing]:
    billing = Billing()
    yield billing
    billing.close()


@pytest.fixture
def ledger_url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/usage.db"


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[SqlLedger]:
    sink = open_sink(ledger_url)
    assert isinstance(sink, SqlLedger)
    yield sink
    sink.close()
