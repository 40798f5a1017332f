"""Several gateways over one folder: who works on what, and what a lease is worth."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest

from serving.batches.batch import Batch, Piece, Tally
from serving.batches.store import Store
from serving.errors import InvalidConfig, Unavailable
from serving.tenants import LOCAL
from serving.values import Prepared, Vectors
from tests.services import HashEngine
from tests.serving.batches.desks import QUICK, bills, desk, ledger, lines


async def test_two_gateways_share_the_batches_and_do_nothing_twice(tmp_path: Path) -> None:
    engines, meter = (HashEngine(8), HashEngine(8)), ledger(tmp_path)
    options = replace(QUICK, at_once=1)
    async with (
        desk(tmp_path, engine=engines[0], options=options, meter=meter) as one,
        desk(tmp_path, engine=engines[1], options=options, meter=meter) as two,
    ):
        batches = [await one.submit(lines(32)) for _ in range(6)]
        for batch in batches:
            ended = await two.ended(batch)
            assert (ended.tally.completed, len(await two.result(batch))) == (32, 32)
    assert meter.close()
    assert sum(engine.calls for engine in engines) == len(bills(tmp_path)) == 6 * 32
    assert all(engine.calls for engine in engines)


async def test_what_a_gateway_that_lost_its_batch_still_does_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*words: object) -> None:
        raise Unavailable("cut off")

    meter, asked, go = ledger(tmp_path), asyncio.Event(), asyncio.Event()

    class Stalled(HashEngine):
        async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
            asked.set()
            await go.wait()
            return await super().embed(prepared, deadline)

    ahead = 0.0
    options = replace(QUICK, requests=1, lease_s=0.05)
    async with desk(tmp_path, engine=Stalled(8), options=options, meter=meter) as stalled:
        monkeypatch.setattr(stalled.batches._place.store, "renew", cut_off)
        batch = await stalled.submit(lines(8))
        await asked.wait()
        async with desk(tmp_path, meter=meter, clock=lambda: time.time() + ahead) as other:
            ahead = 60.0
            assert (await other.ended(batch)).tally.completed == 8
            go.set()
    assert meter.close()
    assert len(bills(tmp_path)) == 8


def batch(name: str, tenant: str = "t", created: float = 0.0) -> Batch:
    return Batch(name, tenant, "k", "toy", b"{}", 2, created, 1000.0)


PIECES = [Piece(1, 1, 0, 10), Piece(2, 1, 10, 10)]
DONE = replace(PIECES[0], result="x", tally=Tally(1, 0, 7), output=3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "batches.db")


def test_a_batch_has_one_holder_until_its_lease_runs_out(store: Store) -> None:
    store.add(batch("a"), PIECES, 9)
    claimed = store.claim("one", 100, 30)
    assert claimed == replace(batch("a"), status="processing")
    assert store.claim("two", 129, 30) is None
    assert store.renew("a", "one", 160) == "processing"
    assert store.claim("two", 159, 30) is None
    assert store.claim("two", 160, 30) is not None
    assert store.renew("a", "one", 300) is None
    assert store.done("a", "one", DONE) is None
    assert store.split("a", "one", PIECES) is None
    assert store.pieces("a", done=True) == []
    assert store.done("a", "two", DONE) == "processing"
    assert store.pieces("a", done=True) == [DONE]
    assert store.find("a", "t").tally == Tally(1, 0, 7)  # type: ignore[union-attr]


def test_a_piece_is_done_once(store: Store) -> None:
    store.add(batch("a"), PIECES, 9)
    store.claim("one", 100, 30)
    store.done("a", "one", DONE)
    store.done("a", "one", replace(DONE, result="y"))
    assert store.pieces("a", done=True) == [DONE]
    assert store.pieces("a", done=False) == [PIECES[1]]


def test_a_batch_that_was_given_back_waits_as_long_as_was_said(store: Store) -> None:
    store.add(batch("a"), PIECES, 9)
    store.claim("one", 100, 30)
    store.release("a", "two", 0)
    assert store.claim("two", 110, 30) is None
    store.release("a", "one", 120)
    assert store.claim("two", 119, 30) is None
    assert store.claim("two", 120, 30) is not None


def test_who_has_fewest_batches_in_work_goes_first_and_then_the_oldest(store: Store) -> None:
    for name, tenant, created in (("a", "x", 1), ("b", "x", 2), ("c", "y", 4), ("d", "y", 3)):
        store.add(batch(name, tenant, created), PIECES, 9)
    claimed = [store.claim(f"h{n}", 100, 30) for n in range(5)]
    assert [one and one.id for one in claimed] == ["a", "d", "b", "c", None]


def test_a_cancelled_batch_is_not_claimed_and_its_holder_is_told(store: Store) -> None:
    store.add(batch("a"), PIECES, 9)
    store.claim("one", 100, 30)
    store.cancel("a", "other", 110, 200)
    assert store.renew("a", "one", 130) == "processing"
    store.cancel("a", "t", 110, 200)
    assert store.done("a", "one", DONE) == "cancelled"
    store.end(replace(batch("a"), status="completed", ended=120.0), "one")
    assert store.find("a", "t").status == "cancelled"  # type: ignore[union-attr]
    assert store.claim("two", 500, 30) is None


def test_what_is_kept_long_enough_is_forgotten_with_its_pieces(store: Store) -> None:
    store.add(batch("a"), PIECES, 9)
    assert store.sweep(999, 50) == []
    assert store.sweep(1000, 50) == []
    assert store.find("a", "t").status == "expired"  # type: ignore[union-attr]
    assert store.sweep(1049, 50) == []
    assert store.sweep(1050, 50) == ["a"]
    assert (store.find("a", "t"), store.pieces("a", done=False)) == (None, [])


def test_a_file_of_another_version_is_refused(tmp_path: Path, store: Store) -> None:
    store.close()
    with sqlite3.connect(tmp_path / "batches.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(InvalidConfig, match="another version"):
        Store(tmp_path / "batches.db")


async def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "batches").write_text("no folder")
    with pytest.raises(InvalidConfig, match=r"batches\.folder"):
        async with desk(tmp_path):
            pass


async def test_the_list_has_the_newest_first(tmp_path: Path) -> None:
    async with desk(tmp_path, start=False) as one:
        made = [await one.submit(lines(1)) for _ in range(4)]
        found = await one.batches.listed(LOCAL, 3)
    assert [one.id for one in found] == [one.id for one in reversed(made)][:3]
