"""Replicas as a fluid: a shared queue, batches, start-up, bounds, and what they report.

What is modelled: a batch takes `overhead_s` and then its tokens at a constant pace, so a replica
with little to do is slow; as much of each class waits as `serving.batching.most` lets, and the rest
is refused; interactive tokens go first except for one batch in `serving.batching.BULK_EVERY`; a
replica takes `start_s` to start and costs from its order on; the policy hears of it all `report_s`
late. What is not: the router (every replica has an equal share of the queue), lengths, failures,
clients that come back.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from loadtests.simulator.traces import Array, Traffic
from serving.batching import BULK_EVERY, most
from serving.values import ServiceClass

__all__ = ["Cluster", "Counters", "Lane", "Machine", "Policy", "Run", "simulate"]


@dataclass(frozen=True, slots=True)
class Machine:
    """One replica, and how it is run. The defaults are a small text model on a data-centre GPU."""

    tokens_per_s: float = 100_000.0
    """Of full batches."""
    batch_tokens: float = 16_384.0
    overhead_s: float = 0.008
    """Of a batch, however small."""
    queue_tokens: float = 64 * 16_384.0
    start_s: float = 90.0
    timeout_s: float = 60.0
    """After which a request is given up, and what waits of it is dropped."""
    held_tokens: float = 2.0**20
    """That may wait while there is no replica: a gateway's `limits.tokens`."""
    report_s: float = 2.0

    @property
    def token_s(self) -> float:
        """Of a batch, for each of its tokens."""
        return 1 / self.tokens_per_s - self.overhead_s / self.batch_tokens

    def batch_s(self, rate: float) -> float:
        """Seconds of a batch at `rate` tokens per second: what came during the last one."""
        idle = 1 - self.token_s * rate
        full = self.overhead_s + self.token_s * self.batch_tokens
        return min(self.overhead_s / idle, full) if idle > 0 else full


@dataclass(slots=True)
class Counters:
    """What the replicas have counted since the start, all of them together, and hold right now."""

    interactive_arrived: float = 0.0
    bulk_arrived: float = 0.0
    served: float = 0.0
    busy_s: float = 0.0
    token_s: float = 0.0
    interactive: float = 0.0
    bulk: float = 0.0
    interactive_age_s: float = 0.0
    bulk_age_s: float = 0.0
    held_interactive: float = 0.0
    held_bulk: float = 0.0


class Policy(Protocol):
    """Who decides."""

    name: str

    def decide(self, now: float, running: int, target: int, counters: Counters) -> int:
        """The replicas to have; `counters` are some seconds old, `running` and `target` are not."""
        ...


@dataclass(slots=True)
class Lane:
    """One class: what has come and gone, and its queue between the two curves."""

    steps: int
    offered: Array
    come: Array = field(init=False)
    gone: Array = field(init=False)
    late: Array = field(init=False)
    waiting: float = 0.0
    oldest: int = 0  # the step whose arrivals are next

    def __post_init__(self) -> None:
        self.come, self.gone, self.late = (np.zeros(self.steps + 1) for _ in range(3))

    def arrive(self, step: int, tokens: float) -> None:
        """So many come, and wait."""
        self.come[step + 1] = self.come[step] + tokens
        self.waiting += tokens

    def leave(self, step: int, tokens: float, patience: int) -> None:
        """`tokens` are served; those that came `patience` steps ago and still wait are dropped."""
        gone = float(self.gone[step]) + tokens
        expired = float(self.come[max(0, step + 1 - patience)]) - gone
        if expired > 1e-6:
            self.late[step] = expired
            gone += expired
        self.gone[step + 1] = gone
        self.waiting = max(0.0, float(self.come[step + 1]) - gone)
        while self.oldest < step and self.come[self.oldest + 1] <= gone + 1e-6:
            self.oldest += 1

    def age(self, step: int, step_s: float) -> float:
        """Seconds that the oldest has waited."""
        return (step + 1 - self.oldest) * step_s if self.waiting > 1e-6 else 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """What happened: by step, and the latency curves by class."""

    traffic: Traffic
    machine: Machine
    policy: str
    running: Array
    target: Array
    ordered: Array
    """Replicas that run or start: what is paid for."""
    batch_s: Array
    lanes: dict[str, Lane]
    counters: Counters


class Cluster:
    """The replicas of one group, one step after another."""

    def __init__(self, machine: Machine, floor: int, ceiling: int, start: int) -> None:
        self.machine, self.floor, self.ceiling = machine, floor, ceiling
        self.running = self.target = start
        self.starting: deque[float] = deque()

    def order(self, target: int, now: float) -> None:
        """Have so many: new ones start, of too many those go first that do not run yet."""
        self.target = min(max(target, self.floor), self.ceiling)
        while self.running + len(self.starting) < self.target:
            self.starting.append(now + self.machine.start_s)
        while self.running + len(self.starting) > self.target:
            if self.starting:
                self.starting.pop()
            else:
                self.running -= 1

    def advance(self, now: float) -> None:
        """Those that have started by now run."""
        while self.starting and self.starting[0] <= now:
            self.starting.popleft()
            self.running += 1


def simulate(traffic: Traffic, cluster: Cluster, policy: Policy) -> Run:
    """The whole traffic through the cluster; the policy is asked every second."""
    machine, step_s = cluster.machine, traffic.step_s
    steps = len(traffic.interactive)
    lanes = {
        "interactive": Lane(steps, traffic.interactive),
        "bulk": Lane(steps, traffic.bulk),
    }
    running, target, ordered, batch_s = (np.zeros(steps) for _ in range(4))
    counters = Counters()
    reports = (copy(counters), copy(counters))
    patience = max(1, round(machine.timeout_s / step_s))
    every, report_every = max(1, round(1 / step_s)), max(1, round(machine.report_s / step_s))
    for step in range(steps):
        now = (step + 1) * step_s
        cluster.advance(now)
        batch_s[step] = _flow(step, traffic, cluster, lanes, counters, patience)
        running[step], target[step] = cluster.running, cluster.target
        ordered[step] = cluster.running + len(cluster.starting)
        if step % report_every == 0:
            reports = (reports[1], copy(counters))
        if step % every == 0:
            cluster.order(policy.decide(now, cluster.running, cluster.target, reports[0]), now)
    return Run(traffic, machine, policy.name, running, target, ordered, batch_s, lanes, counters)


def _flow(
    step: int,
    traffic: Traffic,
    cluster: Cluster,
    lanes: dict[str, Lane],
    counters: Counters,
    patience: int,
) -> float:
    """One step of arrivals and service; the seconds of a batch in it."""
    machine, step_s, n = cluster.machine, traffic.step_s, cluster.running
    interactive, bulk = lanes["interactive"], lanes["bulk"]
    offered_i, offered_b = float(interactive.offered[step]), float(bulk.offered[step])
    bound = max(n * machine.queue_tokens, machine.held_tokens)
    capacity = n * machine.tokens_per_s * step_s
    # What is served within the step never waits, so it needs no room.
    waiting: dict[ServiceClass, float]
    waiting = {"interactive": interactive.waiting, "bulk": bulk.waiting}
    room = most("interactive", bound, waiting) + capacity - interactive.waiting
    interactive.arrive(step, min(offered_i, max(0.0, room)))
    spare = max(capacity / BULK_EVERY, capacity - interactive.waiting)
    waiting["interactive"] = interactive.waiting
    room = most("bulk", bound, waiting) + spare - bulk.waiting
    bulk.arrive(step, min(offered_b, max(0.0, room)))
    if interactive.waiting + bulk.waiting <= capacity:
        served_i, served_b = interactive.waiting, bulk.waiting
    else:
        share = max(capacity / BULK_EVERY, capacity - interactive.waiting)
        served_b = min(bulk.waiting, share)
        served_i = min(interactive.waiting, capacity - served_b)
    interactive.leave(step, served_i, patience)
    bulk.leave(step, served_b, patience)
    served = served_i + served_b
    rate = served / (n * step_s) if n else 0.0
    seconds = machine.batch_s(rate)
    waits = interactive.waiting + bulk.waiting > 0
    alone = machine.overhead_s + machine.token_s * traffic.request_tokens
    busy = 1.0 if waits else min(1.0, rate / traffic.request_tokens * alone)
    # In a batch, or waiting for the one before it to end: one and a half batches on average.
    inside = 1.5 * seconds / step_s
    _count(counters, n, busy * n * step_s, (offered_i, offered_b), (served_i, served_b), inside)
    counters.interactive += interactive.waiting
    counters.bulk += bulk.waiting
    counters.token_s += (counters.interactive + counters.bulk) * step_s
    counters.interactive_age_s = interactive.age(step, step_s)
    counters.bulk_age_s = bulk.age(step, step_s)
    return seconds


def _count(
    counters: Counters,
    running: int,
    busy_s: float,
    offered: tuple[float, float],
    served: tuple[float, float],
    inside: float,
) -> None:
    counters.held_interactive += offered[0]
    counters.held_bulk += offered[1]
    if running:  # what waited for the first replica arrives in it at once
        counters.interactive_arrived += counters.held_interactive
        counters.bulk_arrived += counters.held_bulk
        counters.held_interactive = counters.held_bulk = 0.0
    counters.served += sum(served)
    counters.busy_s += busy_s
    counters.interactive, counters.bulk = served[0] * inside, served[1] * inside
