"""The text that a scrape reads: every metric of the table in it, and good Prometheus."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.telemetry import Telemetry, metrics
from serving.telemetry.prometheus import CONTENT_TYPE, PrometheusBackend


def everything() -> bytes:
    """A scrape in which every metric has a series."""
    telemetry = Telemetry(PrometheusBackend())
    for metric in metrics.METRICS:
        telemetry.series(metric).record(2, *(f"a {label}" for label in metric.labels))
    return telemetry.exposition() or b""


def test_a_scrape_has_every_metric_as_the_table_has_it() -> None:
    families = {f.name: f for f in text_string_to_metric_families(everything().decode())}
    assert len(families) == len(metrics.METRICS)
    for metric in metrics.METRICS:
        found = families[metric.name.removesuffix("_total")]
        assert (found.type, found.documentation) == (metric.kind, metric.help)
        labels = {name for sample in found.samples for name in sample.labels} - {"le"}
        assert labels == set(metric.labels)
        bounds = [float(s.labels["le"]) for s in found.samples if "le" in s.labels]
        assert bounds[:-1] == list(metric.buckets)


def test_a_scrape_has_only_names_of_the_table() -> None:
    names = {metric.name for metric in metrics.METRICS}
    for family in text_string_to_metric_families(everything().decode()):
        for sample in family.samples:
            parts = ("_bucket", "_sum", "_count") if family.type == "histogram" else ()
            base = next((sample.name.removesuffix(p) for p in parts if sample.name.endswith(p)), "")
            assert (base or sample.name) in names


def test_two_services_in_a_process_do_not_share_their_numbers() -> None:
    one, two = Telemetry(PrometheusBackend()), Telemetry(PrometheusBackend())
    one.series(metrics.LEDGER_SPOOL).record(1)
    assert two.exposition() == b""
    assert b"polyvec_ledger_spool_events 1.0\n" in (one.exposition() or b"")


def test_a_label_is_escaped() -> None:
    telemetry = Telemetry(PrometheusBackend())
    telemetry.series(metrics.QUEUE_TOKENS).record(1, 'a"\n\\ü')
    [family] = text_string_to_metric_families((telemetry.exposition() or b"").decode())
    assert family.samples[0].labels == {"model": 'a"\n\\ü'}


def test_the_content_type_is_that_of_the_text_format() -> None:
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus' promtool is not here")
def test_promtool_has_nothing_to_say() -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=everything(), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
