"""The façade: what reaches a backend, and what a label may say."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.telemetry import SILENT, Telemetry, metrics
from serving.telemetry.prometheus import PrometheusBackend


def scraped(telemetry: Telemetry) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample: its name and its label values, in the order of the labels' names."""
    text = (telemetry.exposition() or b"").decode()
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(PrometheusBackend(), models=("a", "b"), tenants=2)


def test_a_counter_adds_a_gauge_is_set_and_a_histogram_observes(telemetry: Telemetry) -> None:
    for amount in (2, 3):
        telemetry.series(metrics.BATCH_PADDING).record(amount, "a")
        telemetry.series(metrics.QUEUE_TOKENS).record(amount, "a")
        telemetry.series(metrics.CALLS_PER_HOP).record(amount, "embed", "a")
    found = scraped(telemetry)
    assert found["polyvec_batch_padding_tokens_total", ("a",)] == 5
    assert found["polyvec_queue_tokens", ("a",)] == 3
    assert found["polyvec_calls_per_hop_sum", ("embed", "a")] == 5
    assert found["polyvec_calls_per_hop_bucket", ("embed", "2.0", "a")] == 1


def test_a_model_that_is_not_served_is_no_label(telemetry: Telemetry) -> None:
    padding = telemetry.series(metrics.BATCH_PADDING)
    for model in ("a", "b", "../../etc/passwd", "c", ""):
        padding.record(1, model)
    values = {name[1][0]: value for name, value in scraped(telemetry).items()}
    assert values == {"a": 1, "b": 1, "other": 2, "none": 1}


def test_only_the_first_tenants_have_series_of_their_own(telemetry: Telemetry) -> None:
    billed = telemetry.series(metrics.BILLED_TOKENS)
    for number in range(1000):
        billed.record(1, f"tenant{number}", "a", "", "text")
    tokens = ("tokens", "refused", "store")
    telemetry.series(metrics.RATE_LIMIT_DECISIONS).record(1, "tenant2", *tokens)
    telemetry.series(metrics.RATE_LIMIT_DECISIONS).record(1, "tenant1", *tokens)
    assert scraped(telemetry) == {
        ("polyvec_billed_tokens_total", ("text", "a", "none", "tenant0")): 1,
        ("polyvec_billed_tokens_total", ("text", "a", "none", "tenant1")): 1,
        ("polyvec_billed_tokens_total", ("text", "a", "none", "other")): 998,
        ("polyvec_rate_limit_decisions_total", ("tokens", "store", "refused", "other")): 1,
        ("polyvec_rate_limit_decisions_total", ("tokens", "store", "refused", "tenant1")): 1,
    }


def test_a_value_that_is_none_of_a_labels_choices_is_other(telemetry: Telemetry) -> None:
    hop = telemetry.series(metrics.CALLS_PER_HOP)
    hop.record(1, "elsewhere", "a")
    assert ("polyvec_calls_per_hop_count", ("other", "a")) in scraped(telemetry)


def test_any_other_label_is_bounded_too(telemetry: Telemetry) -> None:
    exported = telemetry.series(metrics.EXPORTED_EVENTS)
    for number in range(10_000):
        exported.record(1, f"made-up-{number}", "sent")
    found = scraped(telemetry)
    assert len(found) == 65
    assert sum(found.values()) == 10_000


def test_what_is_bound_shows_a_zero_at_once(telemetry: Telemetry) -> None:
    add = telemetry.series(metrics.LEDGER_EVENTS).bind("dropped")
    assert scraped(telemetry) == {("polyvec_ledger_events_total", ("dropped",)): 0}
    add(3)
    telemetry.series(metrics.LEDGER_EVENTS).record(4, "dropped")
    assert scraped(telemetry) == {("polyvec_ledger_events_total", ("dropped",)): 7}


def test_a_wrong_number_of_labels_is_an_error(telemetry: Telemetry) -> None:
    with pytest.raises(ValueError, match="polyvec_requests_total has the labels"):
        telemetry.series(metrics.REQUESTS).record(1, "acme")


def test_what_is_read_is_read_at_every_scrape(telemetry: Telemetry) -> None:
    numbers: Iterator[float] = iter((3.0, 4.0))
    telemetry.watch(lambda t: t.series(metrics.LEDGER_LAG).record(next(numbers)))
    assert scraped(telemetry)["polyvec_ledger_lag_seconds", ()] == 3
    assert scraped(telemetry)["polyvec_ledger_lag_seconds", ()] == 4


def test_what_cannot_be_read_hinders_nothing_else(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry.watch(lambda t: t.series(metrics.LEDGER_LAG).record(1 / 0))
    telemetry.watch(lambda t: t.series(metrics.LEDGER_SPOOL).record(9))
    assert scraped(telemetry) == {("polyvec_ledger_spool_events", ()): 9}
    assert "could not be read" in caplog.text


def test_switched_off_it_records_nothing() -> None:
    SILENT.watch(lambda t: pytest.fail("nobody polls"))
    SILENT.series(metrics.REQUESTS).record(1)
    SILENT.series(metrics.REQUESTS).bind()(1)
    assert SILENT.exposition() is None


def test_threads_lose_no_count(telemetry: Telemetry) -> None:
    def count(number: int) -> None:
        for _ in range(500):
            telemetry.series(metrics.BILLED_TOKENS).record(2, f"tenant{number}", "a", "x", "text")

    threads = [threading.Thread(target=count, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = scraped(telemetry)
    assert sum(found.values()) == 8 * 500 * 2
    assert len(found) == 3


def test_many_observations_make_one_series(telemetry: Telemetry) -> None:
    times = 20_000
    labels = ("acme", "a", "retrieval.query", "/v1/embeddings", "200", "OK")
    for name, one in (("on", telemetry), ("off", SILENT)):
        record = one.series(metrics.REQUESTS).record
        record(1, *labels)
        began = time.perf_counter()
        for _ in range(times):
            record(1, *labels)
        each_us = (time.perf_counter() - began) / times * 1e6
        sys.stdout.write(f"{each_us:.2f} microseconds to count with six labels, {name}\n")
    assert list(scraped(telemetry).values()) == [times + 1]
