"""Every metric of the house, named once: type, labels, buckets, help. No library and no numbers.

Names follow Prometheus: base units, snake_case, `_total` for counters. Ray's exporter puts `ray_`
before a name and leaves one `_total` as it is, so the same table names them in and out of Ray. A
label is never a key, an input or anything else that a caller can make up: see `serving.telemetry`
for how its values are bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = [
    "ADAPTERS_RESIDENT",
    "ADAPTER_LOADS",
    "ADAPTER_LOAD_DURATION",
    "BATCH_INPUTS",
    "BATCH_PADDING",
    "BATCH_TOKENS",
    "BILLED_TOKENS",
    "BUILD_INFO",
    "CALLS_PER_HOP",
    "CHOICES",
    "EXPORTED_EVENTS",
    "EXPORT_LAG",
    "IMAGE_PIXELS",
    "INPUTS_PER_REQUEST",
    "LEDGER_EVENTS",
    "LEDGER_LAG",
    "LEDGER_SPOOL",
    "LEDGER_WRITE_DURATION",
    "METRICS",
    "MODEL_READY",
    "QUEUE_AGE",
    "QUEUE_TOKENS",
    "RATE_LIMIT_DECISIONS",
    "RATE_LIMIT_LOST",
    "RATE_LIMIT_STORE_DURATION",
    "RATE_LIMIT_STORE_FAILURES",
    "RATE_LIMIT_STORE_UP",
    "REQUESTS",
    "REQUESTS_IN_FLIGHT",
    "REQUEST_DURATION",
    "STAGE_DURATION",
    "TENANTS_FILE_LOADED",
    "TENANTS_FILE_LOADS",
    "TENANTS_FILE_OK",
    "TENANTS_KEYS",
    "TENANTS_KNOWN",
    "TOKENS_PER_REQUEST",
    "Kind",
    "Metric",
]

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One row of the table. `buckets` are a histogram's upper bounds, ascending and above zero."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, help_: str, *labels: str) -> Metric:
    return Metric(name, "counter", help_, labels)


def _gauge(name: str, help_: str, *labels: str) -> Metric:
    return Metric(name, "gauge", help_, labels)


def _histogram(name: str, help_: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(name, "histogram", help_, labels, buckets)


# Doubling from 5 ms: the bounds of OpenTelemetry's gen_ai.server.request.duration, and one below.
_REQUEST_S = (0.005, *(round(0.01 * 2**n, 2) for n in range(14)))
# Stages are shorter: a text is tokenized in tens of microseconds.
_STAGE_S = (0.0001, 0.0004, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)
_STORE_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_LOAD_S = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
# Powers of four, as OpenTelemetry's gen_ai.client.token.usage.
_TOKENS = tuple(float(4**n) for n in range(11))
_BATCH_TOKENS = tuple(float(2**n) for n in range(5, 19))
_FEW = tuple(float(2**n) for n in range(12))
_PIXELS = tuple(float(2**n) for n in range(12, 29, 2))

# The values of the labels that have a fixed set of them.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "bucket": ("requests", "tokens", "images", "concurrency", "month"),
    "by": ("store", "local", "nowhere", "cache"),
    "decision": ("admitted", "refused", "shadowed"),
    "hop": ("preprocess", "embed"),
    "modality": ("text", "image"),
    "outcome": ("ok", "refused", "failed", "gone"),
    "result": ("written", "duplicate", "dropped", "failed", "sent", "loaded", "refused"),
    "service_class": ("interactive", "bulk"),
    "stage": ("tokenize", "image", "queue", "infer", "encode"),
}

# --- the wire -------------------------------------------------------------------------------------
REQUESTS = _counter(
    "polyvec_requests_total",
    "Requests answered, by HTTP status and machine code (OK, or that of the error).",
    *("tenant", "model", "task", "endpoint", "status", "code"),
)
REQUEST_DURATION = _histogram(
    "polyvec_request_duration_seconds",
    "Time from a request's first byte to its answer's last.",
    _REQUEST_S,
    *("endpoint", "model", "service_class", "outcome"),
)
REQUESTS_IN_FLIGHT = _gauge(
    "polyvec_requests_in_flight", "Requests taken and not yet answered by this gateway."
)
TOKENS_PER_REQUEST = _histogram(
    "polyvec_tokens_per_request",
    "Tokens of an answered request, text and images together.",
    _TOKENS,
    "model",
)
INPUTS_PER_REQUEST = _histogram(
    "polyvec_inputs_per_request", "Inputs of an answered request.", _FEW, "model"
)

# --- inside ---------------------------------------------------------------------------------------
STAGE_DURATION = _histogram(
    "polyvec_stage_duration_seconds",
    "Time that a request, or a batch of them, spent in one stage.",
    _STAGE_S,
    *("stage", "model"),
)
BATCH_TOKENS = _histogram(
    "polyvec_batch_tokens",
    "Tokens of a batch without its padding.",
    _BATCH_TOKENS,
    "model",
)
BATCH_INPUTS = _histogram("polyvec_batch_inputs", "Inputs of a batch.", _FEW, "model")
BATCH_PADDING = _counter(
    "polyvec_batch_padding_tokens_total",
    "Padding computed for nothing; beside the sum of polyvec_batch_tokens, the waste.",
    "model",
)
QUEUE_AGE = _gauge(
    "polyvec_queue_age_seconds", "Age of the oldest input that waits for a batch.", "model"
)
QUEUE_TOKENS = _gauge("polyvec_queue_tokens", "Tokens that wait for a batch.", "model")
CALLS_PER_HOP = _histogram(
    "polyvec_calls_per_hop", "Calls that crossed a hop together.", _FEW, "hop", "model"
)
IMAGE_PIXELS = _histogram(
    "polyvec_image_pixels", "Pixels of an image as the model sees it.", _PIXELS, "model"
)
ADAPTER_LOADS = _counter(
    "polyvec_adapter_loads_total", "Adapters loaded into an engine.", "model", "result"
)
ADAPTER_LOAD_DURATION = _histogram(
    "polyvec_adapter_load_duration_seconds", "Time to load an adapter.", _LOAD_S, "model"
)
ADAPTERS_RESIDENT = _gauge(
    "polyvec_adapters_resident", "Adapters that an engine has loaded.", "model"
)
MODEL_READY = _gauge(
    "polyvec_model_ready", "1 where the model answers through this process, else 0.", "model"
)

# --- quotas and money -----------------------------------------------------------------------------
RATE_LIMIT_DECISIONS = _counter(
    "polyvec_rate_limit_decisions_total",
    "Decisions of the quotas: the bucket that refused, or would have (shadowed), and who decided.",
    *("tenant", "bucket", "decision", "by"),
)
RATE_LIMIT_STORE_DURATION = _histogram(
    "polyvec_rate_limit_store_duration_seconds", "Time of one call to the quota store.", _STORE_S
)
RATE_LIMIT_STORE_FAILURES = _counter(
    "polyvec_rate_limit_store_failures_total", "Calls that the quota store did not answer."
)
RATE_LIMIT_LOST = _counter(
    "polyvec_rate_limit_lost_total", "Charges that could not be given back: the store was down."
)
RATE_LIMIT_STORE_UP = _gauge(
    "polyvec_rate_limit_store_up", "1 where the quota store answered last, else 0."
)
BILLED_TOKENS = _counter(
    "polyvec_billed_tokens_total",
    "Tokens billed: the same number that the response and the ledger have.",
    *("tenant", "model", "task", "modality"),
)
LEDGER_EVENTS = _counter(
    "polyvec_ledger_events_total", "Usage events by what became of them.", "result"
)
LEDGER_LAG = _gauge("polyvec_ledger_lag_seconds", "Age of the oldest event not yet in the ledger.")
LEDGER_SPOOL = _gauge("polyvec_ledger_spool_events", "Events in the spool, not yet in the ledger.")
LEDGER_WRITE_DURATION = _histogram(
    "polyvec_ledger_write_duration_seconds", "Time of one write to the ledger.", _STORE_S
)
EXPORTED_EVENTS = _counter(
    "polyvec_exported_events_total",
    "What an exporter sent (events, or hourly sums), and tries that failed.",
    *("exporter", "result"),
)
EXPORT_LAG = _gauge(
    "polyvec_export_lag_seconds",
    "Time since everything due had been sent, told by the gateway whose turn it is.",
    "exporter",
)

# --- the house itself -----------------------------------------------------------------------------
TENANTS_FILE_OK = _gauge(
    "polyvec_tenants_file_ok", "1 where the newest tenants file is in use, 0 where an older one is."
)
TENANTS_FILE_LOADED = _gauge(
    "polyvec_tenants_file_loaded_timestamp_seconds", "When the tenants file in use was read."
)
TENANTS_FILE_LOADS = _counter(
    "polyvec_tenants_file_loads_total", "Reads of a changed tenants file.", "result"
)
TENANTS_KNOWN = _gauge("polyvec_tenants", "Tenants known.")
TENANTS_KEYS = _gauge("polyvec_tenants_keys", "Keys known, revoked and expired ones among them.")
BUILD_INFO = _gauge("polyvec_build_info", "1, with the versions in use.", "version", "python")

METRICS = tuple(value for value in globals().values() if isinstance(value, Metric))
