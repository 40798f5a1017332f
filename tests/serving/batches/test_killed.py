"""Gateways in processes of their own, killed in the middle: every line once, and billed once."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from serving.tenants import LOCAL
from tests.house.source import ROOT
from tests.serving.batches.desks import QUICK, bills, desk, ledger, line, owed

OPTIONS = replace(QUICK, lease_s=0.5)
GATEWAY = """
import asyncio, os, sys
from pathlib import Path
from tests.serving.batches.desks import desk, ledger
from tests.serving.batches.test_killed import OPTIONS
from tests.services import HashEngine

class Telling(HashEngine):
    async def embed(self, prepared, deadline):
        os.write(1, b"asked\\n")
        return await super().embed(prepared, deadline)

async def main(folder):
    async with desk(folder, engine=Telling(8), options=OPTIONS, meter=ledger(folder)):
        await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1])))
"""


def work_until_killed(folder: Path, asked: int) -> None:
    """A process works on the batches of a folder; SIGKILL, once its engine was asked so often."""
    process = subprocess.Popen(
        [sys.executable, "-c", GATEWAY, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        for _ in range(asked):
            assert process.stdout.readline() == b"asked\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


async def test_killed_gateways_lose_no_line_and_bill_none_twice(tmp_path: Path) -> None:
    sent = [[line(f"{name}{n}", f"text {n}") for n in range(400)] for name in "ab"]
    async with desk(tmp_path, start=False, options=OPTIONS) as one:
        batches = [await one.submit(some) for some in sent]
    for asked in (30, 1, 90):
        work_until_killed(tmp_path, asked)
    meter = ledger(tmp_path)
    async with desk(tmp_path, meter=meter, options=OPTIONS) as last:
        found = await last.batches.find(LOCAL, batches[0].id)
        assert 0 < found.tally.completed < 400
        for batch, some in zip(batches, sent, strict=True):
            ended = await last.ended(batch)
            rows = await last.result(batch)
            assert [row["custom_id"] for row in rows] == [one["custom_id"] for one in some]
            assert (ended.status, ended.tally.tokens) == ("completed", owed(some))
    assert meter.close(30)
    every = bills(tmp_path)
    assert len(every) == 800
    assert sum(tokens for *_, tokens in every) == sum(map(owed, sent))
