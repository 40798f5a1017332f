"""Keys, quotas and the ledger on a real graph: two gateways, one budget, one bill."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections import Counter

import httpx
import pytest

from deployments.accounts import keeper
from deployments.config import parse_config
from deployments.local import Address, LocalNode
from serving.errors import InvalidConfig
from serving.limits.limit import Limits
from serving.limits.limiter import Limiter
from serving.limits.stores.cluster import ClusterStore
from tests.deployments.conftest import SMALL_TOKENS, free_port, key_of
from tests.deployments.test_graph import replicas

TOKENS = 3  # of "x": the text and the two that stand around it
BODY = {"model": "null", "input": "x"}


def ledger_of(node: LocalNode, tenant: str) -> tuple[int, int]:
    """Events and tokens of a tenant in the node's ledger."""
    assert node.config.ledger is not None
    with sqlite3.connect(node.config.ledger.url.removeprefix("sqlite://")) as connection:
        [row] = connection.execute(
            "SELECT count(*), coalesce(sum(text_tokens), 0) FROM usage_event WHERE tenant = ?",
            (tenant,),
        )
    return int(row[0]), int(row[1])


def wait_for(node: LocalNode, tenant: str, tokens: int) -> tuple[int, int]:
    """The ledger once it has so many tokens, or as it is after a while."""
    until = time.monotonic() + 30
    while ledger_of(node, tenant)[1] < tokens and time.monotonic() < until:
        time.sleep(0.05)
    return ledger_of(node, tenant)


async def ask(node: LocalNode, tenant: str, times: int) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=16)
    async with httpx.AsyncClient(
        base_url=node.address.url, timeout=60, headers=key_of(tenant), limits=limits
    ) as client:
        asked = (client.post("/v1/embeddings", json=BODY) for _ in range(times))
        return list(await asyncio.gather(*asked))


@pytest.mark.ray
def test_two_gateways_share_one_budget_to_the_last_token(node: LocalNode) -> None:
    answers = asyncio.run(ask(node, "small", 150))
    assert Counter(one.status_code for one in answers) == {200: 100, 429: 50}
    refused = [one for one in answers if one.status_code == 429]
    assert {one.json()["code"] for one in refused} == {"RATE_MONTHLY_TOKEN_LIMIT_EXCEEDED"}
    assert wait_for(node, "small", SMALL_TOKENS) == (100, SMALL_TOKENS)


@pytest.mark.ray
def test_without_a_key_nothing_is_answered(node: LocalNode) -> None:
    with httpx.Client(base_url=node.address.url, timeout=60) as client:
        assert client.post("/v1/embeddings", json=BODY).status_code == 401
        assert client.get("/v1/models").status_code == 401
        assert client.get("/ready").status_code == 200


@pytest.mark.ray
def test_a_killed_gateway_loses_no_event_that_was_answered_before(node: LocalNode) -> None:
    before = ledger_of(node, "crowd")
    answers = asyncio.run(ask(node, "crowd", 64))
    assert {one.status_code for one in answers} == {200}
    flush_s = node.config.ledger.flush_s if node.config.ledger else 0.0
    time.sleep(flush_s + 0.2)  # what is promised to be on disk by then
    os.kill(replicas("Gateway")[0].pid, signal.SIGKILL)
    events, tokens = wait_for(node, "crowd", before[1] + 64 * TOKENS)
    assert (events, tokens) == (before[0] + 64, before[1] + 64 * TOKENS)


@pytest.mark.ray
def test_the_keeper_of_quotas_is_one_for_all_and_comes_back(node: LocalNode) -> None:
    async def both() -> None:
        limits = Limits(requests_per_minute=1)
        one, other = (Limiter(ClusterStore(keeper())) for _ in range(2))
        async with one.admit("keeper-test", limits, "m", 1):
            pass
        standing = await other.standing("keeper-test", limits, "m")
        assert standing.standings[0].remaining == 0

    asyncio.run(both())


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "polyvec.example"])
def test_another_address_without_tenants_is_refused_before_anything_starts(host: str) -> None:
    node = LocalNode(parse_config({}), Address(host, free_port()))
    with pytest.raises(InvalidConfig, match="without a tenants file"):
        node.__enter__()
