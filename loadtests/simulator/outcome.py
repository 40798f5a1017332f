"""A run to the numbers that are read: latency by class, refusals, GPU-hours, scale events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.simulator.cluster import Lane, Run
from loadtests.simulator.traces import Array

__all__ = ["Latency", "Outcome", "latencies", "outcome", "percentiles"]

# A text comes at any moment of the batch under way, and then is in one of its own.
_MOMENTS = np.array([0.125, 0.375, 0.625, 0.875])


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds in a replica, its queue and the wait for a replica included; by tokens."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run in one row. `refused` and `late` are parts of what was offered, over both classes, and
    `turns` how often the count went the other way than before."""

    policy: str
    latency: dict[str, Latency]
    refused: float
    late: float
    gpu_hours: float
    most: int
    ups: int
    downs: int
    turns: int
    utilisation: float


def latencies(run: Run, name: str) -> tuple[Array, Array]:
    """Seconds that the tokens of each step took on average, and how many they were."""
    lane = run.lanes[name]
    waits, left = _waits(run, lane)
    return waits + 1.5 * run.batch_s[left], np.diff(lane.come)


def outcome(run: Run) -> Outcome:
    """The numbers of a run."""
    lanes = run.lanes.values()
    offered = sum(float(lane.offered.sum()) for lane in lanes) or 1.0
    come = sum(float(lane.come[-1]) for lane in lanes)
    late = sum(float(lane.late.sum()) for lane in lanes)
    step_s = run.traffic.step_s
    capacity = float(run.ordered.sum()) * step_s * run.machine.tokens_per_s
    changes = np.diff(run.target)
    return Outcome(
        policy=run.policy,
        latency={name: _latency(run, lane) for name, lane in run.lanes.items() if lane.come[-1]},
        refused=(offered - come) / offered,
        late=late / offered,
        gpu_hours=float(run.ordered.sum()) * step_s / 3600,
        most=int(run.ordered.max()),
        ups=int((changes > 0).sum()),
        downs=int((changes < 0).sum()),
        turns=int((np.diff(np.sign(changes[changes != 0])) != 0).sum()),
        utilisation=run.counters.served / capacity if capacity else 0.0,
    )


def percentiles(values: Array, weights: Array, of: Sequence[float]) -> list[float]:
    """Percentiles (parts of 1) of weighted values."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    found = np.searchsorted(reached, np.asarray(of) * reached[-1])
    return [float(value) for value in values[order][np.minimum(found, len(values) - 1)]]


def _latency(run: Run, lane: Lane) -> Latency:
    waits, left = _waits(run, lane)
    values = (waits[:, None] + run.batch_s[left][:, None] * (1 + _MOMENTS)).ravel()
    weights = np.repeat(np.diff(lane.come), len(_MOMENTS))
    return Latency(*percentiles(values, weights, (0.5, 0.95, 0.99)))


def _waits(run: Run, lane: Lane) -> tuple[Array, np.ndarray[tuple[int], np.dtype[np.intp]]]:
    """By the step of arrival: seconds until those in its middle left the queue, and in which step.

    First come, first served: they leave when as many have left as had come before them.
    """
    step_s, steps = run.traffic.step_s, len(lane.offered)
    middle = (lane.come[:-1] + lane.come[1:]) / 2
    edge = np.clip(np.searchsorted(lane.gone, middle), 1, steps)
    before, after = lane.gone[edge - 1], lane.gone[edge]
    part = np.clip((middle - before) / np.maximum(after - before, 1e-9), 0, 1)
    waits = (edge - 1 + part - np.arange(steps) - 0.5) * step_s
    return np.maximum(waits, 0.0), edge - 1
