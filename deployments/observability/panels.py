"""What the dashboard shows: rows of panels, each with its queries. Knows no Grafana.

Every expression sums or compares over worker processes: in Ray each of them has series of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["ROWS", "Panel"]

_Queries: TypeAlias = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: `queries` are an expression and its legend each, `unit` is Grafana's name of it.

    `says` is what a reader should know beside the title; a "share" is an area of which the top is
    one, a "stack" adds its lines up.
    """

    title: str
    queries: _Queries
    unit: str = "short"
    says: str = ""
    kind: Literal["lines", "stack", "share", "number"] = "lines"


_RATE = "[$__rate_interval]"
_MODEL = '{model=~"$model"}'
_TENANT = 'tenant=~"$tenant"'
_REQUESTS = f"rate(ray_polyvec_requests_total{_MODEL}{_RATE})"
_ERRORS = f'rate(ray_polyvec_requests_total{{model=~"$model", code!="OK"}}{_RATE})'
_ANSWERED = '{model=~"$model", outcome="ok"}'
_BILLED = f'rate(ray_polyvec_billed_tokens_total{{model=~"$model", {_TENANT}}}{_RATE})'
_PADDING = f"sum by (model) (rate(ray_polyvec_batch_padding_tokens_total{_MODEL}{_RATE}))"
_USEFUL = f"sum by (model) (rate(ray_polyvec_batch_tokens_sum{_MODEL}{_RATE}))"
_DECISIONS = f"rate(ray_polyvec_rate_limit_decisions_total{{{_TENANT}}}{_RATE})"
_REFUSALS = (
    "rate(ray_polyvec_rate_limit_decisions_total"
    f'{{{_TENANT}, decision=~"refused|shadowed"}}{_RATE})'
)


def _quantiles(metric: str, *of: float, by: str = "", only: str = _MODEL) -> _Queries:
    """Quantiles of a histogram over every worker; `by` splits them by one label."""
    labels, legend = (f"le, {by}", f" {{{{{by}}}}}") if by else ("le", "")
    rate = f"sum by ({labels}) (rate({metric}_bucket{only}{_RATE}))"
    return [(f"histogram_quantile({q:g}, {rate})", f"p{q * 100:g}{legend}") for q in of]


def _sums(by: str, series: str, top: int = 0) -> _Queries:
    """A line for each value of the labels `by`, or for the `top` greatest of them."""
    summed = f"sum by ({by}) ({series})"
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return [(f"topk({top}, {summed})" if top else summed, legend)]


def _worst(by: str, gauge: str) -> _Queries:
    return [(f"max by ({by}) ({gauge})", f"{{{{{by}}}}}")]


def _one(expression: str, legend: str = "") -> _Queries:
    return [(expression, legend)]


def _burn(ratio: str, budget: str) -> _Queries:
    return [
        (
            f"{ratio}_rate{window}{_MODEL} / {budget}",
            f"{window} {{{{model}}}} {{{{service_class}}}}",
        )
        for window in ("1h", "6h")
    ]


_GLANCE = (
    Panel("Requests", _one(f"sum({_REQUESTS})"), "reqps", kind="number"),
    Panel(
        "Failed, of an hour",
        _one(
            '(sum(slo:polyvec_requests:rate1h{outcome="failed"}) or vector(0))'
            ' / sum(slo:polyvec_requests:rate1h{outcome=~"ok|failed"})'
        ),
        "percentunit",
        "Answered with a 5xx. The objective is 0.1 % over thirty days.",
        "number",
    ),
    Panel(
        "Late, of an hour",
        _one(
            "sum(slo:polyvec_late:rate1h) / (sum(slo:polyvec_late:rate1h)"
            ' + sum(slo:polyvec_in_time:rate1h{outcome="ok"}))'
        ),
        "percentunit",
        "Later than 1.28 s (interactive) or 40.96 s (bulk). The objective is 1 % over thirty days.",
        "number",
    ),
    Panel("Billed tokens", _one(f"sum({_BILLED})"), "cps", kind="number"),
    Panel(
        "Models not ready",
        _one("sum(max by (model) (ray_polyvec_model_ready) == bool 0)"),
        kind="number",
    ),
    Panel(
        "Alerts",
        _one('count(ALERTS{alertname=~"Polyvec.*", alertstate="firing"}) or vector(0)'),
        kind="number",
    ),
)
_WIRE = (
    Panel("Requests by status", _sums("status", _REQUESTS), "reqps", kind="stack"),
    Panel("Requests by model", _sums("model", _REQUESTS), "reqps", kind="stack"),
    Panel("Requests by task", _sums("task", _REQUESTS), "reqps", kind="stack"),
    Panel("Errors by code", _sums("code", _ERRORS), "reqps", "Refusals and failures."),
    Panel(
        "Latency",
        _quantiles("ray_polyvec_request_duration_seconds", 0.5, 0.95, 0.99, only=_ANSWERED),
        "s",
    ),
    Panel(
        "Latency by class",
        _quantiles(
            "ray_polyvec_request_duration_seconds", 0.95, by="service_class", only=_ANSWERED
        ),
        "s",
    ),
    Panel(
        "Burn of the error budget",
        _burn("slo:polyvec_failed:ratio", "0.001"),
        "none",
        "At 1 the budget lasts thirty days; 14.4 over an hour pages.",
    ),
    Panel(
        "Burn of the latency budget",
        _burn("slo:polyvec_late:ratio", "0.01"),
        "none",
        "At 1 the budget lasts thirty days; 14.4 over an hour pages.",
    ),
    Panel("Under way", _one("sum(ray_polyvec_requests_in_flight)", "requests")),
)
_INSIDE = (
    Panel(
        "Stages, 95th percentile",
        _quantiles("ray_polyvec_stage_duration_seconds", 0.95, by="stage"),
        "s",
    ),
    Panel(
        "Stages, time in all",
        _sums("stage", f"rate(ray_polyvec_stage_duration_seconds_sum{_MODEL}{_RATE})"),
        "s",
        "Seconds spent in a stage in every second.",
        "stack",
    ),
    Panel(
        "Queue, age of the oldest", _worst("model", f"ray_polyvec_queue_age_seconds{_MODEL}"), "s"
    ),
    Panel("Queue, tokens", _sums("model", f"ray_polyvec_queue_tokens{_MODEL}"), kind="stack"),
    Panel("Batches, tokens", _quantiles("ray_polyvec_batch_tokens", 0.5, 0.95)),
    Panel("Batches, inputs", _quantiles("ray_polyvec_batch_inputs", 0.5, 0.95)),
    Panel(
        "Padding",
        _one(f"{_PADDING} / ({_PADDING} + {_USEFUL})", "{{model}}"),
        "percentunit",
        "The share of what was computed that was padding.",
        "share",
    ),
    Panel(
        "Calls that cross a hop together",
        _quantiles("ray_polyvec_calls_per_hop", 0.5, 0.95, by="hop"),
    ),
    Panel("Pixels of an image", _quantiles("ray_polyvec_image_pixels", 0.5, 0.95)),
)
_TOKENS = (
    Panel("Billed tokens by tenant, the ten most", _sums("tenant", _BILLED, 10), "cps"),
    Panel("Billed tokens by model", _sums("model", _BILLED), "cps", kind="stack"),
    Panel("Billed tokens by task", _sums("task", _BILLED), "cps", kind="stack"),
    Panel("Billed tokens by modality", _sums("modality", _BILLED), "cps", kind="stack"),
    Panel("Tokens per request", _quantiles("ray_polyvec_tokens_per_request", 0.5, 0.95)),
    Panel("Inputs per request", _quantiles("ray_polyvec_inputs_per_request", 0.5, 0.95)),
)
_QUOTAS = (
    Panel("Quotas, decisions", _sums("decision", _DECISIONS), "reqps", kind="stack"),
    Panel(
        "Quotas, share refused by tenant, the ten most",
        _one(
            f"topk(10, sum by (tenant) ({_REFUSALS}) / sum by (tenant) ({_DECISIONS}))",
            "{{tenant}}",
        ),
        "percentunit",
        "In shadow: the share that would have been.",
        "share",
    ),
    Panel("Quotas, refusals by bucket", _sums("bucket", _REFUSALS), "reqps"),
    Panel(
        "Quotas, decided by",
        _sums("by", _DECISIONS),
        "reqps",
        "By the gateway (local) or by nobody (nowhere): the store was away.",
        "stack",
    ),
    Panel(
        "Quotas, time of the store",
        _quantiles("ray_polyvec_rate_limit_store_duration_seconds", 0.5, 0.99, only=""),
        "s",
    ),
    Panel(
        "Quotas, failures of the store",
        [
            (f"sum(rate(ray_polyvec_rate_limit_store_failures_total{_RATE}))", "calls failed"),
            (f"sum(rate(ray_polyvec_rate_limit_lost_total{_RATE}))", "charges not given back"),
            ("sum(ray_polyvec_rate_limit_store_up == bool 0)", "gateways without it"),
        ],
    ),
)
_LEDGER = (
    Panel(
        "Ledger, events", _sums("result", f"rate(ray_polyvec_ledger_events_total{_RATE})"), "cps"
    ),
    Panel(
        "Ledger, behind",
        _one("max(ray_polyvec_ledger_lag_seconds)", "the worst gateway"),
        "s",
        "Age of the oldest event that is not in the ledger.",
    ),
    Panel("Ledger, in the spools", _one("sum(ray_polyvec_ledger_spool_events)", "events")),
    Panel(
        "Ledger, time of a write",
        _quantiles("ray_polyvec_ledger_write_duration_seconds", 0.5, 0.99, only=""),
        "s",
    ),
    Panel(
        "Billed requests and usage events, of six hours",
        [
            ("polyvec:billed_requests:increase6h", "billed requests"),
            ("polyvec:ledger_events:increase6h", "usage events"),
        ],
        says="They should lie on each other; polyvec reconcile compares exactly.",
    ),
    Panel(
        "Exports, events",
        _sums("exporter, result", f"rate(ray_polyvec_exported_events_total{_RATE})"),
        "cps",
    ),
    Panel("Exports, behind", _worst("exporter", "ray_polyvec_export_lag_seconds"), "s"),
    Panel(
        "Tenants",
        [
            ("max(ray_polyvec_tenants)", "tenants"),
            ("max(ray_polyvec_tenants_keys)", "keys"),
            ("sum(ray_polyvec_tenants_file_ok == bool 0)", "gateways with an old file"),
        ],
    ),
    Panel(
        "Tenants file, age",
        _one(
            "time() - min(ray_polyvec_tenants_file_loaded_timestamp_seconds)", "the oldest in use"
        ),
        "s",
    ),
    Panel(
        "Tenants file, reads",
        _sums("result", f"rate(ray_polyvec_tenants_file_loads_total{_RATE})"),
        "ops",
    ),
)
_ENGINES = (
    Panel(
        "Adapters, loads",
        _sums("model, result", f"rate(ray_polyvec_adapter_loads_total{_MODEL}{_RATE})"),
        "ops",
    ),
    Panel(
        "Adapters, time to load",
        _quantiles("ray_polyvec_adapter_load_duration_seconds", 0.95, by="model"),
        "s",
    ),
    Panel("Adapters, resident", _sums("model", f"ray_polyvec_adapters_resident{_MODEL}")),
    Panel(
        "vLLM, requests",
        [
            ("sum by (model_name) (ray_vllm_num_requests_running)", "running {{model_name}}"),
            ("sum by (model_name) (ray_vllm_num_requests_waiting)", "waiting {{model_name}}"),
        ],
    ),
    Panel("vLLM, tokens", _sums("model_name", f"rate(ray_vllm_prompt_tokens_total{_RATE})"), "cps"),
    Panel(
        "vLLM, tokens of a step",
        _quantiles("ray_vllm_iteration_tokens_total", 0.5, 0.95, only=""),
        says="How full its batches are.",
    ),
    Panel(
        "vLLM, time in its queue",
        _quantiles("ray_vllm_request_queue_time_seconds", 0.5, 0.95, only=""),
        "s",
    ),
    Panel(
        "vLLM, time of a request",
        _quantiles("ray_vllm_e2e_request_latency_seconds", 0.5, 0.95, only=""),
        "s",
    ),
)
_SERVE = (
    Panel(
        "Replicas",
        [
            *_sums("deployment", "last_over_time(ray_serve_deployment_replica_healthy[2m])"),
            (
                "max by (deployment) (last_over_time(ray_serve_autoscaling_target_replicas[2m]))",
                "{{deployment}}, wanted",
            ),
        ],
    ),
    Panel(
        "Serve, latency by deployment",
        _quantiles("ray_serve_deployment_processing_latency_ms", 0.95, by="deployment", only=""),
        "ms",
    ),
    Panel(
        "Serve, under way by deployment",
        _sums("deployment", "ray_serve_replica_processing_queries"),
    ),
    Panel(
        "Versions",
        _one(
            "count by (version, python) (ray_polyvec_build_info)", "{{version}}, Python {{python}}"
        ),
        says="Processes by version.",
    ),
)

ROWS: Mapping[str, tuple[Panel, ...]] = {
    "At a glance": _GLANCE,
    "Requests": _WIRE,
    "Stages, queues and batches": _INSIDE,
    "Billed tokens": _TOKENS,
    "Quotas": _QUOTAS,
    "Ledger, exports and tenants": _LEDGER,
    "Adapters and vLLM": _ENGINES,
    "Replicas": _SERVE,
}
