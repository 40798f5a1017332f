"""Segments on disk: what was synced is read again, whatever became of the process that wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from serving.metering.events import UsageEvent
from serving.metering.spool import Folder, Spool, adopt, event_of, line_of
from tests.usage import NOON, event, events


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path, segment_bytes=4096)


def everything(folder: Folder) -> list[str]:
    """The ids in a folder, each batch released when it has been read."""
    found = []
    while batch := folder.read(7):
        found += [entry.id for entry in batch.events]
        folder.release(batch)
    return found


def append(spool: Spool, entries: list[UsageEvent]) -> None:
    spool.append([line_of(entry) for entry in entries])


@settings(derandomize=True, database=None, deadline=None)
@given(some.text(), some.text(), some.integers(0, 2**63 - 1), some.floats(0, 1e6))
def test_a_line_is_its_event(name: str, model: str, tokens: int, seconds: float) -> None:
    whole = event(name, model=model, text_tokens=tokens, duration_s=seconds, time=NOON + seconds)
    try:
        line = line_of(whole)
    except ValueError:
        assert not model.isascii() or not name.isascii()  # half a surrogate pair
        return
    assert line.count(b"\n") == 1
    assert event_of(line) == whole


@pytest.mark.parametrize("cut", [0, 1, 8, 9, 40, -1])
def test_a_line_cut_short_or_changed_is_no_event(cut: int) -> None:
    line = line_of(event("a")).rstrip(b"\n")
    with pytest.raises(ValueError):  # noqa: PT011 - whatever the reason
        event_of(line[:cut])
    with pytest.raises(ValueError):  # noqa: PT011
        event_of(line.replace(b'"text_tokens":10', b'"text_tokens":11'))


def test_what_is_appended_is_read_in_order_over_many_segments(spool: Spool) -> None:
    for start in range(0, 60, 5):
        append(spool, events(5, start))
    assert len(spool.segments()) > 3
    assert everything(spool) == [str(i) for i in range(60)]


def test_the_same_is_read_until_it_is_released(spool: Spool) -> None:
    append(spool, events(9))
    first = spool.read(4)
    assert first is not None
    assert spool.read(4) == first
    spool.release(first)
    second = spool.read(4)
    assert second is not None
    assert [entry.id for entry in second.events] == ["4", "5", "6", "7"]


def test_a_segment_is_removed_when_all_of_it_is_released_and_not_before(spool: Spool) -> None:
    for start in range(0, 60, 5):
        append(spool, events(5, start))
    first, *others = spool.segments()
    batch = spool.read(1000)
    assert batch is not None
    assert first.exists()
    spool.release(batch)
    assert spool.segments() == others
    everything(spool)
    assert len(spool.segments()) == 1  # the one being written
    spool.seal()
    assert everything(spool) == []
    assert spool.segments() == []


def test_the_folder_goes_when_it_is_empty(spool: Spool, tmp_path: Path) -> None:
    append(spool, events(1))
    spool.seal()
    everything(spool)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_living_process_is_left_alone(spool: Spool, tmp_path: Path) -> None:
    append(spool, events(3))
    other = Spool(tmp_path, 4096)
    assert list(adopt(tmp_path, other.path)) == []


def test_what_a_process_left_is_adopted_by_one(spool: Spool, tmp_path: Path) -> None:
    append(spool, events(20))
    spool.seal()
    spool.close()  # not empty, so only its lock goes: as when the process dies
    other = Spool(tmp_path, 4096)
    [folder] = adopt(tmp_path, other.path)
    assert list(adopt(tmp_path, other.path)) == []  # it is somebody's now
    assert everything(folder) == [str(i) for i in range(20)]
    folder.close()
    other.close()
    assert list(tmp_path.iterdir()) == []


def leftover(spool: Spool, tmp_path: Path, change: bytes) -> Folder:
    """What `spool` leaves, its last segment changed to `change`."""
    spool.seal()
    spool.segments()[-1].write_bytes(change)
    spool.close()
    [folder] = adopt(tmp_path, tmp_path / "own")
    return folder


@pytest.mark.parametrize("cut", range(1, 80, 13))
def test_a_last_line_cut_short_is_passed_over(spool: Spool, tmp_path: Path, cut: int) -> None:
    append(spool, events(3))
    data = b"".join(line_of(entry) for entry in events(3))
    folder = leftover(spool, tmp_path, data[:-cut])
    batch = folder.read(100)
    assert batch is not None
    found = [entry.id for entry in batch.events]
    folder.release(batch)
    last = folder.read(100)
    assert last is not None
    assert last.broken == ()
    found += [entry.id for entry in last.events]
    # Where the line break alone is missing, the line itself is whole.
    assert (found, last.torn) == ((["0", "1", "2"], 0) if cut == 1 else (["0", "1"], 1))
    folder.release(last)
    assert folder.read(100) is None
    folder.close()


def test_a_broken_line_in_the_middle_is_given_back_as_it_is(spool: Spool, tmp_path: Path) -> None:
    append(spool, events(3))
    lines = [line_of(entry) for entry in events(3)]
    folder = leftover(spool, tmp_path, lines[0] + b"\0" * 50 + b"\n" + lines[2])
    batch = folder.read(100)
    assert batch is not None
    assert [entry.id for entry in batch.events] == ["0", "2"]
    assert batch.broken == (b"\0" * 50,)
    assert batch.lines == 3
    folder.close()


def test_a_segment_of_nothing_but_zeros_does_not_stop_the_reader(
    spool: Spool, tmp_path: Path
) -> None:
    append(spool, events(1))
    folder = leftover(spool, tmp_path, b"\0" * (3 << 20))
    broken = 0
    while batch := folder.read(10):
        broken += len(batch.broken) + batch.torn
        folder.release(batch)
    assert broken
    folder.close()
    assert not folder.path.exists()


def test_an_empty_segment_is_removed(spool: Spool, tmp_path: Path) -> None:
    append(spool, events(1))
    folder = leftover(spool, tmp_path, b"")
    assert folder.read(10) is None
    folder.close()
    assert list(tmp_path.iterdir()) == []
