"""The backend of a cluster: classes in the shape of Ray's `Counter`, `Gauge` and `Histogram`.

They are handed in, since nothing here knows Ray. Its exporter puts `ray_` before every name; the
text is written on its nodes and not here. It takes no zero for a counter and no NumPy numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from serving.telemetry.metrics import Metric
from serving.telemetry.recording import Record

__all__ = ["InjectedBackend"]

# Ray's classes have no type that both of its flavours share.
_Make: TypeAlias = Callable[..., Any]


class InjectedBackend:
    """`InjectedBackend(metrics.Counter, metrics.Gauge, metrics.Histogram)`, of Ray's `metrics`."""

    def __init__(self, counter: _Make, gauge: _Make, histogram: _Make) -> None:
        self._make = {"counter": counter, "gauge": gauge, "histogram": histogram}
        self._instruments: dict[Metric, Any] = {}

    def child(self, metric: Metric, values: tuple[str, ...]) -> Record:
        """See `Backend`."""
        instrument = self._instruments.get(metric)
        if instrument is None:
            instrument = self._instruments[metric] = self._new(metric)
        tags = dict(zip(metric.labels, values, strict=True))
        if metric.kind == "gauge":
            return lambda amount: instrument.set(float(amount), tags)
        if metric.kind == "histogram":
            return lambda amount: instrument.observe(float(amount), tags)

        def add(amount: float) -> None:
            if amount:
                instrument.inc(float(amount), tags)

        return add

    def exposition(self) -> None:
        """None: what was handed in exports by itself."""

    def _new(self, metric: Metric) -> Any:
        bounds = {"boundaries": list(metric.buckets)} if metric.buckets else {}
        return self._make[metric.kind](
            metric.name, description=metric.help, tag_keys=metric.labels, **bounds
        )
