"""What an agent of Ray shows: filtered text, and a real node scraped after real requests."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator
from importlib.metadata import version

import httpx
import PIL.Image
import pytest
import ray
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deployments.local import LocalNode
from deployments.measuring import Observing, filtered, node_metrics, telemetry_of
from serving.telemetry import SILENT, metrics
from tests.deployments.conftest import MINI
from tests.serving.media.pictures import encoded, noise

NOISE = 'otel_scope_name="ray",otel_scope_schema_url="",otel_scope_version=""'
EVERY = 'Component="core_worker",NodeAddress="127.0.0.1",SessionName="s",Version="2.60.0"'


def line(name: str, labels: str, value: str) -> str:
    return f'{name}{{{EVERY},WorkerId="w",{labels}{NOISE}}} {value}\n'


def test_of_an_agents_text_ours_is_left_without_the_noise() -> None:
    text = (
        "# HELP ray_tasks Tasks.\n# TYPE ray_tasks gauge\n"
        + line("ray_tasks", 'State="RUNNING",', "1.0")
        + "# HELP ray_serve_x X of it.\n# TYPE ray_serve_x counter\n"
        + line("ray_serve_x", r'MyVersion="1",a="\"Version=\",}",', "2.5e+06")
        + "# HELP ray_polyvec_y Y.\n# TYPE ray_polyvec_y gauge\n"
        + line("ray_polyvec_y", "", "0.0")
    )
    assert filtered(text) == (
        "# HELP ray_serve_x X of it.\n# TYPE ray_serve_x counter\n"
        r'ray_serve_x{WorkerId="w",MyVersion="1",a="\"Version=\",}"} 2.5e+06'
        "\n# HELP ray_polyvec_y Y.\n# TYPE ray_polyvec_y gauge\n"
        'ray_polyvec_y{WorkerId="w"} 0.0\n'
    )


def test_histograms_that_came_as_gauges_are_histograms_again() -> None:
    parts = (
        ("count", "", "3.0"),
        ("bucket", 'le="1.0",', "1.0"),
        ("bucket", 'le="+Inf",', "3.0"),
        ("sum", "", "7.5"),
    )
    names = dict.fromkeys(f"ray_polyvec_h_{part}" for part, _, _ in parts)
    text = "".join(
        f"# HELP {name} H.\n# TYPE {name} gauge\n"
        + "".join(line(name, le, value) for part, le, value in parts if name.endswith(part))
        for name in names
    )
    [family] = text_string_to_metric_families(filtered(text))
    assert (family.name, family.type) == ("ray_polyvec_h", "histogram")
    assert [(s.name[14:], s.labels.get("le"), s.value) for s in family.samples] == [
        ("bucket", "1.0", 1),
        ("bucket", "+Inf", 3),
        ("sum", None, 7.5),
        ("count", None, 3),
    ]


def test_an_agent_keeps_every_series_of_a_metric_apart() -> None:
    """From 1.45.2 on the SDK puts all beyond 2000 into one without labels: tenants among them."""
    registry = CollectorRegistry()
    provider = MeterProvider([PrometheusMetricReader(registry=registry)], shutdown_on_exit=False)

    def seen(options: CallbackOptions) -> Iterator[Observation]:
        return (Observation(1, {"tenant": str(n)}) for n in range(2500))

    provider.get_meter("ray").create_observable_counter("billed", [seen])
    text = generate_latest(registry).decode()
    provider.shutdown()
    assert text.count("billed_total{") == 2500, version("opentelemetry-sdk")


def test_outside_of_a_replica_nothing_is_measured() -> None:
    assert telemetry_of("replica", ["m"], Observing()) is SILENT


def embed(http: httpx.Client, model: str, *inputs: object) -> int:
    answer = http.post("/v1/embeddings", json={"model": model, "input": list(inputs)})
    answer.raise_for_status()
    return int(answer.json()["usage"]["prompt_tokens"])


def totals(text: str) -> dict[tuple[str, ...], float]:
    """By name and then model, where there is one; summed over the rest."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if "le" not in sample.labels:
                key = sample.name, sample.labels.get("model", "")
                found[key] = found.get(key, 0.0) + sample.value
    return found


@pytest.mark.ray
def test_a_node_shows_what_every_part_of_the_graph_tells(
    node: LocalNode, http: httpx.Client
) -> None:
    def scraped() -> dict[tuple[str, ...], float]:
        return totals(asyncio.run(node_metrics()).decode())

    tokens = ("ray_polyvec_batch_tokens_sum", MINI)
    before = scraped().get(tokens, 0.0)
    billed = sum(embed(http, MINI, "one text", "and another one", str(n)) for n in range(20))
    picture = base64.b64encode(encoded(PIL.Image.fromarray(noise(56, 84)), "PNG")).decode()
    embed(http, "v4", {"image": picture}, {"text": "a text"})
    pixels = ("ray_polyvec_image_pixels_count", "v4")
    least = {tokens: before + billed, pixels: 1}  # each of another process, which tells in its time
    until = time.monotonic() + 30
    found = scraped()
    while any(found.get(k, 0.0) < n for k, n in least.items()) and time.monotonic() < until:
        found = scraped()
    assert found[tokens] == before + billed
    assert found[pixels] >= 1
    assert found["ray_polyvec_stage_duration_seconds_count", "v4"] >= 1
    assert found["ray_polyvec_adapters_resident", "v4"] >= 1
    assert found["ray_polyvec_model_ready", MINI] == 2
    assert found["ray_polyvec_queue_tokens", MINI] == 0
    names = {name for name, _ in found}
    for metric in (metrics.QUEUE_AGE, metrics.BUILD_INFO):
        assert f"ray_{metric.name}" in names
    for counter in (metrics.ADAPTER_LOADS,):
        assert f"ray_{counter.name}" in names
    assert any(name.startswith("ray_serve_") for name in names)
    assert not any(name.startswith("ray_tasks") for name in names)


@pytest.mark.ray
def test_the_exporter_of_a_node_is_on_loopback(node: LocalNode) -> None:
    [one] = ray.nodes()
    assert one["NodeManagerAddress"] == "127.0.0.1"
    assert one["MetricsExportPort"] > 0
