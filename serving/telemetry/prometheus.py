"""The backend of a service that stands alone: `prometheus_client`, in a registry of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client import Metric as Family
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from serving.telemetry.metrics import Metric
from serving.telemetry.recording import Record

__all__ = ["CONTENT_TYPE", "PrometheusBackend"]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_Instrument: TypeAlias = Counter | Gauge | Histogram


class PrometheusBackend:
    """Metrics of this process alone. A metric appears with its first series."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._instruments: dict[Metric, _Instrument] = {}

    def child(self, metric: Metric, values: tuple[str, ...]) -> Record:
        """See `Backend`."""
        instrument = self._instruments.get(metric)
        if instrument is None:
            instrument = self._instruments[metric] = self._new(metric)
        child = instrument.labels(*values) if values else instrument
        match child:
            case Counter():
                return child.inc
            case Gauge():
                return child.set
            case Histogram():
                return child.observe

    def exposition(self) -> bytes:
        """Prometheus' text format 0.0.4, in UTF-8."""
        return generate_latest(_Plain(self._registry))

    def _new(self, metric: Metric) -> _Instrument:
        name, text, labels = metric.name, metric.help, metric.labels
        match metric.kind:
            case "counter":
                return Counter(name, text, labels, registry=self._registry)
            case "gauge":
                return Gauge(name, text, labels, registry=self._registry)
            case "histogram":
                return Histogram(
                    name, text, labels, registry=self._registry, buckets=metric.buckets
                )


class _Plain(CollectorRegistry):
    """A registry without the time of creation, which the library would show as a gauge each."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._of = registry

    def collect(self) -> Iterable[Family]:
        for family in self._of.collect():
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            yield family
