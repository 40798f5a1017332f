"""Batches from end to end: what comes out of them, what is billed, and how they end."""

from __future__ import annotations

from pathlib import Path

from tests.serving.batches.desks import bills, desk, ledger, lines, owed


async def test_every_line_comes_out_in_order_and_is_billed(tmp_path: Path) -> None:
    meter = ledger(tmp_path)
    sent = lines(23)
    async with desk(tmp_path, meter=meter) as one:
        batch = await one.ended(await one.submit(sent))
        found = await one.result(batch)
        assert await one.result(batch, "errors") == []
    assert meter.close()
    assert [row["custom_id"] for row in found] == [str(n) for n in range(23)]
    assert all(row["response"]["status_code"] == 200 and row["error"] is None for row in found)
    assert {len(row["response"]["body"]["data"][0]["embedding"]) for row in found} == {8}
    assert (batch.status, batch.tally.completed, batch.tally.failed) == ("completed", 23, 0)
    assert batch.tally.tokens == owed(sent)
    bill = bills(tmp_path)
    assert (sum(items for _, items, _ in bill), sum(tokens for *_, tokens in bill)) == (23, owed(sent))
    assert len(bill) == 6
