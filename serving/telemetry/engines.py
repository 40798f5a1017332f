"""What an engine tells of its batches, its queue and its adapters. `model` is the public id."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving.telemetry import metrics
from serving.telemetry.recording import Telemetry

__all__ = ["AdapterMetrics", "BatchMetrics", "watch_queue"]


class BatchMetrics:
    """The batches of one engine."""

    def __init__(self, telemetry: Telemetry, model: str) -> None:
        self._tokens = telemetry.series(metrics.BATCH_TOKENS).bind(model)
        self._inputs = telemetry.series(metrics.BATCH_INPUTS).bind(model)
        self._padding = telemetry.series(metrics.BATCH_PADDING).bind(model)

    def ran(self, inputs: int, tokens: int, padding: int = 0) -> None:
        """One more batch: `tokens` are those of its inputs, without the `padding` beside them."""
        self._tokens(tokens)
        self._inputs(inputs)
        self._padding(padding)


class AdapterMetrics:
    """The adapters of one engine."""

    def __init__(self, telemetry: Telemetry, model: str) -> None:
        self._model = model
        self._loads = telemetry.series(metrics.ADAPTER_LOADS)
        self._duration = telemetry.series(metrics.ADAPTER_LOAD_DURATION)
        self._resident = telemetry.series(metrics.ADAPTERS_RESIDENT)
        self._loaded = 0

    @contextmanager
    def loading(self) -> Iterator[None]:
        """One adapter is loaded in this block."""
        began = time.perf_counter()
        try:
            yield
        except BaseException:
            self._loads.record(1, self._model, "failed")
            raise
        self._loaded += 1
        self._loads.record(1, self._model, "loaded")
        self._duration.record(time.perf_counter() - began, self._model)
        self._resident.record(self._loaded, self._model)

    def dropped(self) -> None:
        """One adapter is there no more."""
        self._loaded -= 1
        self._loads.record(1, self._model, "dropped")
        self._resident.record(self._loaded, self._model)


def watch_queue(
    telemetry: Telemetry, model: str, standing: Callable[[], tuple[float, int]]
) -> None:
    """Show at every poll what `standing()` gives: seconds that the oldest waits, and tokens."""

    def look(telemetry: Telemetry) -> None:
        age_s, tokens = standing()
        telemetry.series(metrics.QUEUE_AGE).record(age_s, model)
        telemetry.series(metrics.QUEUE_TOKENS).record(tokens, model)

    telemetry.watch(look)
