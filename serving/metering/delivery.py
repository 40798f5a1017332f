"""From the spool into the ledger: batches, retried until they are in; a thread of its own.

A batch that fails is tried again, later and later. One that the ledger can never take is halved
until the event at fault is alone; that one is set aside in `refused.log`, counted as dropped and
logged, and the others go on.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from serving.metering.events import UsageEvent
from serving.metering.sinks import EventRefused, UsageSink, Written
from serving.metering.spool import Batch, Folder, Spool, adopt, line_of, set_aside

__all__ = ["Delivery", "Result"]

log = logging.getLogger(__name__)

_LEAVE_S = 1.0  # for a thread that has been told to stop; one that hangs in the ledger is left

Result: TypeAlias = Literal["written", "duplicate", "failed", "dropped"]


class Delivery:
    """Reads this process's spool, and those of processes that have died, and writes the sink.

    `counted(result, events)` is told what became of events, `released(lines)` how many lines of
    this process's own spool are done with.
    """

    def __init__(
        self,
        sink: UsageSink,
        spool: Spool,
        batch_events: int,
        retry_s: tuple[float, float],
        adopt_s: float,
        counted: Callable[[Result, int], None],
        released: Callable[[int], None],
        wrote: Callable[[float], None],
    ) -> None:
        self._sink, self._spool = sink, spool
        self._batch_events, self._retry_s, self._adopt_s = batch_events, retry_s, adopt_s
        self._counted, self._released, self._wrote = counted, released, wrote
        self._news, self._finish, self._stop = (threading.Event() for _ in range(3))
        self._adopted: list[Folder] = []
        self._behind: tuple[float, int] | None = None
        self._delivered = False
        self._thread = threading.Thread(target=self._run, name="polyvec-ledger", daemon=True)

    def start(self) -> None:
        """Begin, with what earlier processes have left."""
        self._thread.start()

    def news(self) -> None:
        """The spool has more."""
        self._news.set()

    @property
    def leftovers(self) -> tuple[float | None, int]:
        """The time of the oldest event seen of processes that died, and about how many remain."""
        behind = self._behind
        return behind if behind is not None else (None, 0)

    def finish(self, timeout_s: float) -> bool:
        """Deliver what is there, within that time; whether it is all in the ledger.

        The thread lets go of spool and sink when it ends; where it hangs, that is later.
        """
        self._finish.set()
        self._news.set()
        self._thread.join(timeout_s)
        self._stop.set()
        self._thread.join(_LEAVE_S)
        return self._delivered

    def _run(self) -> None:
        seek_at = -math.inf
        while not self._stop.is_set():
            last = self._finish.is_set()
            self._news.clear()
            try:
                if time.monotonic() >= seek_at:
                    self._deliver_leftovers()
                    seek_at = time.monotonic() + self._adopt_s
                self._deliver(self._spool, own=True)
            except Exception:
                log.critical("the spool cannot be read; trying again", exc_info=True)
                self._stop.wait(self._retry_s[1])
            if last:
                break
            self._news.wait(max(0.0, seek_at - time.monotonic()))
        self._end()

    def _end(self) -> None:
        try:
            self._delivered = not self._adopted and self._spool.read(1) is None
        except OSError:
            log.critical("the spool cannot be read", exc_info=True)
        for folder in (*self._adopted, self._spool):
            folder.close()
        self._sink.close()

    def _deliver_leftovers(self) -> None:
        self._adopted += adopt(self._spool.path.parent, self._spool.path)
        while self._adopted and not self._stop.is_set():
            folder = self._adopted[0]
            log.warning("delivering what a process that ended has left in %s", folder.path)
            if self._deliver(folder, own=False):
                self._adopted.pop(0).close()
        self._behind = None

    def _deliver(self, folder: Folder, own: bool) -> bool:
        """Whether the folder was read to its end."""
        while not self._stop.is_set():
            batch = folder.read(self._batch_events)
            if batch is None:
                return True
            if not own:
                self._note_leftover(folder, batch)
            if not self._settle(batch):
                return False
            folder.release(batch)
            if own:
                self._released(batch.lines)
        return False

    def _note_leftover(self, folder: Folder, batch: Batch) -> None:
        first = min((event.time for event in batch.events), default=None)
        size = sum(path.stat().st_size for path in folder.segments())
        width = batch.end // max(batch.lines, 1) or 1
        if first is not None:
            self._behind = (first, max(size // width, batch.lines))

    def _settle(self, batch: Batch) -> bool:
        """Every line in the ledger or set aside; False where it was told to stop before that."""
        if batch.torn:
            log.warning("%s ends in a line cut short, which was never synced", batch.segment)
        if batch.broken:
            self._set_aside(batch.broken, f"{batch.segment} has lines that cannot be read")
        return self._write(batch.events)

    def _write(self, events: Sequence[UsageEvent]) -> bool:
        tries = 0
        while events:
            began = time.perf_counter()
            try:
                written = self._sink.write(events)
            except EventRefused as error:
                if len(events) == 1:
                    self._set_aside([line_of(events[0])], str(error))
                    return True
                half = len(events) // 2
                return self._write(events[:half]) and self._write(events[half:])
            except Exception as error:
                self._counted("failed", len(events))
                if tries == 0:
                    log.error("the ledger takes nothing; events wait in the spool: %s", error)
                tries += 1
                if self._stop.wait(self._delay(tries)):
                    return False
                continue
            self._wrote(time.perf_counter() - began)
            self._count(written)
            if tries:
                log.warning("the ledger takes events again, after %d tries", tries)
            return True
        return True

    def _count(self, written: Written) -> None:
        if written.new:
            self._counted("written", written.new)
        if written.duplicates:
            self._counted("duplicate", written.duplicates)

    def _delay(self, tries: int) -> float:
        """Twice as long each time up to a bound, and by chance, so that gateways do not march."""
        least, most = self._retry_s
        longest = min(most, least * 2.0 ** min(tries - 1, 32))
        return longest * random.uniform(0.5, 1.0)

    def _set_aside(self, lines: Sequence[bytes], why: str) -> None:
        self._counted("dropped", len(lines))
        root: Path = self._spool.path.parent
        try:
            set_aside(root, lines)
            log.critical("%s; %d lines were put in %s/refused.log", why, len(lines), root)
        except OSError as error:
            log.critical("%s; refused.log fails too (%s); the lines: %s", why, error, lines)
