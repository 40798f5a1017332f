"""Usage sent on to a billing system, at least once and each time under the same id.

Several gateways may run the same exports: they take turns in the ledger. A turn that runs out while
its holder still sends makes repeats, which the other side recognises by their ids.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from serving.metering.outbox import Turns

__all__ = ["ExportObserver", "Exporter", "Exports"]

log = logging.getLogger(__name__)

_TURN_S = 60.0


class Exporter(Protocol):
    """One place that usage is sent to."""

    @property
    def name(self) -> str:
        """Under which the ledger remembers how far it has come."""
        ...

    def send(self, now: float) -> int:
        """Send a bounded part of what is due; how much it was, 0 where nothing is.

        Raises `Unavailable` where the other side did not take it: it will be sent again.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class ExportObserver(Protocol):
    """Who counts. Called from the thread of the exports."""

    def exported(self, exporter: str, result: str, events: int) -> None:
        """So many were "sent", or 1 try "failed"."""
        ...

    def behind(self, exporter: str, seconds: float) -> None:
        """Since when not everything due has been sent; 0 where it has, or another has the turn."""
        ...


class _Silent:
    def exported(self, exporter: str, result: str, events: int) -> None: ...

    def behind(self, exporter: str, seconds: float) -> None: ...


class Exports:
    """Runs exporters on a thread of its own until it is closed."""

    def __init__(
        self,
        turns: Turns,
        exporters: Sequence[Exporter],
        every_s: float = 10.0,
        retry_max_s: float = 300.0,
        clock: Callable[[], float] = time.time,
        observer: ExportObserver | None = None,
    ) -> None:
        self._observer = observer or _Silent()
        self._turns, self._exporters, self._clock = turns, tuple(exporters), clock
        self._every_s, self._retry_max_s = every_s, retry_max_s
        self._holder = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
        self._failures = dict.fromkeys((exporter.name for exporter in exporters), 0)
        self._due = dict.fromkeys(self._failures, 0.0)
        self._done = dict.fromkeys(self._failures, clock())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="polyvec-exports", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, timeout_s: float = 10.0) -> None:
        """Stop after what is being sent. The rest is sent by the next process."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        for exporter in self._exporters:
            exporter.close()

    def step(self) -> None:
        """Give every exporter that is due its turn, to the end of what it has to send."""
        for exporter in self._exporters:
            if self._clock() < self._due[exporter.name]:
                continue
            try:
                self._drain(exporter)
                self._done[exporter.name] = self._clock()
                self._failures[exporter.name] = 0
            except Exception as error:
                self._failures[exporter.name] += 1
                self._observer.exported(exporter.name, "failed", 1)
                log.error("the export %s stands still: %s", exporter.name, error)
            self._observer.behind(exporter.name, self._clock() - self._done[exporter.name])
            wait = self._every_s * 2.0 ** min(self._failures[exporter.name], 32)
            self._due[exporter.name] = self._clock() + min(wait, self._retry_max_s)

    def _drain(self, exporter: Exporter) -> None:
        while not self._stop.is_set():
            now = self._clock()
            if not self._turns.take_turn(exporter.name, self._holder, now, _TURN_S):
                return
            sent = exporter.send(now)
            if not sent:
                return
            self._observer.exported(exporter.name, "sent", sent)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.step()
            self._stop.wait(self._every_s)
