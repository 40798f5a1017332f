"""Batches on a real graph: two gateways share the work, and both are killed in the middle of it."""

from __future__ import annotations

import json
import os
import signal
import time

import httpx
import pytest

from deployments.local import LocalNode
from tests.deployments.conftest import key_of
from tests.deployments.test_accounts import TOKENS, wait_for
from tests.deployments.test_graph import replicas

LINES = 3000  # so many that one looks in before the end, on a quick machine too


def again(http: httpx.Client, path: str) -> httpx.Response:
    """What a path gives, of a gateway that lives."""
    until = time.monotonic() + 60
    while True:
        try:
            answer = http.get(path)
            if answer.status_code < 500:  # HAProxy makes a 500 of having nobody to ask
                return answer
        except httpx.TransportError:
            pass
        assert time.monotonic() < until, f"{path} is not answered"


@pytest.mark.ray
def test_a_batch_outlives_the_gateways_that_work_on_it(node: LocalNode) -> None:
    lines = [{"custom_id": str(n), "body": {"input": "x"}} for n in range(LINES)]
    with httpx.Client(base_url=node.address.url, timeout=60, headers=key_of("batches")) as http:
        made = http.post("/v1/batch/embeddings", json={"model": "null", "input": lines})
        assert made.status_code == 200, made.text
        path = f"/v1/batch/{made.json()['batch_id']}"
        until, killed = time.monotonic() + 120, False
        while (status := again(http, path).json())["completed_at"] is None:
            assert time.monotonic() < until, status
            if not killed and 0 < status["stats"]["completed"] < LINES:
                for gateway in replicas("Gateway"):
                    os.kill(gateway.pid, signal.SIGKILL)
                killed = True
        assert killed
        output = again(http, f"{path}/output")
        with httpx.Client(base_url=node.address.url, headers=key_of("crowd")) as other:
            assert again(other, path).status_code == 404
    assert status["status"] == "completed"
    assert (status["stats"]["completed"], status["stats"]["failed"]) == (LINES, 0)
    found = [json.loads(row) for row in output.content.splitlines()]
    assert [row["custom_id"] for row in found] == [line["custom_id"] for line in lines]
    assert all(len(row["response"]["body"]["data"][0]["embedding"]) == 384 for row in found)
    assert status["stats"]["total_tokens"] == LINES * TOKENS
    assert wait_for(node, "batches", LINES * TOKENS) == (LINES, LINES * TOKENS)
