"""The one door of metering for a gateway: an event is taken at once and is in the ledger later.

What can be lost, and when:

- An event is synced to disk at most `flush_s` after it was recorded, plus the time of a sync that
  is under way; `flush_events` of them are synced without waiting. A process that is killed, or a
  machine that loses power, loses at most the events not yet synced: those recorded after the last
  completed sync began. An orderly `close` loses none.
- The ledger may be away for as long as the disk has room.
- Where the disk takes nothing either, `queue_events` events are kept in memory and tried again.
  Beyond that an event is dropped: it is counted under "dropped", and its sums are logged as
  critical, by tenant, model, task and modality, so that what was lost can be billed by hand.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, get_args

from serving.errors import InvalidConfig
from serving.metering.delivery import Delivery, Result
from serving.metering.events import UsageEvent
from serving.metering.questions import Key, Totals, summed
from serving.metering.sinks import UsageSink, open_sink, state_folder
from serving.metering.spool import Spool, line_of

__all__ = ["Meter", "MeterObserver", "MeterOptions", "open_meter"]

log = logging.getLogger(__name__)

_TICK_S = 1.0
_CHUNK = 1000  # events of one sync


class MeterObserver(Protocol):
    """Who counts. Called from the meter's own threads, never from `record`."""

    def counted(self, result: Result, events: int) -> None:
        """Events that were written, were there already, failed (and are tried again) or dropped."""
        ...

    def wrote(self, seconds: float) -> None:
        """A write to the ledger took so long."""
        ...

    def standing(self, lag_s: float, spooled: int) -> None:
        """How things stand, about every second: see `Meter.lag` and `Meter.spooled`."""
        ...


@dataclass(frozen=True, slots=True)
class MeterOptions:
    """Where events go and how. `spool` "" is a folder of the machine's state folder."""

    url: str = "sqlite:///"
    spool: str = ""
    flush_s: float = 0.05
    flush_events: int = 500
    queue_events: int = 100_000
    batch_events: int = 200
    segment_bytes: int = 1 << 20
    retry_s: float = 0.1
    retry_max_s: float = 10.0
    adopt_s: float = 5.0


class _Silent:
    def counted(self, result: Result, events: int) -> None: ...

    def wrote(self, seconds: float) -> None: ...

    def standing(self, lag_s: float, spooled: int) -> None: ...


def open_meter(options: MeterOptions, observer: MeterObserver | None = None) -> Meter:
    """A running meter; `InvalidConfig` where the URL or the spool's folder is no good.

    The ledger itself may be down.
    """
    return Meter(open_sink(options.url), options, observer)


class Meter:
    """Takes events, and brings each into the sink once. See this file's own words on loss."""

    def __init__(
        self,
        sink: UsageSink,
        options: MeterOptions,
        observer: MeterObserver | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.sink = sink
        self._options, self._clock = options, clock
        self._observer: MeterObserver = observer or _Silent()
        self._queue: deque[UsageEvent] = deque()
        self._marks: deque[list[float]] = deque()  # [events, the oldest's time] of each sync
        self._lock = threading.Lock()
        self._counts: dict[Result, int] = dict.fromkeys(get_args(Result), 0)
        self._lost: dict[Key, Totals] = {}
        self._in_hand: list[UsageEvent] = []  # out of the queue, not yet lines of the spool
        self._syncing = math.inf  # when the oldest event of a sync under way was answered
        self._closed = False
        self._wake, self._full, self._closing = (threading.Event() for _ in range(3))
        root = Path(options.spool) if options.spool else state_folder() / "spool"
        try:
            self._spool = Spool(root, options.segment_bytes)
        except OSError as error:
            raise InvalidConfig(f"ledger.spool cannot be used: {error}") from error
        retries = (options.retry_s, options.retry_max_s)
        self._delivery = Delivery(
            sink,
            self._spool,
            options.batch_events,
            retries,
            options.adopt_s,
            self._count,
            self._release,
            self._wrote,
        )
        self._thread = threading.Thread(target=self._run, name="polyvec-spool", daemon=True)
        self._delivery.start()
        self._thread.start()

    def record(self, event: UsageEvent) -> None:
        """Take an event. Never waits, never raises; a few microseconds, from any thread."""
        queue = self._queue
        if len(queue) >= self._options.queue_events or self._closing.is_set():
            self._drop(event)
            return
        queue.append(event)
        if not self._wake.is_set():
            self._wake.set()
        if len(queue) >= self._options.flush_events and not self._full.is_set():
            self._full.set()

    def lag(self) -> float:
        """Seconds since the oldest event that is not in the ledger was answered; 0 with none."""
        behind, _ = self._delivery.leftovers
        oldest = [behind] if behind is not None else []
        with self._lock:
            oldest += [self._marks[0][1]] if self._marks else []
            oldest += [event.time for event in self._in_hand[:1]]
        with suppress(IndexError):
            oldest.append(self._queue[0].time)
        return max(0.0, self._clock() - min(oldest)) if oldest else 0.0

    def spooled(self) -> int:
        """Events not yet in the ledger: in memory, in the spool, and about how many of the dead."""
        with self._lock:
            own = len(self._queue) + len(self._in_hand)
            own += sum(int(count) for count, _ in self._marks)
        return own + self._delivery.leftovers[1]

    def synced(self, since: float = math.inf) -> bool:
        """Whether every event of before then would outlive a kill or a loss of power.

        `since` is a `time.time()` of before this call.
        """
        with self._lock:
            waiting = self._queue[0].time if self._queue else math.inf
            oldest = min(self._syncing, waiting)
        return oldest == math.inf or since < oldest

    def written(self) -> int:
        """Events added to the ledger by this process, those of processes that died included."""
        return self._counts["written"]

    def duplicates(self) -> int:
        """Events that the ledger had already, since this process began."""
        return self._counts["duplicate"]

    def dropped(self) -> int:
        """Events that will not be in the ledger by themselves: the log has their sums or lines."""
        with self._lock:
            return self._counts["dropped"] + sum(t.requests for t in self._lost.values())

    def close(self, timeout_s: float = 10.0) -> bool:
        """Take no more; sync, and deliver within that time. Whether all of it is in the ledger.

        What is not stays in the spool for the next process. Blocks; a second call does nothing.
        """
        if self._closing.is_set():
            return self._closed
        until = time.monotonic() + timeout_s
        self._closing.set()
        self._wake.set()
        self._full.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.critical("the spool's disk hangs, with %d events in memory", len(self._queue))
            return False
        refused = len(self._queue)  # by the disk, to the last
        while self._queue:
            self._drop(self._queue.popleft())
        self._closed = self._delivery.finish(max(0.0, until - time.monotonic())) and not refused
        self._report()
        return self._closed

    def _run(self) -> None:
        """Group commit: what is recorded within `flush_s` shares a sync."""
        options, failures = self._options, 0
        while True:
            if self._wake.wait(_TICK_S):
                if not self._closing.is_set():
                    self._full.wait(options.flush_s)
                self._full.clear()
                self._wake.clear()
                try:
                    failures = 0 if self._flush() else failures + 1
                except Exception:
                    failures += 1
                    log.critical("the spool's thread failed and goes on", exc_info=True)
            self._report()
            if self._closing.is_set() and (not self._queue or failures > 1):
                break
            if failures:
                self._wake.set()
                longest = options.retry_s * 2.0 ** min(failures, 32)
                self._closing.wait(min(options.retry_max_s, longest))
        self._spool.seal()
        self._delivery.news()

    def _flush(self) -> bool:
        """Everything recorded so far to disk; False where the disk does not take it.

        What is recorded meanwhile has woken the thread again, and waits for others in its turn.
        """
        left = len(self._queue)
        while left:
            with self._lock:
                count = min(left, _CHUNK)
                left -= count
                self._in_hand = [self._queue.popleft() for _ in range(count)]
                self._syncing = self._in_hand[0].time
            taken = self._append(self._in_hand)
            with self._lock:
                self._syncing = math.inf
            if not taken:
                return False
        return True

    def _append(self, events: list[UsageEvent]) -> bool:
        lines, taken = [], []
        for event in events:
            try:
                lines.append(line_of(event))
                taken.append(event)
            except ValueError as error:
                log.critical("an event cannot be written: %s: %r", error, event)
                self._drop(event)
        with self._lock:
            self._in_hand = []
            if not taken:
                return True
            # Before they can be read, and so released.
            self._marks.append([len(taken), min(event.time for event in taken)])
        try:
            self._spool.append(lines)
        except Exception as error:
            with self._lock:
                if self._marks:
                    self._marks.pop()
                self._queue.extendleft(reversed(taken))
            self._count("failed", len(taken))
            log.critical("the spool takes nothing, events wait in memory: %s", error)
            return False
        self._delivery.news()
        return True

    def _release(self, lines: int) -> None:
        with self._lock:
            while lines and self._marks:
                took = min(lines, int(self._marks[0][0]))
                lines -= took
                self._marks[0][0] -= took
                if not self._marks[0][0]:
                    self._marks.popleft()

    def _drop(self, event: UsageEvent) -> None:
        with self._lock:
            for key, totals in summed([event]).items():
                self._lost[key] = self._lost.get(key, Totals()) + totals

    def _report(self) -> None:
        with self._lock:
            lost, self._lost = self._lost, {}
        for (hour, *names), totals in lost.items():
            self._count("dropped", totals.requests)
            log.critical("dropped from the ledger, hour %d, %s: %s", hour, names, totals)
        try:
            self._observer.standing(self.lag(), self.spooled())
        except Exception:
            log.exception("an observer of the meter failed")

    def _wrote(self, seconds: float) -> None:
        try:
            self._observer.wrote(seconds)
        except Exception:
            log.exception("an observer of the meter failed")

    def _count(self, result: Result, events: int) -> None:
        with self._lock:
            self._counts[result] += events
        try:
            self._observer.counted(result, events)
        except Exception:
            log.exception("an observer of the meter failed")
