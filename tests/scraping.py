"""What a telemetry shows, sample by sample, for tests to look into."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from serving.telemetry import Telemetry

__all__ = ["shown"]


def shown(telemetry: Telemetry) -> dict[tuple[str, ...], float]:
    """Every sample that is not of a bucket, by its name and then its labels' values, sorted."""
    text = (telemetry.exposition() or b"").decode()
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }
