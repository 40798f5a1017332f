"""How many replicas carry a rate within a latency, found by trying them in the simulator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from loadtests.simulator.cluster import Cluster, Machine, simulate
from loadtests.simulator.outcome import Outcome, outcome
from loadtests.simulator.policies import Fixed
from loadtests.simulator.traces import trace

__all__ = ["Answer", "at_least", "carried"]

_STEP_S = 0.05
# No queue is stable for long at its full rate, however well five minutes of it look.
_FULLEST = 0.95
_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The fewest replicas, and what they do."""

    replicas: int
    outcome: Outcome


def carried(
    machine: Machine, replicas: int, rate: float, request_tokens: float, latency_s: float
) -> Outcome | None:
    """What so many replicas do under that rate; None where p95 is above the latency, or one in a
    thousand tokens is refused."""
    traffic = trace("steady", rate, _STEP_S, request_tokens, seconds=_SECONDS)
    cluster = Cluster(replace(machine, start_s=0.0), replicas, replicas, replicas)
    found = outcome(simulate(traffic, cluster, Fixed(replicas)))
    good = found.latency["interactive"].p95 <= latency_s and found.refused + found.late < 0.001
    return found if good else None


def at_least(
    machine: Machine, rate: float, request_tokens: float, latency_s: float, ceiling: int
) -> Answer | None:
    """The fewest replicas that carry the rate; None where even `ceiling` do not."""
    low, high = max(1, ceil(rate / (_FULLEST * machine.tokens_per_s))), ceiling
    best = carried(machine, high, rate, request_tokens, latency_s) if low <= high else None
    if best is None:
        return None
    while low < high:
        middle = (low + high) // 2
        found = carried(machine, middle, rate, request_tokens, latency_s)
        if found is None:
            low = middle + 1
        else:
            high, best = middle, found
    return Answer(high, best)
