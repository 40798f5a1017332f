"""What the rules and the dashboard name is what a real service shows at `GET /metrics`."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.deployments.conftest import MINI, SMALL_TOKENS, key_of
from tests.deployments.observability.expressions import (
    OWN,
    Names,
    panels,
    read,
    recorded,
    rules,
    shown,
)

# Named, and not to be seen here: this service has no exports, no store of quotas that fails, no
# adapter that comes and goes, and no vLLM.
QUIET = ("ray_polyvec_export", "ray_polyvec_adapter", "ray_vllm_")
FAILURES = {"ray_polyvec_rate_limit_store_failures_total", "ray_polyvec_rate_limit_lost_total"}
TEXTS = ["short", "long enough for the short one to be padded in their batch"]
LONGEST_S = 60.0

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    yield from (expression for _, expression in panels())


def exposition(http: httpx.Client) -> str:
    answer = http.get("/metrics")
    if answer.status_code == 404:
        pytest.skip("this service has no GET /metrics")
    return answer.raise_for_status().text


def test_a_running_service_shows_what_is_named(http: httpx.Client, known: Names) -> None:
    exposition(http)
    for model, status in ((MINI, 200), ("v4", 200), ("nobody", 404)):
        body = {"model": model, "input": TEXTS}
        assert http.post("/v1/embeddings", json=body).status_code == status
    # A decision of the quotas that costs the tenant nothing: all of it and more at once.
    body = {"model": MINI, "input": TEXTS * SMALL_TOKENS}
    assert http.post("/v1/embeddings", json=body, headers=key_of("small")).status_code == 429
    named = set().union(*(read(expression, known).names for expression in expressions()))
    wanted = {
        name
        for name in named - OWN.keys() - FAILURES
        if ":" not in name and not name.startswith(QUIET)
    }
    until = time.monotonic() + LONGEST_S
    while missing := wanted - shown(text := exposition(http)).keys():
        assert time.monotonic() < until, f"not at /metrics: {sorted(missing)}"
    real = shown(text)
    ours = {name for name in real if name.startswith("ray_polyvec_")}
    assert ours <= known.keys(), "at /metrics, and in no table"
    names = recorded({**known, **real})
    wrong = [line for expression in expressions() for line in read(expression, names).wrong]
    assert not wrong, "\n".join(wrong)
