"""The backend of a cluster: classes in the shape of Ray's `Counter` and `Gauge`, handed in.

Nothing here knows Ray, whose agent on each node writes the text and puts `ray_` before every name.

Recording is an append, and what was appended is summed and handed on at every `exposition`, so a
record costs 50 ns where Ray's own classes take 2 to 4 µs. A histogram becomes gauges with its usual
names, `_bucket`, `_sum` and `_count`: Ray replays each observation of its own histograms in the
agent, 5 to 10 µs of a core, as the middle of its bucket, so that no sum is right. Nothing is lost
before the last `exposition`; a kill loses what came after it.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Protocol, TypeAlias

from prometheus_client.utils import floatToGoString

from serving.telemetry.metrics import Metric
from serving.telemetry.recording import Record

__all__ = ["InjectedBackend"]

# Ray's classes have no type that both of its flavours share.
_Make: TypeAlias = Callable[..., Any]
_Tags: TypeAlias = dict[str, str]


class _Gathered(Protocol):
    """What one series has been told."""

    def hand_on(self) -> None:
        """Tell it to the instruments; gauges each time, since Ray forgets those not told again."""
        ...


class InjectedBackend:
    """`InjectedBackend(metrics.Counter, metrics.Gauge)`, of Ray's `metrics`."""

    def __init__(self, counter: _Make, gauge: _Make) -> None:
        self._make = {"counter": counter, "gauge": gauge}
        self._instruments: dict[str, Any] = {}
        self._series: list[_Gathered] = []
        self._lock = threading.Lock()

    def child(self, metric: Metric, values: tuple[str, ...]) -> Record:
        """See `Backend`."""
        tags = dict(zip(metric.labels, values, strict=True))
        told: deque[float] = deque(maxlen=1 if metric.kind == "gauge" else None)
        if metric.kind == "histogram":
            bucket, total, count = (
                self._instrument(metric, "gauge", part, *labels)
                for part, *labels in (("_bucket", "le"), ("_sum",), ("_count",))
            )
            self._series.append(_Histogram(told, metric.buckets, bucket, total, count, tags))
        elif metric.kind == "gauge":
            self._series.append(_Gauge(told, self._instrument(metric, "gauge"), tags))
        else:
            self._series.append(_Counter(told, self._instrument(metric, "counter"), tags))
        return told.append

    def exposition(self) -> None:
        """Hand on what was recorded since the last time. None: what was handed in exports it."""
        with self._lock:
            for one in tuple(self._series):
                one.hand_on()

    def _instrument(self, metric: Metric, kind: str, part: str = "", *labels: str) -> Any:
        name = metric.name + part
        if name not in self._instruments:
            self._instruments[name] = self._make[kind](
                name, description=metric.help, tag_keys=(*metric.labels, *labels)
            )
        return self._instruments[name]


class _Counter:
    def __init__(self, told: deque[float], counter: Any, tags: _Tags) -> None:
        self._told, self._counter, self._tags = told, counter, tags

    def hand_on(self) -> None:
        if added := sum(_taken(self._told)):  # Ray takes no zero
            self._counter.inc(added, self._tags)


class _Gauge:
    def __init__(self, told: deque[float], gauge: Any, tags: _Tags) -> None:
        self._told, self._gauge, self._tags = told, gauge, tags

    def hand_on(self) -> None:
        for amount in tuple(self._told):
            self._gauge.set(float(amount), self._tags)


class _Histogram:
    """`counts` is one for every bucket, not yet added up to those below."""

    def __init__(
        self,
        told: deque[float],
        bounds: Sequence[float],
        bucket: Any,
        total: Any,
        count: Any,
        tags: _Tags,
    ) -> None:
        self._told, self._bounds, self._tags = told, bounds, tags
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._bucket, self._total, self._count = bucket, total, count
        ends = map(floatToGoString, (*bounds, "inf"))
        self._tags_of_buckets = [{**tags, "le": end} for end in ends]

    def hand_on(self) -> None:
        amounts = _taken(self._told)
        self._sum += sum(amounts)
        for amount in amounts:
            self._counts[bisect_left(self._bounds, amount)] += 1
        below = [float(count) for count in accumulate(self._counts)]
        for tags, count in zip(self._tags_of_buckets, below, strict=True):
            self._bucket.set(count, tags)
        self._total.set(self._sum, self._tags)
        self._count.set(below[-1], self._tags)


def _taken(told: deque[float]) -> list[float]:
    """Everything out of it; what others append meanwhile stays for the next time."""
    return [float(told.popleft()) for _ in range(len(told))]  # Ray takes no NumPy numbers
