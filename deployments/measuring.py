"""What every process of the graph tells of itself: metrics through Ray, the log, traces.

Each process hands its metrics to Ray once a second, which gives them to its agent on the node every
`RAY_metrics_report_interval_ms`; the agent writes the text for Prometheus, and a gateway shows it.
An orderly end hands on the rest, a kill loses those two intervals. Ray's plain classes are used and
not those of Serve, whose labels would only repeat what the model and WorkerId say.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPConnection, HTTPException
from threading import Thread

import ray
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.util import metrics as ray_metrics

from deployments.config import AppConfig
from deployments.config.accounts import LogsConfig, MetricsConfig, TracesConfig
from serving import __version__
from serving.errors import Unavailable
from serving.telemetry import SILENT, Telemetry, metrics, traces
from serving.telemetry.injected import InjectedBackend
from serving.telemetry.logs import configure_logging

__all__ = ["Observing", "filtered", "finish", "node_metrics", "observing", "telemetry_of"]

log = logging.getLogger("polyvec.measuring")

_EVERY_S = 1.0
_SCRAPE_S = 10.0
_OURS = ("ray_polyvec_", "ray_vllm_", "ray_serve_")
# The same on every line of a node, but WorkerId, without which series of two processes are one.
_NOISE = re.compile(
    r'(?<=[{,])(?:Component|NodeAddress|SessionName|Version|otel_scope_\w+)="(?:[^"\\]|\\.)*",?'
)
_PARTS = ("_bucket", "_sum", "_count")


@dataclass(frozen=True, slots=True)
class Observing:
    """The parts of a configuration that are about telling."""

    logs: LogsConfig = field(default_factory=LogsConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    traces: TracesConfig = field(default_factory=TracesConfig)


def observing(config: AppConfig) -> Observing:
    """Those of `config`. A deployment given no more is not replaced when anything else changes."""
    return Observing(config.logs, config.metrics, config.traces)


def telemetry_of(process: str, models: Iterable[str], observing: Observing) -> Telemetry:
    """Log, trace and count from here on, as asked, in a replica of Serve's; elsewhere nothing.

    `process` is what it is in the graph, `models` the public ids that may be labels. `finish` is
    for its end.
    """
    try:
        serve.get_replica_context()
    except RayServeException:
        return SILENT
    configure_logging(observing.logs.level, observing.logs.form)
    traces.configure(observing.traces.endpoint, process)
    if not observing.metrics.enabled:
        return SILENT
    backend = InjectedBackend(ray_metrics.Counter, ray_metrics.Gauge)
    telemetry = Telemetry(backend, models, observing.metrics.tenants)
    telemetry.series(metrics.BUILD_INFO).record(1, __version__, platform.python_version())
    Thread(target=_hand_on, args=(telemetry,), name="metrics", daemon=True).start()
    return telemetry


async def finish(telemetry: Telemetry) -> None:
    """Hand on and send what is left."""
    telemetry.exposition()
    await asyncio.to_thread(traces.stop)


async def node_metrics() -> bytes:
    """What the agent of this node shows of ours, vLLM's and Serve's, as Prometheus' text 0.0.4.

    `Unavailable` where the agent does not answer.
    """
    return await asyncio.to_thread(_scraped)


def filtered(text: str) -> str:
    """Of an agent's text, what is ours; the histograms that came as gauges are histograms again."""
    helps: dict[str, str] = {}
    types: dict[str, str] = {}
    samples: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("# "):
            _, word, name, said = line.split(" ", 3)
            (helps if word == "HELP" else types)[name] = said
        elif name.startswith(_OURS):
            samples.setdefault(name, []).append(_plain(line))
    for name in [one for one in samples if types[one] == "gauge" and one.endswith(_PARTS[0])]:
        base = name.removesuffix(_PARTS[0])
        helps[base], types[base] = helps[name], "histogram"
        samples[base] = [line for part in _PARTS for line in samples.pop(base + part, ())]
    return "".join(_written(name, helps[name], types[name], samples[name]) for name in samples)


def _hand_on(telemetry: Telemetry) -> None:
    while True:
        time.sleep(_EVERY_S)
        try:
            telemetry.exposition()
        except Exception:
            log.exception("the metrics of the last second could not be handed on")


@cache
def _exporter() -> tuple[str, int]:
    """Host and port of this node's agent, which are its for life."""
    own = ray.get_runtime_context().get_node_id()
    node = next(one for one in ray.nodes() if one["NodeID"] == own)
    return node["NodeManagerAddress"], node["MetricsExportPort"]


def _scraped() -> bytes:
    connection = HTTPConnection(*_exporter(), timeout=_SCRAPE_S)
    try:
        connection.request("GET", "/metrics")
        return filtered(connection.getresponse().read().decode()).encode()
    except (OSError, HTTPException) as error:
        raise Unavailable("the node's metrics cannot be read now", _EVERY_S) from error
    finally:
        connection.close()


def _plain(line: str) -> str:
    labels, _, value = _NOISE.sub("", line).rpartition(" ")
    if labels.endswith(",}"):
        labels = labels[:-2] + "}"
    return f"{labels.removesuffix('{}')} {value}"


def _written(name: str, help_: str, kind: str, lines: Iterable[str]) -> str:
    return "\n".join((f"# HELP {name} {help_}", f"# TYPE {name} {kind}", *lines, ""))
