"""Whatever a crash leaves behind, the batch goes on: the same lines, each once, each billed once.

A crash is simulated: from some step of the disk on, nothing that the gateway does happens, and what
its meter had not synced is lost. Then files that nothing on record names are torn.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from serving.accounts import Accounts
from serving.api.batch_lines import reader
from serving.batches.desk import Batches
from serving.batches.pieces import cut, halved, lines_of
from serving.batches.store import Store
from serving.batches.threads import Threads
from serving.errors import InputTooLarge
from serving.metering.events import UsageEvent
from serving.tenants import LOCAL
from serving.values import Prepared, Vectors
from tests.services import HashEngine, service, toy
from tests.serving.batches.desks import QUICK, Desk, Ledgered, line, owed

_T = TypeVar("_T")
POISON = ord("☠")
GOOD, REFUSED, BROKEN = range(3)


class Crash(BaseException):
    """The process is dead."""


class Mortal(Threads):
    """Dies before, or right after, the step of that number; None lives."""

    def __init__(self, step: int | None, after: bool) -> None:
        super().__init__(2)
        self._left, self._after, self.dead = step, after, asyncio.Event()

    async def __call__(self, call: Callable[[], _T]) -> _T:
        if self.dead.is_set():
            raise Crash
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self.dead.set()
                if self._after:
                    await super().__call__(call)
                raise Crash
        return await super().__call__(call)

    def bury(self) -> None:
        """Let the threads come to their end."""
        self._pool.shutdown()


class Forgetful:
    """A meter and a ledger: what was recorded is safe when it is looked at for the second time."""

    def __init__(self) -> None:
        self.durable: dict[str, UsageEvent] = {}
        self.recorded = 0
        self._fresh: list[UsageEvent] = []
        self._looked = False

    def record(self, event: UsageEvent) -> None:
        self._fresh.append(event)
        self.recorded += 1
        self._looked = False

    def synced(self) -> bool:
        if self._fresh and not self._looked:
            self._looked = True
            return False
        self.durable |= {event.id: event for event in self._fresh if event.status == 200}
        self._fresh.clear()
        return True

    def crash(self) -> None:
        self._fresh.clear()


class Refusing(HashEngine):
    """Does not take poisoned texts."""

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        if POISON in prepared.ids:
            raise InputTooLarge("it does not fit", "input")
        return await super().embed(prepared, deadline)


async def _live(folder: Path, meter: Forgetful, off: Mortal, age: float, kinds: list[int]) -> Desk:
    """One life of a gateway: to its crash, or until the batch has ended."""
    served = service(toy(), engine=Refusing(8), accounts=Accounts(meter=meter))  # type: ignore[arg-type]
    books = Ledgered(meter)  # type: ignore[arg-type]
    options = replace(QUICK, folder=str(folder), piece_lines=3, lease_s=100, poll_s=1000)
    batches = Batches(served, books, reader(served), options, clock=lambda: age)
    one = Desk(served, batches, books)
    if not batches._place.store.known():
        await one.submit(map(_line, range(len(kinds)), kinds))
    batches._place = replace(batches._place, off=off)
    batches.start()
    ended = asyncio.ensure_future(_ended(batches))
    dead = asyncio.ensure_future(off.dead.wait())
    await asyncio.wait((ended, dead), return_when=asyncio.FIRST_COMPLETED)
    for task in (ended, dead, *batches._tasks):
        task.cancel()
    await asyncio.gather(ended, dead, *batches._tasks, return_exceptions=True)
    if off.dead.is_set():  # what was under way in a thread happened before the crash
        await asyncio.to_thread(off.bury)
        batches._place.store.close()
    return one


async def _ended(batches: Batches) -> None:
    """Without a thread of the desk's own, so that looking is no step."""
    store = batches._place.store
    [identifier] = store.known()
    while (await asyncio.to_thread(store.find, identifier, LOCAL.id)).ended is None:  # type: ignore[union-attr]
        await asyncio.sleep(0.001)


def _line(number: int, kind: int) -> object:
    if kind == BROKEN:
        return b"{broken\n"
    return line(number, f"text {number}" + "☠" * (kind == REFUSED))


def tear(folder: Path, chance: Random) -> None:
    """Do what a loss of power may do to files that were not synced, and to nothing else."""
    store = Store(folder / "batches.db")
    [identifier] = store.known()
    named = {str(piece.result) for piece in store.pieces(identifier, done=True)}
    store.close()
    for path in sorted((folder / identifier).iterdir()):
        if path.suffix != ".jsonl" and path.stem not in named:
            what = chance.randrange(3)
            if what == 0:
                path.unlink()
            elif what == 1:
                path.write_bytes(path.read_bytes()[: chance.randrange(200)])


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    some.lists(some.sampled_from((GOOD, GOOD, GOOD, REFUSED, BROKEN)), min_size=1, max_size=14),
    some.lists(some.tuples(some.integers(0, 30), some.booleans()), max_size=4),
    some.integers(0, 1 << 30),
)
def test_any_series_of_crashes_comes_to_the_same_end(
    kinds: list[int], crashes: list[tuple[int, bool]], seed: int
) -> None:
    async def lives() -> None:
        meter, age, chance = Forgetful(), 1_000.0, Random(seed)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for step, after in crashes:
                with suppress(Crash):
                    await _live(folder, meter, Mortal(step, after), age, kinds)
                meter.crash()
                tear(folder, chance)
                age += 1_000
            one = await _live(folder, meter, Mortal(None, False), age, kinds)
            await check(one, meter, kinds)

    asyncio.run(lives())


async def check(one: Desk, meter: Forgetful, kinds: list[int]) -> None:
    """Every line once, in its order, in the file that it belongs to; each good one billed once."""
    [batch] = await one.batches.listed(LOCAL, 9)
    found, errors = await one.result(batch), await one.result(batch, "errors")
    good = [n for n, kind in enumerate(kinds) if kind == GOOD]
    assert [row["custom_id"] for row in found] == list(map(str, good))
    assert [row["error"]["line"] - 1 for row in errors] == [
        n for n, kind in enumerate(kinds) if kind != GOOD
    ]
    assert batch.status == "completed"
    tokens = owed([line(n) for n in good])  # type: ignore[arg-type]
    assert batch.tally.tokens == tokens
    assert len(meter.durable) == len(good)
    assert sum(event.text_tokens for event in meter.durable.values()) == tokens


LINES = some.lists(
    some.one_of(
        some.just(b"\n"), some.binary(max_size=12).map(lambda b: b.replace(b"\n", b"") + b"\n")
    )
)


@given(LINES, some.integers(1, 5), some.integers(1, 30))
def test_pieces_are_all_of_a_file_and_halves_all_of_a_piece(
    rows: list[bytes], most: int, size: int
) -> None:
    raw = b"".join(rows) + b"{}"
    options = replace(QUICK, piece_lines=most, piece_bytes=size)
    pieces = list(cut(_rows(raw), options))
    assert sum(piece.size for piece in pieces) == len(raw)
    number, offset = 1, 0
    for piece in pieces:
        part = raw[piece.offset : piece.offset + piece.size]
        assert (piece.first, piece.offset) == (number, offset)
        assert len(lines_of(part)) == piece.lines <= most
        assert piece.lines == 1 or piece.size <= size + part.count(b"\n")
        number, offset = number + piece.lines, offset + piece.size
        if piece.lines > 1:
            first, second = halved(piece, part)
            assert lines_of(part[: first.size]) + lines_of(part[first.size :]) == lines_of(part)
            assert (first.first, first.offset) == (piece.first, piece.offset)
            assert second.first == piece.first + first.lines
            assert second.offset == piece.offset + first.size
            assert (first.lines + second.lines, first.size + second.size) == (
                piece.lines,
                piece.size,
            )
    assert number - 1 == len(lines_of(raw))


def _rows(raw: bytes) -> list[bytes]:
    *whole, last = raw.split(b"\n")
    return [row + b"\n" for row in whole] + ([last] if last else [])
