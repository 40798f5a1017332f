"""jsonl: one line an event in one file, for a look with ordinary tools and for small installations.

The lines are the only truth: ids and sums are read from them when the file is first used and kept
in memory, about 150 bytes an event. Several processes of one machine take turns by a lock on it.
The file must stay in place while it is used; to begin a new one, begin with another name.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson

from serving.errors import Unavailable
from serving.metering.events import UsageEvent
from serving.metering.questions import Key, Question, Totals, UsageRow, answer, summed
from serving.metering.sinks import EventRefused, UsageSink, Written, file_of

__all__ = ["open_sink"]


def open_sink(url: str) -> UsageSink:
    """`jsonl:///` in the state folder, `jsonl:///absolute/usage.jsonl`, `jsonl://relative.jsonl`."""
    return _Jsonl(file_of(url, "usage.jsonl"))


class _Jsonl:
    """See `UsageSink`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._ids: set[str] = set()
        self._sums: dict[Key, Totals] = {}
        self._read = 0

    def write(self, events: Sequence[UsageEvent]) -> Written:
        with self._locked() as file:
            fresh = {e.id: e for e in reversed(events) if e.id not in self._ids}
            added = list(fresh.values())[::-1]
            try:
                data = b"".join(orjson.dumps(event) + b"\n" for event in added)
            except TypeError as error:
                raise EventRefused(f"an event cannot be written as JSON: {error}") from error
            _append(file, data, self._read)
            self._read += len(data)
            self._take(added)
        return Written(new=len(added), duplicates=len(events) - len(added))

    def usage(self, question: Question) -> list[UsageRow]:
        with self._locked():
            return answer(question, self._sums.items())

    def close(self) -> None:
        """Nothing is kept open."""

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, ours alone, with everything in it read."""
        with self._lock:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    self._catch_up(file)
                    yield file
                finally:
                    os.close(file)
            except OSError as error:
                raise Unavailable(f"the ledger {self._path} cannot be used: {error}") from error

    def _catch_up(self, file: int) -> None:
        """Read what others have written; a last line cut short was never promised to anybody."""
        size = os.fstat(file).st_size
        if size < self._read:
            raise Unavailable(f"the ledger {self._path} has become shorter; it must stay in place")
        data = _from(file, self._read, size)
        whole = data.rpartition(b"\n")[0]
        lines = whole.split(b"\n") if whole else []
        try:
            events = [UsageEvent(**orjson.loads(line)) for line in lines]
        except (ValueError, TypeError) as error:
            raise Unavailable(f"the ledger {self._path} has a broken line: {error}") from error
        kept = len(whole) + 1 if b"\n" in data else 0
        if kept < len(data):
            os.ftruncate(file, self._read + kept)
        self._read += kept
        self._take([event for event in events if event.id not in self._ids])

    def _take(self, events: Sequence[UsageEvent]) -> None:
        self._ids.update(event.id for event in events)
        for key, totals in summed(events).items():
            self._sums[key] = self._sums.get(key, Totals()) + totals


def _from(file: int, start: int, end: int) -> bytes:
    """Those bytes of a file; one read gives two gibibytes at most."""
    parts = []
    while start < end and (part := os.pread(file, end - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _append(file: int, data: bytes, size: int) -> None:
    """All of it and synced, or the file as it was."""
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(file, left) :]
        os.fsync(file)
    except OSError:
        with suppress(OSError):
            os.ftruncate(file, size)
        raise
