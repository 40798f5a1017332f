"""Batches over a whole service in this process, with a real ledger; and what came of them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from serving.accounts import Accounts
from serving.api.batch_lines import reader
from serving.batches.batch import Batch, BatchOptions
from serving.batches.desk import Batches
from serving.engines import Engine
from serving.errors import InvalidKey
from serving.limits.limiter import Limiter
from serving.metering.meter import Meter, MeterOptions, open_meter
from serving.service import Service
from serving.tenants import LOCAL, Tenant
from tests.services import service, tasked, toy

TEXT_TOKENS = 2  # that the counting preparer adds to the characters
QUICK = BatchOptions(piece_lines=4, poll_s=0.01, lease_s=5.0, requests=2)


@dataclass
class Ledgered:
    """The books of a batch: tenants by the ids of their keys, and the meter, if any."""

    meter: Meter | None = None
    tenants: dict[str, Tenant] = field(default_factory=lambda: {"": LOCAL})

    def recall(self, tenant: str, key_id: str) -> Tenant:
        if key_id not in self.tenants:
            raise InvalidKey("Invalid API key: it was revoked")
        return self.tenants[key_id]

    def kept(self, since: float) -> bool:
        return self.meter is None or self.meter.synced()


def ledger(folder: Path) -> Meter:
    """A meter of a ledger in the folder; several processes may have one each."""
    url, spool = f"sqlite://{folder}/usage.db", f"{folder}/spool"
    return open_meter(MeterOptions(url, spool, flush_s=0.001, adopt_s=0.02))


@dataclass
class Desk:
    """One gateway's part: its service and its batches."""

    service: Service
    batches: Batches
    books: Ledgered

    async def submit(
        self, lines: Iterable[object], tenant: Tenant = LOCAL, **options: object
    ) -> Batch:
        said = {"model": "toy", **options}
        return await self.batches.submit(tenant, said, written(lines))

    async def ended(self, batch: Batch, tenant: Tenant = LOCAL) -> Batch:
        """The batch, once it has ended and its holder has let go of it."""
        while True:
            found = await self.batches.find(tenant, batch.id)
            if found.ended is not None:
                return found
            await asyncio.sleep(0.002)

    async def result(
        self, batch: Batch, kind: str = "output", tenant: Tenant = LOCAL
    ) -> list[dict]:
        size, chunks = await self.batches.result(tenant, batch.id, kind)  # type: ignore[arg-type]
        data = b"".join([chunk async for chunk in chunks])
        assert len(data) == size
        return [json.loads(line) for line in data.splitlines()]


@asynccontextmanager
async def desk(
    folder: Path,
    *,
    engine: Engine | None = None,
    options: BatchOptions = QUICK,
    limiter: Limiter | None = None,
    meter: Meter | None = None,
    start: bool = True,
    **more: object,
) -> AsyncIterator[Desk]:
    """A started gateway's batches, in `folder`."""
    served = service(
        toy(), tasked(), engine=engine, accounts=Accounts(limiter=limiter, meter=meter)
    )
    books = Ledgered(meter)
    options = replace(options, folder=str(folder / "batches"))
    batches = Batches(served, books, reader(served), options, **more)  # type: ignore[arg-type]
    if start:
        batches.start()
    try:
        yield Desk(served, batches, books)
    finally:
        await batches.stop(5.0)
        await batches.close()


async def written(lines: Iterable[object]) -> AsyncIterator[bytes]:
    """Lines as a caller sends them; bytes are sent as they are."""
    for line in lines:
        yield line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"


def line(name: object, text: object = None, **body: object) -> dict[str, object]:
    """One line."""
    return {
        "custom_id": str(name),
        "body": {"input": f"text {name}" if text is None else text, **body},
    }


def lines(count: int) -> list[dict[str, object]]:
    return [line(n) for n in range(count)]


def bills(folder: Path) -> list[tuple[str, str, int, int]]:
    """Every event of the ledger that owes something: its tenant, task, items and tokens."""
    with sqlite3.connect(folder / "usage.db") as connection:
        return connection.execute(
            "SELECT tenant, task, items, text_tokens FROM usage_event WHERE status = 200"
        ).fetchall()


def owed(bodies: Iterable[Mapping[str, object]]) -> int:
    """The tokens of these lines, as the counting preparer counts them."""
    total = 0
    for one in bodies:
        given = one["body"]["input"]  # type: ignore[index]
        for text in [given] if isinstance(given, str) else given:
            total += len(text) + TEXT_TOKENS
    return total
