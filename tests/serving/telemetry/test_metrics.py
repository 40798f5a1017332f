"""The table of metrics: names, units, labels and buckets are good Prometheus, and good for Ray."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from serving.limits.limit import BucketName
from serving.limits.observing import DecidedBy, Verdict
from serving.metering.delivery import Result
from serving.telemetry import metrics
from serving.telemetry.metrics import CHOICES, METRICS, Metric
from serving.values import ServiceClass

# Ray Serve adds these, and refuses or fills in ours of the same name.
RESERVED = {"application", "deployment", "replica", "route", "le", "quantile", "job", "instance"}
SECRET = {"key", "key_id", "api_key", "authorization", "input", "request_id", "user"}

each = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)

# The whole table, for rules and dashboards to rely on. A change here is a change of an interface.
TABLE = """
counter polyvec_adapter_loads_total{model,result}
counter polyvec_batch_padding_tokens_total{model}
counter polyvec_billed_tokens_total{tenant,model,task,modality}
counter polyvec_exported_events_total{exporter,result}
counter polyvec_ledger_events_total{result}
counter polyvec_rate_limit_decisions_total{tenant,bucket,decision,by}
counter polyvec_rate_limit_lost_total{}
counter polyvec_rate_limit_store_failures_total{}
counter polyvec_requests_total{tenant,model,task,endpoint,status,code}
counter polyvec_tenants_file_loads_total{result}
gauge polyvec_adapters_resident{model}
gauge polyvec_build_info{version,python}
gauge polyvec_export_lag_seconds{exporter}
gauge polyvec_ledger_lag_seconds{}
gauge polyvec_ledger_spool_events{}
gauge polyvec_model_ready{model}
gauge polyvec_queue_age_seconds{model}
gauge polyvec_queue_tokens{model}
gauge polyvec_rate_limit_store_up{}
gauge polyvec_requests_in_flight{}
gauge polyvec_tenants_file_loaded_timestamp_seconds{}
gauge polyvec_tenants_file_ok{}
gauge polyvec_tenants_keys{}
gauge polyvec_tenants{}
histogram polyvec_adapter_load_duration_seconds{model}
histogram polyvec_batch_inputs{model}
histogram polyvec_batch_tokens{model}
histogram polyvec_calls_per_hop{hop,model}
histogram polyvec_image_pixels{model}
histogram polyvec_inputs_per_request{model}
histogram polyvec_ledger_write_duration_seconds{}
histogram polyvec_rate_limit_store_duration_seconds{}
histogram polyvec_request_duration_seconds{endpoint,model,service_class,outcome}
histogram polyvec_stage_duration_seconds{stage,model}
histogram polyvec_tokens_per_request{model}
"""


def row(metric: Metric) -> str:
    return f"{metric.kind} {metric.name}{{{','.join(metric.labels)}}}"


def test_the_table_is_what_rules_and_dashboards_rely_on() -> None:
    assert sorted(map(row, METRICS)) == TABLE.split("\n")[1:-1]


def test_every_name_is_there_once() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    named = {name for name in metrics.__all__ if isinstance(getattr(metrics, name), Metric)}
    assert len(named) == len(METRICS)


@each
def test_the_name_follows_the_rules(metric: Metric) -> None:
    assert re.fullmatch(r"polyvec(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not metric.name.endswith(("_sum", "_count", "_bucket", "_created"))
    assert not re.search(r"_(ms|milli\w*|minutes|hours|kb|mb|megapixels|percent)\b", metric.name)
    if "duration" in metric.name or "lag" in metric.name or "age" in metric.name.split("_"):
        assert metric.name.endswith("_seconds")


@each
def test_the_help_is_one_sentence(metric: Metric) -> None:
    assert metric.help.endswith(".") and metric.help[0].isalnum() and "\n" not in metric.help


@each
def test_the_labels_are_few_and_harmless(metric: Metric) -> None:
    assert len(metric.labels) <= 6
    assert len(set(metric.labels)) == len(metric.labels)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", label) for label in metric.labels)
    assert not set(metric.labels) & (RESERVED | SECRET)


@each
def test_a_histogram_and_only_that_has_buckets_which_ascend(metric: Metric) -> None:
    assert (metric.kind == "histogram") == bool(metric.buckets)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert all(bound > 0 for bound in metric.buckets)  # Ray takes no others
    assert len(metric.buckets) <= 15
    if metric.kind == "histogram":
        assert "tenant" not in metric.labels


def test_every_fixed_choice_belongs_to_a_label_in_use() -> None:
    assert set(CHOICES) <= {label for metric in METRICS for label in metric.labels}


def test_the_choices_are_the_words_of_the_rooms_they_come_from() -> None:
    by = [get_args(part) or (part,) for part in get_args(DecidedBy)]
    assert set(CHOICES["bucket"]) == set(get_args(BucketName))
    assert set(CHOICES["decision"]) == set(get_args(Verdict))
    assert set(CHOICES["by"]) == {word for part in by for word in part}
    assert set(get_args(Result)) <= set(CHOICES["result"])
    assert set(CHOICES["service_class"]) == set(get_args(ServiceClass))
