"""The façade: a metric of the table to something that records numbers, whatever is behind it.

What a label may say is bounded here, so that nobody outside can make up series: labels with fixed
choices have those, `model` has the models served, and every other label (`tenant` among them) the
first so many values that come; the rest is "other". An empty value is "none".
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

from serving.telemetry.metrics import CHOICES, Metric

__all__ = ["NONE", "OTHER", "SILENT", "Backend", "Record", "Series", "Telemetry"]

log = logging.getLogger(__name__)

Record: TypeAlias = Callable[[float], None]

NONE, OTHER = "none", "other"
_OPEN_VALUES = 64  # of a label that has no bound of its own


class Backend(Protocol):
    """Where numbers go: `prometheus_client`, or the classes that Ray exports."""

    def child(self, metric: Metric, values: tuple[str, ...]) -> Record:
        """What adds to, sets or observes one series of `metric`; asked for once a series."""
        ...

    def exposition(self) -> bytes | None:
        """Everything as Prometheus' text, or None where somebody else exports it."""
        ...


class Series:
    """One metric. Label values are given in the order of the table, as strings."""

    __slots__ = ("_children", "_make")

    def __init__(self, make: Callable[[tuple[str, ...]], tuple[tuple[str, ...], Record]]) -> None:
        self._children: dict[tuple[str, ...], Record] = {}
        self._make = make

    def record(self, amount: float, *values: str) -> None:
        """Add `amount` to a counter, set a gauge to it, observe it in a histogram."""
        child = self._children.get(values)
        (self.bind(*values) if child is None else child)(amount)

    def bind(self, *values: str) -> Record:
        """What records for these labels, for a caller that does it often.

        It shows a zero at once where the backend can, so that an alert sees the first increase.
        `ValueError` where there are not as many values as labels.
        """
        child = self._children.get(values)
        if child is None:
            bounded, child = self._make(values)
            self._children[bounded] = child
            if tuple(value or NONE for value in values) == bounded:  # as few as of those
                self._children[values] = child
        return child


class _SilentSeries(Series):
    """Records nothing."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(lambda values: (values, _drop))

    def record(self, amount: float, *values: str) -> None:
        """Nothing."""

    def bind(self, *values: str) -> Record:
        """What does nothing."""
        return _drop


def _drop(amount: float) -> None:
    """Forget it."""


class Telemetry:
    """Every series of a process. With no backend, recording does nothing.

    `models` are the public ids that may be a label (none named: the first that come); `tenants` is
    how many tenants have series of their own.
    """

    def __init__(
        self, backend: Backend | None, models: Iterable[str] = (), tenants: int = 100
    ) -> None:
        self._backend = backend
        self._fixed = {label: frozenset(values) for label, values in CHOICES.items()}
        if chosen := frozenset(models):
            self._fixed["model"] = chosen
        self._most = {"tenant": tenants}
        self._met: dict[str, set[str]] = {}
        self._series: dict[Metric, Series] = {}
        self._made: dict[tuple[Metric, tuple[str, ...]], Record] = {}
        self._looks: list[Callable[[Telemetry], None]] = []
        self._lock = threading.Lock()

    def series(self, metric: Metric) -> Series:
        """The series of one metric; always the same for the same one."""
        with self._lock:
            found = self._series.get(metric)
            if found is None:
                found = self._series[metric] = self._new(metric)
            return found

    def watch(self, look: Callable[[Telemetry], None]) -> None:
        """Have `look(telemetry)` set what is read and not counted, at every poll."""
        if self._backend is not None:
            self._looks.append(look)

    def poll(self) -> None:
        """Do every look. A failing one is logged, and the others are done."""
        for look in tuple(self._looks):
            try:
                look(self)
            except Exception:
                log.exception("a metric could not be read")

    def exposition(self) -> bytes | None:
        """Poll, and everything as Prometheus' text; None where it is not exported here."""
        if self._backend is None:
            return None
        self.poll()
        return self._backend.exposition()

    def _new(self, metric: Metric) -> Series:
        backend = self._backend
        if backend is None:
            return _SilentSeries()

        def make(values: tuple[str, ...]) -> tuple[tuple[str, ...], Record]:
            if len(values) != len(metric.labels):
                raise ValueError(f"{metric.name} has the labels {metric.labels}, not {values}")
            with self._lock:
                bounded = tuple(map(self._bounded, metric.labels, values))
                child = self._made.get((metric, bounded))
                if child is None:
                    child = self._made[metric, bounded] = backend.child(metric, bounded)
                return bounded, child

        return Series(make)

    def _bounded(self, label: str, value: str) -> str:
        if not value:
            return NONE
        fixed = self._fixed.get(label)
        if fixed is not None:
            return value if value in fixed or value == NONE else OTHER
        met = self._met.setdefault(label, set())
        if value not in met:
            if value in (NONE, OTHER):
                return value
            if len(met) >= self._most.get(label, _OPEN_VALUES):
                return OTHER
            met.add(value)
        return value


SILENT = Telemetry(None)
