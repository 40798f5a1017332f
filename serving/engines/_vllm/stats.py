"""vLLM's own metrics, recorded where ours are: its logger over the series of a `Telemetry`.

Its names stay, with `_` for `:`. Of them only those that say something here: the rest are about
generated tokens, or have a label that a caller could make series with.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from vllm.v1.metrics.loggers import PrometheusStatLogger

from serving.telemetry import Telemetry
from serving.telemetry.engines import BatchMetrics
from serving.telemetry.metrics import Kind, Metric
from serving.telemetry.recording import Record

__all__ = ["stat_logger"]

_KEPT = (
    "e2e_request_latency_seconds",
    "iteration_tokens_total",
    "kv_cache_usage_perc",
    "mm_cache_hits",
    "mm_cache_queries",
    "num_requests_running",
    "num_requests_waiting",
    "prefix_cache_hits",
    "prefix_cache_queries",
    "prompt_tokens",
    "request_inference_time_seconds",
    "request_prompt_tokens",
    "request_queue_time_seconds",
    "request_success",
)
_metrics: dict[str, Metric] = {}  # by vLLM's name: engines of one process share them


def stat_logger(telemetry: Telemetry, model: str) -> type[PrometheusStatLogger]:
    """For `AsyncLLM`, which wants a class of its own kind. `model` is the public id."""
    batches = BatchMetrics(telemetry, model)

    class Logger(PrometheusStatLogger):
        _gauge_cls = staticmethod(partial(_Instrument, telemetry, "gauge"))
        _counter_cls = staticmethod(partial(_Instrument, telemetry, "counter"))
        _histogram_cls = staticmethod(partial(_Instrument, telemetry, "histogram"))

        def record(
            self, scheduler_stats: Any, iteration_stats: Any, *rest: Any, **named: Any
        ) -> None:
            """After every step. Its inputs are those that it finished; it pads nothing."""
            super().record(scheduler_stats, iteration_stats, *rest, **named)
            if iteration_stats and (tokens := iteration_stats.prompt_token_stats.computed):
                batches.ran(len(iteration_stats.finished_requests), tokens)

    return Logger


class _Instrument:
    """In the shape of `prometheus_client`'s."""

    def __init__(
        self,
        telemetry: Telemetry,
        kind: Kind,
        name: str,
        documentation: str,
        labelnames: Iterable[str] = (),
        buckets: Iterable[float] = (),
        **_: object,
    ) -> None:
        self._series = None
        self._labels = tuple(labelnames)
        plain = name.removeprefix("vllm:")
        if plain in _KEPT:
            made = Metric(f"vllm_{plain}", kind, documentation, self._labels, tuple(buckets))
            self._series = telemetry.series(_metrics.setdefault(plain, made))

    def labels(self, *values: object, **named: object) -> _Child:
        if self._series is None:
            return _Child(_nothing)
        found = values or tuple(named[label] for label in self._labels)
        return _Child(self._series.bind(*map(str, found)))


class _Child:
    def __init__(self, record: Record) -> None:
        self.set = self.observe = self._record = record

    def inc(self, amount: float = 1) -> None:
        self._record(amount)

    def set_to_current_time(self) -> None:
        """Of what is not kept only."""


def _nothing(amount: float) -> None:
    """Forget it."""
