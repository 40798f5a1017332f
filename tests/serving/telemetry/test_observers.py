"""What the quotas and the ledger tell, as a scrape has it."""

from __future__ import annotations

import pytest

from serving.limits.observing import Observer
from serving.metering.exports import ExportObserver
from serving.metering.meter import MeterObserver
from serving.telemetry import Telemetry
from serving.telemetry.observers import ExportMetrics, LedgerMetrics, QuotaMetrics
from serving.telemetry.prometheus import PrometheusBackend


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(PrometheusBackend())


def lines(telemetry: Telemetry) -> set[str]:
    return set((telemetry.exposition() or b"").decode().splitlines())


def test_decisions_are_counted_by_their_bucket_and_who_decided(telemetry: Telemetry) -> None:
    observer: Observer = QuotaMetrics(telemetry)
    observer.decided("acme", "admitted", None, "store")
    observer.decided("acme", "refused", "month", "cache")
    name = "polyvec_rate_limit_decisions_total"
    assert {
        f'{name}{{bucket="none",by="store",decision="admitted",tenant="acme"}} 1.0',
        f'{name}{{bucket="month",by="cache",decision="refused",tenant="acme"}} 1.0',
        "polyvec_rate_limit_store_up 1.0",
    } <= lines(telemetry)


def test_a_store_that_is_down_shows_until_it_is_back(telemetry: Telemetry) -> None:
    observer: Observer = QuotaMetrics(telemetry)
    observer.store(False, "refused")
    observer.store(False, "refused")
    observer.lost("acme")
    assert {
        "polyvec_rate_limit_store_up 0.0",
        "polyvec_rate_limit_store_failures_total 2.0",
        "polyvec_rate_limit_lost_total 1.0",
    } <= lines(telemetry)
    observer.store(True, "")
    assert {
        "polyvec_rate_limit_store_up 1.0",
        "polyvec_rate_limit_store_failures_total 2.0",
    } <= lines(telemetry)


def test_the_ledger_says_what_became_of_events_and_how_far_it_is(telemetry: Telemetry) -> None:
    observer: MeterObserver = LedgerMetrics(telemetry)
    observer.counted("written", 5)
    observer.counted("duplicate", 2)
    observer.wrote(0.002)
    observer.standing(1.5, 7)
    assert {
        'polyvec_ledger_events_total{result="written"} 5.0',
        'polyvec_ledger_events_total{result="duplicate"} 2.0',
        "polyvec_ledger_lag_seconds 1.5",
        "polyvec_ledger_write_duration_seconds_sum 0.002",
        "polyvec_ledger_spool_events 7.0",
    } <= lines(telemetry)


def test_an_export_says_what_it_sent_and_how_far_it_is_behind(telemetry: Telemetry) -> None:
    observer: ExportObserver = ExportMetrics(telemetry)
    observer.exported("stripe", "sent", 3)
    observer.exported("stripe", "failed", 1)
    observer.behind("stripe", 12.5)
    assert {
        'polyvec_exported_events_total{exporter="stripe",result="sent"} 3.0',
        'polyvec_exported_events_total{exporter="stripe",result="failed"} 1.0',
        'polyvec_export_lag_seconds{exporter="stripe"} 12.5',
    } <= lines(telemetry)
