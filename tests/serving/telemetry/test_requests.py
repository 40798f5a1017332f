"""One request's series: rate, errors, duration, stages, and the tokens of the bill."""

from __future__ import annotations

import pytest

from serving.errors import InvalidKey, Unavailable
from serving.telemetry import Telemetry
from serving.telemetry.prometheus import PrometheusBackend
from serving.telemetry.requests import Asked, RequestMetrics
from serving.values import Stages, Usage

ASKED = Asked("/v1/embeddings", "acme", "a", "query", "bulk")


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(PrometheusBackend())


@pytest.fixture
def requests(telemetry: Telemetry) -> RequestMetrics:
    return RequestMetrics(telemetry)


def lines(telemetry: Telemetry) -> set[str]:
    return set((telemetry.exposition() or b"").decode().splitlines())


def test_an_answer_is_counted_and_timed(telemetry: Telemetry, requests: RequestMetrics) -> None:
    requests.answered(ASKED, 0.25)
    assert {
        'polyvec_requests_total{code="OK",endpoint="/v1/embeddings",model="a",status="200",'
        'task="query",tenant="acme"} 1.0',
        'polyvec_request_duration_seconds_sum{endpoint="/v1/embeddings",model="a",outcome="ok",'
        'service_class="bulk"} 0.25',
    } <= lines(telemetry)


def test_the_bill_is_split_by_modality(telemetry: Telemetry, requests: RequestMetrics) -> None:
    requests.billed(ASKED, Usage(7, 0), 2)
    requests.billed(ASKED, Usage(7, 30), 1)
    who = 'task="query",tenant="acme"'
    assert {
        f'polyvec_billed_tokens_total{{modality="text",model="a",{who}}} 14.0',
        f'polyvec_billed_tokens_total{{modality="image",model="a",{who}}} 30.0',
        'polyvec_tokens_per_request_sum{model="a"} 44.0',
        'polyvec_inputs_per_request_sum{model="a"} 3.0',
    } <= lines(telemetry)


def test_the_stages_are_apart(telemetry: Telemetry, requests: RequestMetrics) -> None:
    requests.staged("a", Stages(0.1, 0.2, 0.4, 0.8), 1.6)
    sums = {line for line in lines(telemetry) if "_sum" in line}
    assert sums == {
        f'polyvec_stage_duration_seconds_sum{{model="a",stage="{stage}"}} {seconds}'
        for stage, seconds in (("tokenize", 0.1), ("queue", 0.2), ("infer", 0.4), ("encode", 1.6))
    }


@pytest.mark.parametrize(
    ("error", "status", "code", "outcome"),
    [
        (InvalidKey("no"), "401", "AUTH_INVALID_API_KEY", "refused"),
        (Unavailable("no"), "503", "SERVICE_UNAVAILABLE", "failed"),
        (KeyError("no"), "500", "INTERNAL_ERROR", "failed"),
    ],
)
def test_an_error_is_counted_by_its_code_and_nothing_is_billed(
    telemetry: Telemetry,
    requests: RequestMetrics,
    error: Exception,
    status: str,
    code: str,
    outcome: str,
) -> None:
    requests.failed(Asked("/v1/embeddings"), error, 0.5)
    found = lines(telemetry)
    assert (
        f'polyvec_requests_total{{code="{code}",endpoint="/v1/embeddings",model="none",'
        f'status="{status}",task="none",tenant="none"}} 1.0'
    ) in found
    assert any(f'outcome="{outcome}"' in line and "_sum" in line for line in found)
    assert not any("billed" in line for line in found)


def test_a_caller_that_has_gone_is_neither(telemetry: Telemetry, requests: RequestMetrics) -> None:
    requests.gone(ASKED, 0.5)
    assert any('outcome="gone"' in line for line in lines(telemetry))
    assert any('status="499"' in line for line in lines(telemetry))
