"""Events on their way to the ledger, on disk: append-only segments, synced, in a folder a process.

    <root>/<process>.lock        held by the process that owns the folder, as long as it lives
    <root>/<process>/00000001    a segment: one line an event, with its checksum
    <root>/refused.log           lines that no ledger takes; nothing removes them

A folder whose lock can be had belongs to a process that has died: another one adopts it. The root
must lie on a disk that outlives the process, and not on a network file system.
"""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from serving.metering.events import UsageEvent

__all__ = ["Batch", "Folder", "Spool", "adopt", "event_of", "line_of", "set_aside"]

_LOCK = ".lock"
_CHUNK = 1 << 20
_CHECKSUM = 8  # hexadecimal digits of a CRC-32


def line_of(event: UsageEvent) -> bytes:
    """An event as a line: the CRC-32 of its JSON, and the JSON. ValueError where it has no JSON."""
    try:
        written = orjson.dumps(event)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return b"%08x %b\n" % (zlib.crc32(written), written)


def event_of(line: bytes) -> UsageEvent:
    """The event of a line; ValueError where the line is not whole."""
    digits, _, written = line.rstrip(b"\n").partition(b" ")
    if len(digits) != _CHECKSUM or int(digits, 16) != zlib.crc32(written):
        raise ValueError("its checksum does not fit")
    try:
        return UsageEvent(**orjson.loads(written))
    except TypeError as error:
        raise ValueError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines read in one go. `torn` counts last lines cut short; `broken` lines are not readable."""

    events: tuple[UsageEvent, ...]
    broken: tuple[bytes, ...]
    torn: int
    segment: Path
    end: int

    @property
    def lines(self) -> int:
        """Whole lines, readable or not."""
        return len(self.events) + len(self.broken)


class Folder:
    """A folder of segments that this process holds the lock of, read from the front."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._segment: Path | None = None
        self._offset = 0

    def segments(self) -> list[Path]:
        """The segments there are, oldest first."""
        return sorted(path for path in self.path.iterdir() if path.name.isdigit())

    def read(self, limit: int) -> Batch | None:
        """The next lines, at most `limit`, or None at the end. The same again until `release`."""
        for segment in self.segments():
            start = self._offset if segment == self._segment else 0
            end, whole = self._end(segment)
            if start < end:
                return _read(segment, start, end, limit, whole)
            if whole:
                segment.unlink()
        return None

    def release(self, batch: Batch) -> None:
        """The batch is in the ledger; a segment all of which is, is removed."""
        self._segment, self._offset = batch.segment, batch.end
        end, whole = self._end(batch.segment)
        if whole and batch.end >= end:
            batch.segment.unlink()

    def close(self) -> None:
        """Remove the folder where nothing is left in it, and let go of its lock."""
        with suppress(OSError):
            self.path.rmdir()
        if not self.path.exists():
            with suppress(OSError):
                self.path.with_suffix(_LOCK).unlink()
        os.close(self._lock)

    def _end(self, segment: Path) -> tuple[int, bool]:
        """How many bytes of a segment may be read, and whether nothing will be added to it."""
        return segment.stat().st_size, True


class Spool(Folder):
    """This process's folder. One thread appends, another reads what has been synced."""

    def __init__(self, root: Path, segment_bytes: int) -> None:
        """Makes and locks the folder; OSError where that cannot be done."""
        root.mkdir(parents=True, exist_ok=True)
        name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}".replace(".", "-")
        lock = _lock(root / (name + _LOCK))
        if lock is None:
            raise OSError(f"{root / name} is locked by another process")
        super().__init__(root / name, lock)
        self.path.mkdir()
        _sync_folder(root)
        self._segment_bytes = segment_bytes
        self._gate = threading.Lock()
        self._count = 0
        # The segment being written, how much of it is synced, and its file; sealed: None.
        self._active: tuple[Path, int, int] | None = None

    def append(self, lines: Sequence[bytes]) -> None:
        """Write and sync. OSError: none of it counts as written, though some may be read again."""
        data = b"".join(lines)
        path, size, file = self._room(len(data))
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(file, left) :]
            os.fdatasync(file)
        except OSError:
            # After a failed sync nobody knows what the disk holds: go on in another segment.
            with suppress(OSError):
                os.ftruncate(file, size)
            self.seal()
            raise
        self._active = (path, size + len(data), file)

    def seal(self) -> None:
        """Nothing more is added to the segment being written, so that it can be removed."""
        with self._gate:
            active, self._active = self._active, None
        if active is not None:
            os.close(active[2])

    def _room(self, more: int) -> tuple[Path, int, int]:
        active = self._active
        if active is not None and active[1] and active[1] + more > self._segment_bytes:
            self.seal()
            active = None
        if active is None:
            with self._gate:
                self._count += 1
                path = self.path / f"{self._count:08d}"
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
                active = self._active = (path, 0, file)
            _sync_folder(self.path)
        return active

    def _end(self, segment: Path) -> tuple[int, bool]:
        with self._gate:
            active = self._active
            if active is not None and active[0] == segment:
                return active[1], False
        return super()._end(segment)


def adopt(root: Path, own: Path) -> Iterator[Folder]:
    """The folders of processes that have died, locked; `own` is left out."""
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if path == own or not path.is_dir():
            continue
        lock = _lock(path.with_suffix(_LOCK))
        if lock is None:
            continue
        if path.is_dir():
            yield Folder(path, lock)
        else:  # somebody has finished with it meanwhile
            path.with_suffix(_LOCK).unlink(missing_ok=True)
            os.close(lock)


def set_aside(root: Path, lines: Iterable[bytes]) -> None:
    """Keep lines that no ledger takes, for a person to look at; synced. OSError where it cannot."""
    file = os.open(root / "refused.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, b"".join(line.rstrip(b"\n") + b"\n" for line in lines))
        os.fsync(file)
    finally:
        os.close(file)


def _read(segment: Path, start: int, end: int, limit: int, whole: bool) -> Batch:
    with segment.open("rb") as file:
        file.seek(start)
        data = file.read(min(end - start, _CHUNK))
    *lines, rest = data.split(b"\n")
    del lines[limit:]
    taken = sum(map(len, lines)) + len(lines)
    torn = whole and not lines and start + len(rest) == end
    if not lines:
        lines, taken = [rest], len(rest)
    events, broken = [], []
    for line in lines:
        try:
            events.append(event_of(line))
        except ValueError:
            broken.append(line)
    if torn and broken:
        broken.clear()
    return Batch(tuple(events), tuple(broken), int(torn and not events), segment, start + taken)


def _lock(path: Path) -> int | None:
    """The file locked for this process, or None where another one has it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
