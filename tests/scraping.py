"""What a telemetry shows, sample by sample, for tests to look into."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from serving.telemetry import Telemetry

__all__ = ["names", "shown"]


def names(telemetry: Telemetry) -> set[str]:
    """Of every sample, those of buckets too."""
    text = (telemetry.exposition() or b"").decode()
    families = text_string_to_metric_families(text)
    return {sample.name for family in families for sample in family.samples}


def shown(telemetry: Telemetry) -> dict[tuple[str, ...], float]:
    """Every sample that is not of a bucket, by its name and then its labels' values, sorted."""
    text = (telemetry.exposition() or b"").decode()
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }
