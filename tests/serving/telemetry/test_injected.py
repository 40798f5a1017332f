"""The backend of a cluster, over Ray's own classes: they need no cluster to be made and used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from serving.telemetry import Telemetry, metrics
from serving.telemetry.injected import InjectedBackend
from serving.telemetry.metrics import Metric


class Noting:
    """Ray's two shapes, noting what they are told and as strict as they are."""

    def __init__(self) -> None:
        self.made: list[tuple[str, dict[str, Any]]] = []
        self.told: list[tuple[str, str, float, dict[str, str]]] = []

    def make(self, name: str, **options: Any) -> Any:
        self.made.append((name, options))
        note = self.told.append

        class Instrument:
            def inc(self, value: float, tags: dict[str, str]) -> None:
                assert isinstance(value, int | float) and value > 0
                note((name, "inc", value, tags))

            def set(self, value: float, tags: dict[str, str]) -> None:
                assert isinstance(value, int | float)
                note((name, "set", value, tags))

        return Instrument()


@pytest.fixture
def noting() -> Noting:
    return Noting()


@pytest.fixture
def telemetry(noting: Noting) -> Telemetry:
    return Telemetry(InjectedBackend(noting.make, noting.make))


def test_numbers_arrive_with_their_labels_by_name(noting: Noting, telemetry: Telemetry) -> None:
    telemetry.series(metrics.LEDGER_EVENTS).record(2, "written")
    telemetry.series(metrics.LEDGER_EVENTS).record(3, "written")
    telemetry.series(metrics.LEDGER_LAG).record(7)
    telemetry.series(metrics.LEDGER_LAG).record(0)
    telemetry.exposition()
    assert noting.told == [
        ("polyvec_ledger_events_total", "inc", 5.0, {"result": "written"}),
        ("polyvec_ledger_lag_seconds", "set", 0.0, {}),
    ]


def test_nothing_is_told_before_it_is_asked_for_and_none_of_it_twice(
    noting: Noting, telemetry: Telemetry
) -> None:
    telemetry.series(metrics.LEDGER_EVENTS).record(2, "written")
    assert noting.told == []
    telemetry.exposition()
    telemetry.exposition()
    assert [told[2] for told in noting.told] == [2.0]


def test_a_gauge_is_told_every_time(noting: Noting, telemetry: Telemetry) -> None:
    telemetry.series(metrics.LEDGER_LAG).record(7)
    telemetry.exposition()
    telemetry.exposition()
    assert [told[2] for told in noting.told] == [7.0, 7.0]


def test_a_histogram_is_exact_in_gauges(noting: Noting, telemetry: Telemetry) -> None:
    histogram = Metric("h", "histogram", "A histogram.", ("model",), (0.5, 1.0, 2_000_000.0))
    series = telemetry.series(histogram)
    for amount in (0.1, 0.5, 0.7, 3, 3_000_000):
        series.record(amount, "a")
    telemetry.exposition()
    noting.told.clear()
    series.record(1, "a")
    telemetry.exposition()
    assert noting.told == [
        ("h_bucket", "set", 2.0, {"model": "a", "le": "0.5"}),
        ("h_bucket", "set", 4.0, {"model": "a", "le": "1.0"}),
        ("h_bucket", "set", 5.0, {"model": "a", "le": "2e+06"}),
        ("h_bucket", "set", 6.0, {"model": "a", "le": "+Inf"}),
        ("h_sum", "set", 3_000_005.3, {"model": "a"}),
        ("h_count", "set", 6.0, {"model": "a"}),
    ]


def test_a_metric_is_made_once_with_its_whole_name(noting: Noting, telemetry: Telemetry) -> None:
    for model in ("a", "b"):
        telemetry.series(metrics.BATCH_PADDING).record(1, model)
        telemetry.series(metrics.BATCH_TOKENS).record(1, model)
    help_ = metrics.BATCH_TOKENS.help
    assert noting.made == [
        (
            "polyvec_batch_padding_tokens_total",
            {"description": metrics.BATCH_PADDING.help, "tag_keys": ("model",)},
        ),
        ("polyvec_batch_tokens_bucket", {"description": help_, "tag_keys": ("model", "le")}),
        ("polyvec_batch_tokens_sum", {"description": help_, "tag_keys": ("model",)}),
        ("polyvec_batch_tokens_count", {"description": help_, "tag_keys": ("model",)}),
    ]


def test_a_counter_is_not_told_of_nothing(noting: Noting, telemetry: Telemetry) -> None:
    telemetry.series(metrics.LEDGER_EVENTS).record(0, "dropped")
    telemetry.exposition()
    assert noting.told == []


def test_nothing_that_many_threads_record_is_lost(noting: Noting, telemetry: Telemetry) -> None:
    events, tokens = telemetry.series(metrics.LEDGER_EVENTS), telemetry.series(metrics.BATCH_TOKENS)

    def record(thread: int) -> None:
        for turn in range(5000):
            events.record(1, "written")
            tokens.record(2, "a")
            if turn % 500 == thread:
                telemetry.exposition()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(record, range(8)))
    telemetry.exposition()
    assert sum(told[2] for told in noting.told if told[1] == "inc") == 40_000
    last = {told[0]: told[2] for told in noting.told}
    assert (last["polyvec_batch_tokens_count"], last["polyvec_batch_tokens_sum"]) == (
        40_000,
        80_000,
    )


def test_it_writes_no_text(telemetry: Telemetry) -> None:
    assert telemetry.exposition() is None


def test_rays_own_classes_take_every_metric_and_number() -> None:
    from ray.util import metrics as ray

    telemetry = Telemetry(InjectedBackend(ray.Counter, ray.Gauge))
    for metric in metrics.METRICS:
        for amount in (0, 1, 0.5, np.int32(3), np.float32(3)):
            telemetry.series(metric).record(amount, *(f"a {label}" for label in metric.labels))
    telemetry.exposition()
