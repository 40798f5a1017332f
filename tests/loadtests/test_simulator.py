"""The simulator, held against queueing theory, the real queue's rule, and Ray's own policy."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ray.serve import autoscaling_policy as ray_policy

from loadtests import simulate as command
from loadtests.simulator.capacity import at_least, carried
from loadtests.simulator.cluster import Cluster, Machine, Run, simulate
from loadtests.simulator.outcome import latencies, outcome, percentiles
from loadtests.simulator.policies import Fixed, OngoingRequests
from loadtests.simulator.traces import TRACES, Traffic, trace
from serving.batching import BULK_EVERY, Queue

# A queue without batches: each token takes as long as any other.
PLAIN = Machine(tokens_per_s=1000.0, batch_tokens=1e-6, overhead_s=1e-9, start_s=0.0)


def run(traffic: Traffic, machine: Machine, replicas: int) -> Run:
    cluster = Cluster(machine, replicas, replicas, replicas)
    return simulate(traffic, cluster, Fixed(replicas))


def mean_wait(run: Run) -> float:
    seconds, tokens = latencies(run, "interactive")
    waits = seconds - 1.5 * run.batch_s[: len(seconds)]
    return float((waits * tokens).sum() / tokens.sum())


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_replica_waits_as_long_as_an_m_d_1_queue(load: float) -> None:
    """Pollaczek and Khinchine: a wait of ρD / 2(1 - ρ), at a constant service time D. A token is
    on average in the middle of its request, which is half a D later."""
    service_s = 0.4
    rate = load * PLAIN.tokens_per_s
    traffic = trace("steady", rate, 0.02, service_s * PLAIN.tokens_per_s, seconds=4000)
    theory = load * service_s / (2 * (1 - load)) + service_s / 2
    assert mean_wait(run(traffic, PLAIN, 1)) == pytest.approx(theory, rel=0.12)


def test_what_is_here_is_what_arrives_times_how_long_it_stays() -> None:
    """Little's law, over two countings that do not know of each other."""
    machine = Machine()
    traffic = trace("steady", 280e3, 0.25, 200.0, seconds=3600)
    ran = run(traffic, machine, 3)
    seconds, tokens = latencies(ran, "interactive")
    here = ran.counters.token_s / traffic.seconds
    arrives = tokens.sum() / traffic.seconds
    stays = (seconds * tokens).sum() / tokens.sum()
    assert here == pytest.approx(arrives * stays, rel=0.05)


def test_no_token_is_lost_or_made() -> None:
    traffic = trace("flash", 300e3, 0.25, 200.0)
    ran = run(traffic, Machine(), 4)
    lane = ran.lanes["interactive"]
    served = ran.counters.served + lane.late.sum() + lane.waiting
    assert served == pytest.approx(lane.come[-1], rel=1e-9)
    assert outcome(ran).refused > 0.5


def test_bulk_has_the_share_that_the_real_queue_gives_it() -> None:
    queue: Queue[str] = Queue(batch_tokens=10, queue_tokens=100_000)
    for owner in ("interactive", "bulk"):
        queue.add(owner, [10] * 1000, owner, 0.0, 1e9)  # type: ignore[arg-type]
    real = Counter(row.ticket.owner for _ in range(800) for row in queue.take(0.0).rows)

    full = np.full(20, 1e6)  # both wait all the time
    ran = run(Traffic("both", 0.25, full, full, 100.0), Machine(), 1)
    gone = {name: lane.gone[-1] for name, lane in ran.lanes.items()}
    assert real["bulk"] / 800 == 1 / BULK_EVERY
    assert gone["bulk"] / sum(gone.values()) == pytest.approx(1 / BULK_EVERY)


def test_a_bulk_ingest_has_no_interactive_work_refused() -> None:
    traffic = trace("ingest", 300e3, 0.25, 200.0)
    ours = command.compare(traffic, Machine(), 1.0, (1, 128), ())[0]
    refused = {name: lane.offered.sum() - lane.come[-1] for name, lane in ours.lanes.items()}
    assert refused["interactive"] == pytest.approx(0, abs=1)
    assert refused["bulk"] > 1e6


def test_what_waits_too_long_is_given_up() -> None:
    machine = Machine(start_s=90.0)
    offered = np.zeros(1200)
    offered[:4] = 1000.0
    traffic = Traffic("once", 0.25, offered, np.zeros(1200), 100.0)
    found = outcome(simulate(traffic, Cluster(machine, 0, 4, 0), Fixed(1)))
    assert found.late == 1
    quicker = Machine(start_s=30.0)
    ran = simulate(traffic, Cluster(quicker, 0, 4, 0), Fixed(1))
    assert outcome(ran).late == 0
    assert 29 < outcome(ran).latency["interactive"].p50 < 31


def test_a_replica_costs_from_its_order_and_works_from_its_start() -> None:
    cluster = Cluster(Machine(start_s=10.0), 0, 4, 0)
    cluster.order(3, 0.0)
    cluster.advance(9.0)
    assert (cluster.running, len(cluster.starting)) == (0, 3)
    cluster.order(2, 9.0)
    cluster.advance(10.0)
    assert (cluster.running, len(cluster.starting)) == (2, 0)


@pytest.mark.parametrize("ongoing", [2.0, 8.0])
def test_serve_s_policy_is_ray_s_own(ongoing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against `_apply_autoscaling_config`, which is what Serve runs, at a clock that is ours."""
    now = 0.0
    monkeypatch.setattr(ray_policy, "time", SimpleNamespace(time=lambda: now))
    ours = OngoingRequests(ongoing, 0, 50, 100.0)
    ray = ray_policy._apply_autoscaling_config(ray_policy.default_autoscaling_policy)
    random = np.random.default_rng(1)
    target, requests = 0, 0.0
    state: dict[str, object] = {}
    seen = set()
    for second in range(4000):
        now = float(second)
        if second % 700 == 0:
            requests = float(random.choice([0, 10, 200]))
        context = ours.context(now, target, target, requests)
        context.policy_state = dict(state)
        wanted, state = ray(context)
        assert ours.ask(now, target, target, requests) == wanted
        target = min(max(wanted, 0), 50)
        seen.add(target)
    assert len(seen) > 2


def test_our_policy_holds_the_latency_where_serve_s_target_has_to_be_guessed() -> None:
    traffic = trace("flash", 300e3, 0.25, 200.0)
    ours, twice, eight = map(
        outcome, command.compare(traffic, Machine(), 1.0, (1, 128), (2.0, 8.0))
    )
    assert ours.latency["interactive"].p95 < 1
    assert ours.gpu_hours < twice.gpu_hours and ours.gpu_hours < eight.gpu_hours
    assert ours.refused < 0.11  # of the ten minutes of crowd, a start-up and a half
    assert ours.ups <= 5


def test_a_group_that_is_seldom_used_costs_nothing_in_between() -> None:
    traffic = trace("seldom", 20e3, 0.25, 200.0)
    ours = outcome(command.compare(traffic, Machine(start_s=45.0), 1.0, (0, 8), ())[0])
    assert ours.gpu_hours < 0.3 * traffic.seconds / 3600
    assert ours.refused + ours.late == 0


@pytest.mark.parametrize("name", TRACES)
def test_every_trace_has_the_mean_it_says(name: str) -> None:
    traffic = trace(name, 1e6, 1.0, 200.0)
    calm = traffic.interactive[traffic.interactive < 10e6]
    if name != "seldom":
        assert calm.mean() == pytest.approx(1e6, rel=0.01)
    assert (trace(name, 1e6, 1.0, 200.0).interactive == traffic.interactive).all()


def test_the_answer_is_the_fewest_replicas_that_carry_the_rate() -> None:
    machine = Machine()
    found = at_least(machine, 2e6, 200.0, 0.2, 1000)
    assert found and 20 < found.replicas < 30
    assert found.outcome.latency["interactive"].p95 <= 0.2
    assert carried(machine, found.replicas - 1, 2e6, 200.0, 0.2) is None
    assert at_least(machine, 2e8, 200.0, 0.2, 1000) is None


def test_percentiles_are_by_weight() -> None:
    assert percentiles(np.array([3.0, 1.0, 2.0]), np.array([1.0, 98.0, 1.0]), (0.5, 0.985, 1)) == [
        1.0,
        2.0,
        3.0,
    ]


def test_the_command_prints_a_table_and_writes_a_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="the extra `load` is not installed")
    asked = ["traffic", "--trace", "steady", "--ongoing", "2", "--out", str(tmp_path / "plots")]
    assert command.main(asked) == 0
    said = capsys.readouterr().out
    assert "GPU-hours" in said and "ongoing 2" in said
    assert (tmp_path / "plots" / "steady.png").stat().st_size > 10_000


def test_a_plot_is_refused_at_once_where_nothing_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        command.main(["traffic", "--out", str(tmp_path / "plots")])
    assert "install.py load" in capsys.readouterr().err


def test_the_command_answers_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["capacity", "--rate", "1e6", "--latency", "0.5"]) == 0
    assert "1,000,000" in capsys.readouterr().out
    assert command.main(["capacity", "--rate", "1e9", "--latency", "0.5"]) == 1
    assert "> 1000" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["traffic", "--rate", "-1"], ["traffic", "--rate", "x"]])
def test_a_number_that_makes_no_sense_is_refused(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(wrong)
    assert "--rate" in capsys.readouterr().err
