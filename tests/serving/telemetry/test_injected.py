"""The backend of a cluster, over Ray's own classes: they need no cluster to be made and used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serving.telemetry import Telemetry, metrics
from serving.telemetry.injected import InjectedBackend


class Noting:
    """Ray's three shapes, noting what they are told and as strict as they are."""

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
                note((name, "set", value, tags))

            def observe(self, value: float, tags: dict[str, str]) -> None:
                note((name, "observe", value, tags))

        return Instrument()


@pytest.fixture
def noting() -> Noting:
    return Noting()


@pytest.fixture
def telemetry(noting: Noting) -> Telemetry:
    return Telemetry(InjectedBackend(noting.make, noting.make, noting.make))


def test_numbers_arrive_with_their_labels_by_name(noting: Noting, telemetry: Telemetry) -> None:
    telemetry.series(metrics.LEDGER_EVENTS).record(2, "written")
    telemetry.series(metrics.LEDGER_LAG).record(0)
    telemetry.series(metrics.CALLS_PER_HOP).record(3, "embed", "a")
    assert noting.told == [
        ("polyvec_ledger_events_total", "inc", 2.0, {"result": "written"}),
        ("polyvec_ledger_lag_seconds", "set", 0.0, {}),
        ("polyvec_calls_per_hop", "observe", 3.0, {"hop": "embed", "model": "a"}),
    ]


def test_a_metric_is_made_once_with_its_whole_name(noting: Noting, telemetry: Telemetry) -> None:
    for model in ("a", "b"):
        telemetry.series(metrics.BATCH_TOKENS).record(1, model)
    assert noting.made == [
        (
            "polyvec_batch_tokens",
            {
                "description": metrics.BATCH_TOKENS.help,
                "tag_keys": ("model",),
                "boundaries": list(metrics.BATCH_TOKENS.buckets),
            },
        )
    ]


def test_a_counter_is_not_told_of_nothing(noting: Noting, telemetry: Telemetry) -> None:
    telemetry.series(metrics.LEDGER_EVENTS).record(0, "dropped")
    assert noting.told == []


def test_it_writes_no_text(telemetry: Telemetry) -> None:
    assert telemetry.exposition() is None


def test_rays_own_classes_take_every_metric_and_number() -> None:
    from ray.util import metrics as ray

    telemetry = Telemetry(InjectedBackend(ray.Counter, ray.Gauge, ray.Histogram))
    for metric in metrics.METRICS:
        for amount in (0, 1, 0.5, np.int32(3), np.float32(3)):
            telemetry.series(metric).record(amount, *(f"a {label}" for label in metric.labels))
