"""Replicas follow the tokens: enough, in time, and never to and fro."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from deployments.app import _scale_by_tokens
from deployments.autoscaling import Autoscaler, Group, Load, Reading, Scaling, TargetLatency
from deployments.autoscaling.learning import RateCurve, StartUps, Trend
from deployments.autoscaling.readings import Groups, Report
from deployments.config import ModelReplicas

BATCH = 1000.0
RATE = 1000.0  # tokens per second of a full replica
SCALING = Scaling(batch_tokens=BATCH, start_s=30.0)


class Clock:
    """Time as an argument."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class World:
    """Ideal replicas of `RATE`, that start in thirty seconds, under a load the test sets."""

    def __init__(self, replicas: int = 1, floor: int = 1, ceiling: int = 1000) -> None:
        self.scaler = Autoscaler(SCALING)
        self.floor, self.ceiling = floor, ceiling
        self.target = self.running = replicas
        self.starting: list[float] = []
        self.now = self.backlog = 0.0
        self.counts: list[int] = []
        self.decided: list[tuple[float, int]] = []

    def run(self, seconds: int, load: Callable[[float], float] | float) -> World:
        for _ in range(seconds):
            self.step(load(self.now) if callable(load) else load)
        return self

    def step(self, load: float) -> None:
        self.now += 1
        self.running += sum(at <= self.now for at in self.starting)
        self.starting = [at for at in self.starting if at > self.now]
        capacity = RATE * self.running
        served = min(self.backlog + load, capacity)
        # Nobody waits longer than a minute.
        self.backlog = min(self.backlog + load - served, 60 * capacity)
        used = served / capacity if capacity else 0.0
        work = (served, used * self.running, self.running * (BATCH * used + self.backlog))
        group = Group(self.backlog + served / 10, 0.0, load, 0.0, work=(work,))
        held = 0.0 if self.running else load
        reading = Reading(
            self.now,
            self.running,
            self.target,
            self.floor,
            self.ceiling,
            held,
            group if self.running else None,
        )
        self.order(self.scaler.decide(reading))
        self.decided.append((load, self.target))

    def order(self, wanted: int) -> None:
        assert self.floor <= wanted <= self.ceiling
        while self.running + len(self.starting) < wanted:
            self.starting.append(self.now + 30)
        while self.running + len(self.starting) > wanted:
            if self.starting:
                self.starting.pop()
            else:
                self.running -= 1
        if wanted != self.target:
            self.counts.append(wanted)
        self.target = wanted


loads = st.floats(0, 50 * RATE)
hours = settings(deadline=None, max_examples=15)  # of modelled time


@hours
@given(
    st.lists(st.tuples(loads, st.integers(1, 120)), max_size=8),
    st.integers(0, 5),
    st.integers(5, 40),
)
def test_the_count_stays_between_floor_and_ceiling(
    phases: list[tuple[float, int]], floor: int, ceiling: int
) -> None:
    world = World(replicas=floor, floor=floor, ceiling=ceiling)
    for load, seconds in phases:
        world.run(seconds, load)  # asserted with every order


@hours
@given(loads, st.floats(0, 0.1), st.integers())
def test_a_constant_load_has_a_constant_answer(load: float, noise: float, seed: int) -> None:
    random = Random(seed)
    world = World(replicas=3).run(1800, lambda _: load * random.uniform(1 - noise, 1 + noise))
    world.counts.clear()
    world.run(1800, lambda _: load * random.uniform(1 - noise, 1 + noise))
    ups = [after > before for before, after in pairwise(world.counts)]
    assert len(set(ups)) < 2, f"to and fro: {world.counts}"


@hours
@given(loads, st.floats(1, 10), st.integers(1, 60))
def test_more_load_never_means_fewer_replicas(load: float, times: float, replicas: int) -> None:
    less = World(replicas=replicas).run(60, load)
    more = World(replicas=replicas).run(60, load * times)
    assert more.target >= less.target


@hours
@given(st.floats(RATE, 20 * RATE), st.floats(2, 20))
def test_a_burst_is_carried_and_forgotten(load: float, times: float) -> None:
    world = World(replicas=2).run(900, load)
    before = world.target
    world.run(600, load * times)
    assert world.running * RATE >= load * times
    assert world.backlog == 0
    world.run(3600, load)
    assert world.target <= max(before, 1.3 * load / (RATE * SCALING.utilisation) + 1)


@hours
@given(st.lists(st.tuples(loads, st.integers(30, 300)), min_size=1, max_size=8))
def test_what_is_needed_is_never_taken_away(phases: list[tuple[float, int]]) -> None:
    world = World(replicas=30).run(60, 30 * RATE)
    for load, seconds in phases:
        for _ in range(seconds):
            before = world.target
            world.step(load)
            if world.target < before:
                recent = max(seen for seen, _ in world.decided[-290:])
                assert world.target * RATE * SCALING.utilisation >= min(recent, load)


def test_a_flash_crowd_is_answered_within_seconds_and_to_its_size() -> None:
    world = World(replicas=2).run(600, RATE)
    world.run(10, 20 * RATE)
    assert 20 / SCALING.utilisation <= world.target <= 1.5 * 20 / SCALING.utilisation


def test_one_huge_request_orders_no_crowd_of_replicas() -> None:
    world = World(replicas=2).run(600, RATE)
    world.step(30 * RATE)
    world.run(60, RATE)
    assert world.target <= 4


def test_replicas_go_in_steps() -> None:
    world = World(replicas=2).run(300, RATE).run(300, 30 * RATE)
    world.counts.clear()
    top = world.target
    world.run(1800, RATE)
    steps = [top, *world.counts]
    assert all(after >= before * (1 - SCALING.down_step) - 1 for before, after in pairwise(steps))
    assert steps[-1] <= 3


def test_a_new_controller_takes_nothing_away_before_it_has_seen_enough() -> None:
    world = World(replicas=20).run(int(SCALING.down_delay_s) - 1, RATE)
    assert world.target == 20


def test_those_that_start_are_not_ordered_again() -> None:
    world = World(replicas=1).run(300, RATE / 2)
    world.run(29, 6 * RATE)
    assert world.running == 1
    assert world.target <= 12


def test_the_last_replica_goes_after_an_idle_time_and_comes_back_for_one_request() -> None:
    world = World(replicas=2, floor=0).run(120, RATE / 10)
    world.run(int(SCALING.idle_s) - 10, 0.0)
    assert world.target == 1
    world.run(120, 0.0)
    assert (world.target, world.running) == (0, 0)
    world.step(3.0)
    assert world.target == 1
    world.run(60, 0.0)  # served, and not gone again at once
    assert world.running == 1


def test_a_floor_above_zero_is_kept_when_idle() -> None:
    assert World(replicas=2, floor=2).run(3000, 0.0).target == 2


def reading(group: Group | None, running: int = 4, target: int = 4, now: float = 0.0) -> Reading:
    return Reading(now, running, target, 1, 100, 0.0, group)


def ask(scaler: Autoscaler, seconds: int, group: Group, running: int = 4) -> int:
    wanted = running
    for second in range(seconds):
        wanted = scaler.decide(reading(group, running, wanted, float(second)))
    return wanted


FULL = (4 * RATE, 4.0, 4 * 1.5 * BATCH)  # a second's work of four full replicas


def test_bulk_that_fills_what_is_left_orders_nothing() -> None:
    group = Group(100.0, 5000.0, RATE, 3 * RATE, bulk_age_s=5.0, work=(FULL,))
    assert ask(Autoscaler(SCALING), 120, group) == 4


def test_bulk_that_is_refused_for_its_whole_patience_orders_replicas() -> None:
    group = Group(100.0, 5000.0, RATE, 9 * RATE, bulk_age_s=5.0, work=(FULL,))
    assert ask(Autoscaler(SCALING), 30, group) == 4
    assert ask(Autoscaler(SCALING), 120, group) == 10


def test_bulk_that_waits_too_long_orders_replicas() -> None:
    late = Group(100.0, 400 * BATCH, RATE, 3 * RATE, bulk_age_s=90.0, work=(FULL,))
    assert ask(Autoscaler(SCALING), 10, late) > 4


def test_an_old_interactive_text_counts_where_the_rate_is_not_known() -> None:
    light = (400.0, 4.0, 40.0)  # busy all the time, with ten tokens each
    calm = Group(40.0, 0.0, 400.0, 0.0, interactive_age_s=0.02, work=(light,))
    assert ask(Autoscaler(SCALING), 60, calm) == 4
    late = replace(calm, interactive_age_s=2.0)
    assert ask(Autoscaler(SCALING), 60, late) > 4


def test_nothing_is_decided_without_reports() -> None:
    assert Autoscaler(SCALING).decide(reading(None)) == 4


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [({"target_latency_s": 0}, "target_latency_s"), ({"utilisation": 1.1}, "utilisation")],
)
def test_a_number_that_makes_no_sense_is_refused_by_its_name(
    kwargs: dict[str, float], name: str
) -> None:
    with pytest.raises(ValueError, match=name):
        TargetLatency(batch_tokens=BATCH, **kwargs)


def test_a_quiet_replica_does_not_hide_what_a_full_one_does() -> None:
    curve = RateCurve(BATCH, 1e6)
    for now in range(20):
        curve.learn(100.0, 1.0, 10.0, 1, now)
    assert curve.rate(20) == pytest.approx(100)
    assert not curve.is_full(20)
    for now in range(20, 40):
        curve.learn(900.0, 1.0, 2000.0, 1, now)
    for now in range(40, 400):
        curve.learn(100.0, 1.0, 10.0, 1, now)
    assert curve.is_full(400)
    assert curve.rate(400) == pytest.approx(900)


def test_two_levels_say_what_twice_the_load_would_do() -> None:
    fixed, each = 0.01, 1e-5
    curve = RateCurve(16384, 1e6)
    for held in (200.0, 400.0):
        for now in range(10):
            curve.learn(held / (fixed + each * held), 1.0, held, 1, now)
    assert curve.rate(10) == pytest.approx(800 / (fixed + each * 800))


def test_a_rate_not_seen_for_long_is_forgotten() -> None:
    curve = RateCurve(BATCH, 100.0)
    curve.learn(9000.0, 10.0, 20000.0, 1, 0.0)
    assert curve.rate(50.0) == 900
    assert curve.rate(101.0) == 0


def test_start_ups_are_learnt_from_orders() -> None:
    starts = StartUps(60.0)
    for now in range(100):
        starts.observe(float(now), 1 if now < 50 else 3, 1 if now < 10 else 3)
    assert starts.seconds == 40


def test_an_order_taken_back_teaches_nothing() -> None:
    starts = StartUps(60.0)
    for now, target in enumerate([1, 3, 3, 1, 1]):
        starts.observe(float(now), 1, target)
    assert starts.seconds == 60


def test_a_ramp_is_seen_coming_and_a_jump_is_not_one() -> None:
    ramp, jump = Trend(), Trend()
    for second in range(3600):
        ramp.observe(1000 + second * 0.5, float(second))
        jump.observe(1000.0 if second < 3590 else 20_000.0, float(second))
    assert ramp.growth(60) == pytest.approx(0.5 * 60 / 2800, rel=0.1)
    assert jump.growth(60) == 0


def test_a_replica_counts_what_it_holds_serves_and_fails() -> None:
    clock = Clock()
    load = Load(clock)
    with load.holding(100, "interactive"):
        clock.now = 2.0
        with suppress(RuntimeError), load.holding(30, "bulk"):
            clock.now = 3.0
            during = load.report()
            raise RuntimeError
    clock.now = 10.0
    assert during["interactive_tokens"] == 100 and during["bulk_tokens"] == 30
    assert during["interactive_age_s"] == 3 and during["bulk_age_s"] == 1
    assert load.report() == {
        "interactive_tokens": 0,
        "bulk_tokens": 0,
        "interactive_age_s": 0,
        "bulk_age_s": 0,
        "interactive_arrived": 100,
        "bulk_arrived": 30,
        "served": 100,
        "busy_s": 3,
        "token_s": 330,
    }


def test_rates_are_between_two_reports_and_the_gone_are_forgotten() -> None:
    groups = Groups()
    first, second = Report(0.0), Report(2.0, interactive_arrived=400.0, served=300.0, busy_s=1.0)
    assert groups.read({"a": (first, first)}) is None
    both = groups.read({"a": (first, second), "b": (first, second)})
    assert both and both.interactive_rate == 400 and both.work == ((300, 1, 0), (300, 1, 0))
    again = groups.read({"a": (first, second)})
    assert again and again.interactive_rate == 200 and again.work == ()


def serve_config(**bounds: int) -> AutoscalingConfig:
    config = _scale_by_tokens(ModelReplicas(**bounds), int(BATCH))["autoscaling_config"]
    assert isinstance(config, AutoscalingConfig)
    return config


def context(
    now: float, running: int, target: int, stats: Mapping[str, float], **more: Any
) -> AutoscalingContext:
    """Serve's own, with two reports of every replica: idle until a second ago, and `stats`."""
    name = DeploymentID(name="Replica:m")
    replicas = [ReplicaID(str(n), name) for n in range(running)]
    raw = {
        key: {
            replica: [TimeStampedValue(now - 1, 0.0), TimeStampedValue(now, value)]
            for replica in replicas
        }
        for key, value in stats.items()
    }
    return AutoscalingContext(
        deployment_id=name,
        deployment_name=name.name,
        app_name="polyvec",
        current_num_replicas=running,
        target_num_replicas=target,
        running_replicas=replicas,
        total_num_requests=more.get("requests", 0.0),
        total_queued_requests=0.0,
        aggregated_metrics=None,
        raw_metrics=lambda: raw,
        capacity_adjusted_min_replicas=more.get("floor", 1),
        capacity_adjusted_max_replicas=100,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=now,
        config=serve_config(min=0, max=100),
    )


def stats_at(now: float) -> dict[str, float]:
    """A replica that has had twice what it can do since the start."""
    seen = Load(lambda: 0.0).report()
    return seen | {
        "served": RATE * now,
        "busy_s": now,
        "token_s": 3 * BATCH * now,
        "interactive_tokens": 3 * BATCH,
        "interactive_arrived": 2 * RATE * now,
        "interactive_age_s": 3.0,
    }


def test_through_serve_the_policy_orders_what_the_load_needs() -> None:
    config = serve_config(min=1, max=100)
    policy = _apply_autoscaling_config(config.policy.get_policy()(**config.policy.policy_kwargs))
    target = 4
    for second in range(1, 20):
        target, _ = policy(context(float(second), 4, target, stats_at(second)))
    # 8 replicas' worth arrives: at three quarters 10.7, and a bit for the backlog.
    assert 11 <= target <= 13


def test_through_serve_the_first_request_gets_a_replica_that_is_not_taken_away() -> None:
    policy = _apply_autoscaling_config(TargetLatency(batch_tokens=BATCH))
    nothing: dict[str, float] = {}
    for second in range(3):
        assert policy(context(float(second), 0, 0, nothing, floor=0))[0] == 0
    first, _ = policy(context(2000.0, 0, 0, nothing, floor=0, requests=1.0))
    assert first == 1
    given_up, _ = policy(context(2000.1, 0, 1, nothing, floor=0))
    assert given_up == 1
    running, _ = policy(context(2060.0, 1, 1, nothing, floor=0))
    assert running == 1


def test_serve_is_told_of_load_every_two_seconds_and_less_often_by_many() -> None:
    few, many = serve_config(min=1, max=4), serve_config(min=1, max=1000)
    assert (few.metrics_interval_s, few.look_back_period_s) == (2, 10)
    assert (many.metrics_interval_s, many.look_back_period_s) == (10, 50)
    assert few.upscale_delay_s == few.downscale_delay_s == 0
