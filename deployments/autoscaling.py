"""How many replicas a group should have, from the tokens that wait in it. Pure policy.

Requests are no measure: flights coalesce them, and one long document is not one query.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["QueuedTokens", "replicas_for"]


def replicas_for(tokens: float, tokens_per_replica: float) -> int:
    """Replicas that hold `tokens` at `tokens_per_replica` each; at least one."""
    return max(1, math.ceil(tokens / tokens_per_replica))


class QueuedTokens:
    """Serve's class policy: `policy_kwargs: {tokens_per_replica}`; lives in Serve's controller."""

    def __init__(self, tokens_per_replica: float) -> None:
        self._tokens_per_replica = tokens_per_replica

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:  # Serve's AutoscalingContext
        """The wanted count, from `Replica.record_autoscaling_stats` of every replica."""
        by_replica = (context.aggregated_metrics or {}).get("queued_tokens", {})
        wanted = replicas_for(sum(by_replica.values()), self._tokens_per_replica)
        return wanted, {}
