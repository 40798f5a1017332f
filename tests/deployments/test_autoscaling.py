"""Replicas follow the tokens that wait."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from deployments.autoscaling import QueuedTokens, replicas_for


@pytest.mark.parametrize(("tokens", "replicas"), [(0, 1), (1, 1), (100, 1), (101, 2), (1000, 10)])
def test_replicas_hold_the_waiting_tokens(tokens: int, replicas: int) -> None:
    assert replicas_for(tokens, 100) == replicas


def test_the_policy_sums_over_replicas() -> None:
    context = SimpleNamespace(aggregated_metrics={"queued_tokens": {"a": 150.0, "b": 80.0}})
    assert QueuedTokens(100)(context) == (3, {})


def test_no_metrics_yet_is_one_replica() -> None:
    assert QueuedTokens(100)(SimpleNamespace(aggregated_metrics=None)) == (1, {})
