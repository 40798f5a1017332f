"""How a tenants file stands, as metrics."""

from __future__ import annotations

from pathlib import Path

from serving.telemetry import Telemetry
from serving.telemetry.prometheus import PrometheusBackend
from serving.tenants.file import FileDirectory
from serving.tenants.keys import new_key
from serving.tenants.observing import observe
from tests.tenants import entry, file_of


def test_a_broken_file_shows_in_the_metrics_until_it_is_good_again(tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    good = file_of({"acme": {"keys": [entry(new_key()), entry(new_key())]}})
    path.write_text(good)
    directory, telemetry = FileDirectory(path, clock=lambda: 1750000000.0), _telemetry()
    observe(directory, telemetry)

    def scrape() -> set[str]:
        directory.look()
        directory.look()
        return set((telemetry.exposition() or b"").decode().splitlines())

    assert {
        "polyvec_tenants_file_ok 1.0",
        "polyvec_tenants_file_loaded_timestamp_seconds 1.75e+09",
        "polyvec_tenants 1.0",
        "polyvec_tenants_keys 2.0",
        'polyvec_tenants_file_loads_total{result="loaded"} 1.0',
        'polyvec_tenants_file_loads_total{result="refused"} 0.0',
    } <= scrape()
    path.write_text("tenants: {}")
    scrape()
    assert {
        "polyvec_tenants_file_ok 0.0",
        "polyvec_tenants 1.0",
        'polyvec_tenants_file_loads_total{result="refused"} 1.0',
    } <= scrape()
    path.write_text(good)
    assert {
        "polyvec_tenants_file_ok 1.0",
        'polyvec_tenants_file_loads_total{result="loaded"} 2.0',
        'polyvec_tenants_file_loads_total{result="refused"} 1.0',
    } <= scrape()


def _telemetry() -> Telemetry:
    return Telemetry(PrometheusBackend())
