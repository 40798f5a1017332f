"""How many replicas a group needs. Pure: a reading in, a count out; the clock is in the reading.

What is needed is what arrives over what a replica achieves, with room to spare, and more while a
backlog waits that the running replicas do not clear before a new one could start. Up: at once, to
all that is needed. Down: after nothing more was needed for a while, in steps. In between a band in
which nothing happens, so that a constant load has a constant answer.

Interactive tokens are to be through within `target_latency_s`. Bulk fills what they leave: it
keeps the replicas that it fills, and orders more when it has waited, or has been more than could be
taken, for all of `bulk_latency_s`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields
from math import ceil, inf
from typing import NamedTuple

from deployments.autoscaling.learning import RateCurve, StartUps, Trend
from deployments.autoscaling.readings import Group, Reading

__all__ = ["Autoscaler", "Scaling"]

_ROUNDING = 0.05  # of a replica: less is not worth one


@dataclass(frozen=True, slots=True)
class Scaling:
    """The policy's numbers, each with its reason. Seconds, unless the name says otherwise."""

    batch_tokens: float
    """Tokens of a full batch. A replica with as many at hand shows what it can do."""

    target_latency_s: float = 1.0
    """What an interactive text may take in a replica, its wait included. Replicas are ordered when
    half of it is foreseen: the other half is what the order takes to be noticed."""

    bulk_latency_s: float = 60.0
    """The same for bulk. Long: an ingest fills whatever there is, so a short one is an order for
    every replica that may be had."""

    utilisation: float = 0.75
    """The part of a replica's rate that interactive load may take. The wait of a queue grows with
    1 / (1 - utilisation): at 0.75 chance triples it at most, at 0.9 it is tenfold. The quarter left
    also clears a backlog, and bears the growth during a start-up."""

    confirm_s: float = 5.0
    """A rise counts when it has lasted so long: two or three reports. One huge request is in one
    report only; a crowd is in every one that follows."""

    drain_s: float = 30.0
    """In what time a backlog is to be gone. Shorter orders many replicas for a short use."""

    start_s: float = 60.0
    """A replica's start-up until one was seen: load a model of some gigabytes and warm it up."""

    down_delay_s: float = 300.0
    """Replicas go when nothing of these seconds needed them. Several start-ups long, because a
    mistake costs one; and longer than the pause between two waves of one crowd."""

    down_step: float = 0.25
    """The part of the replicas that goes at a time, one at least: what is wrong with a decision
    shows in the reports before the next step."""

    down_step_s: float = 60.0
    """Seconds between two such steps."""

    margin: float = 0.15
    """Replicas go only while so much more than was needed remains. It is the band in which nothing
    happens; noise of a tenth in the load stays within."""

    idle_s: float = 900.0
    """With a floor of 0, the last replica goes after so long without a token. It must be worth the
    first request's wait of a whole start-up."""

    memory_s: float = 86_400.0
    """A rate that has not been seen for so long is forgotten: the texts may have changed. A day,
    because only its busiest hour shows what a replica can do."""

    decide_s: float = 1.0
    """Seconds between decisions. Serve asks ten times a second, reports come every few seconds."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} must be above 0")
        for name in ("utilisation", "down_step"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be at most 1")


class Autoscaler:
    """The policy of one replica group, and what it has learnt. `decide` is called with every
    reading, in order of time."""

    def __init__(self, scaling: Scaling) -> None:
        self._is = scaling
        self._curve = RateCurve(scaling.batch_tokens, scaling.memory_s)
        self._starts = StartUps(scaling.start_s)
        self._trend = Trend()
        self._demand = _Lasting(scaling.confirm_s)
        self._bulk = _Lasting(scaling.bulk_latency_s)
        self._needs: deque[tuple[float, float]] = deque()  # falling: each was the last so high
        self._since: float | None = None
        self._busy_at = self._down_at = -inf
        self._target = 0
        self._before: tuple[float, float] | None = None  # interactive backlog, and when
        self._growth = 0.0  # of it, tokens per second

    def decide(self, reading: Reading) -> int:
        """The replicas to have, between the reading's floor and ceiling."""
        now = reading.now
        if self._since is None:
            self._since = self._busy_at = now
        self._starts.observe(now, reading.running, reading.target)
        need = self._need(reading)
        while self._needs and self._needs[-1][1] <= need.replicas:
            self._needs.pop()
        self._needs.append((now, need.replicas))
        while self._needs[0][0] < now - self._is.down_delay_s:
            self._needs.popleft()
        lowest = max(reading.floor, 0 if self._is_idle(reading) else 1)
        wanted = self._banded(reading, need, lowest)
        self._target = reading.target
        return min(max(wanted, lowest), reading.ceiling)

    def _banded(self, reading: Reading, need: _Need, lowest: int) -> int:
        now, target = reading.now, reading.target
        if (up := _whole(need.replicas)) > target:
            return up
        _, peak = self._needs[0]
        keep = max(lowest, _whole(peak * (1 + self._is.margin)))
        assert self._since is not None
        settled = now - self._since >= self._is.down_delay_s
        if keep >= target or not settled or now - self._down_at < self._is.down_step_s:
            return target
        if need.unconfirmed > keep:
            return target
        self._down_at = now
        return max(keep, min(target - 1, int(target * (1 - self._is.down_step))))

    def _is_idle(self, reading: Reading) -> bool:
        """Whether nobody has wanted anything for `idle_s`."""
        group = reading.group
        load = 0.0
        if group:
            load = group.interactive + group.bulk + group.interactive_rate + group.bulk_rate
        # Serve orders the first replica by itself, and so has somebody to serve.
        if reading.held or load or reading.target > self._target:
            self._busy_at = reading.now
        if reading.target == 0:  # idle until somebody asks
            return not reading.held
        return reading.now - self._busy_at >= self._is.idle_s

    def _need(self, reading: Reading) -> _Need:
        now, group, running = reading.now, reading.group, reading.running
        if running == 0:
            return _Need(max(reading.target, 1) if reading.held else 0)
        if group is None:  # not a word yet: what was ordered is the best guess there is
            return _Need(reading.target)
        for served, busy_s, token_s in group.work:
            self._curve.learn(served, busy_s, token_s, running, now)
        self._trend.observe(group.interactive_rate, now)
        demand = self._demand.observe(group.interactive_rate, now)
        bulk = self._bulk.observe(group.bulk_rate, now)
        self._observe_backlog(group.interactive, now)
        rate = self._curve.rate(now)
        if rate <= 0:
            return _Need(reading.target if group.interactive + group.bulk else 0)
        usable = self._is.utilisation * rate
        need = demand * (1 + self._trend.growth(self._starts.seconds)) / usable
        late = self._is_late(group, running * rate)
        if late:
            need += self._backlog(group, running * rate) / (self._is.drain_s * rate)
        filled = min((demand + group.bulk_rate) / rate, running)
        need = max(need, filled, (demand + bulk) / rate)
        if self._curve.is_full(now):
            need += self._overdue(group, running * rate) / (self._is.bulk_latency_s * rate)
        else:  # the rate is only known to be at least this, so the need is at most that
            need = min(need, max(reading.target, 2 * running if late else 0))
        return _Need(need, group.interactive_rate / usable)

    def _observe_backlog(self, tokens: float, now: float) -> None:
        if self._before is None:
            self._before = (now, tokens)
        at, before = self._before
        if now - at >= self._is.confirm_s:
            self._growth = (tokens - before) / (now - at)
            self._before = (now, tokens)

    def _is_late(self, group: Group, capacity: float) -> bool:
        """Whether half the target is foreseen for an interactive text, by when help could come."""
        foreseen = (group.interactive + max(0.0, self._growth) * self._starts.seconds) / capacity
        return max(foreseen, group.interactive_age_s) > self._is.target_latency_s / 2

    def _backlog(self, group: Group, capacity: float) -> float:
        """Interactive tokens that those running do not clear before a new replica could start."""
        spare = max(0.0, capacity - group.interactive_rate)
        return max(
            0.0,
            group.interactive
            - group.interactive_rate * self._is.target_latency_s
            - spare * self._starts.seconds,
        )

    def _overdue(self, group: Group, capacity: float) -> float:
        """Bulk tokens that will not be through in time."""
        if group.bulk_age_s <= self._is.bulk_latency_s:
            return 0.0
        return max(0.0, group.bulk - (capacity - group.interactive_rate) * self._is.bulk_latency_s)


class _Need(NamedTuple):
    """Replicas that the load of this moment needs, not rounded; and what a rise that has not lasted
    yet would need."""

    replicas: float
    unconfirmed: float = 0.0


class _Lasting:
    """The lowest of a rate over the last `seconds`: what was there all the time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: deque[tuple[float, float]] = deque()

    def observe(self, rate: float, now: float) -> float:
        """The rate now; what has lasted. Before so many seconds have been seen, nothing has."""
        self._seen.append((now, rate))
        while len(self._seen) > 1 and self._seen[1][0] <= now - self._seconds:
            self._seen.popleft()
        if self._seen[0][0] > now - self._seconds:
            return 0.0
        return min(rate for _, rate in self._seen)


def _whole(replicas: float) -> int:
    return max(0, ceil(replicas - _ROUNDING))
