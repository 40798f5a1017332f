"""`python -m loadtests.simulate`: what autoscaling does to traffic, and how many GPUs it takes.

python -m loadtests.simulate traffic --trace all --rate 700e3 --out /tmp/plots
python -m loadtests.simulate traffic --trace diurnal --rate 40e6 --max 1000
python -m loadtests.simulate capacity --rate 5e7 --latency 0.5
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.table import Table

from deployments.autoscaling import Scaling
from loadtests.simulator.capacity import at_least
from loadtests.simulator.cluster import Cluster, Machine, Policy, Run, simulate
from loadtests.simulator.outcome import outcome
from loadtests.simulator.policies import OngoingRequests, Ours
from loadtests.simulator.report import plot, table
from loadtests.simulator.traces import TRACES, Traffic, trace

__all__ = ["compare", "main"]

_STEP_S = 0.5
_WIDE = 120  # columns that the tables need


def main(argv: list[str] | None = None) -> int:
    """Run what is asked for; 1 where the question has no answer."""
    parser = _parser()
    asked = parser.parse_args(argv)
    if getattr(asked, "out", None) and find_spec("matplotlib") is None:
        parser.error("plots need matplotlib: python3 deployments/install.py load")
    console = Console()
    console.width = max(console.width, _WIDE)
    machine = Machine(
        tokens_per_s=asked.tokens_per_s,
        batch_tokens=asked.batch_tokens,
        overhead_s=asked.overhead_s,
        queue_tokens=64 * asked.batch_tokens,
        start_s=asked.start_s,
    )
    if asked.question == "capacity":
        return _capacity(asked, machine, console)
    for name in TRACES if asked.trace == "all" else (asked.trace,):
        begun = perf_counter()
        traffic = trace(name, asked.rate, _STEP_S, asked.request_tokens, asked.seed)
        runs = compare(traffic, machine, asked.latency, (asked.min, asked.max), asked.ongoing)
        console.print(table(_title(traffic, machine), map(outcome, runs)))
        if asked.out:
            console.print(f"{plot(runs, asked.latency, asked.out)}")
        console.print(f"{traffic.seconds / 3600:g} h in {perf_counter() - begun:.1f} s\n")
    return 0


def compare(
    traffic: Traffic,
    machine: Machine,
    latency_s: float,
    bounds: tuple[int, int],
    ongoing: Sequence[float],
) -> list[Run]:
    """The same traffic under our policy, and under Serve's with each `target_ongoing_requests`."""
    floor, ceiling = bounds
    scaling = Scaling(batch_tokens=machine.batch_tokens, target_latency_s=latency_s)
    policies: list[Policy] = [Ours(scaling, floor, ceiling)]
    for target in ongoing:
        policies.append(OngoingRequests(target, floor, ceiling, traffic.request_tokens))
    first = float(traffic.interactive[: round(60 / traffic.step_s)].mean()) / traffic.step_s
    start = ceil(first / (scaling.utilisation * machine.tokens_per_s))
    start = min(max(floor, start), ceiling)
    return [simulate(traffic, Cluster(machine, floor, ceiling, start), each) for each in policies]


def _capacity(asked: argparse.Namespace, machine: Machine, console: Console) -> int:
    rows = Table(title="replicas needed", title_justify="left")
    for name in ("tokens/s", "replicas", "p50 s", "p95 s", "p99 s", "used"):
        rows.add_column(name, justify="right")
    missing = False
    for rate in asked.rate:
        found = at_least(machine, rate, asked.request_tokens, asked.latency, asked.max)
        if found is None:
            missing = True
            rows.add_row(f"{rate:,.0f}", f"> {asked.max}", "–", "–", "–", "–")
            continue
        one = found.outcome.latency["interactive"]
        used = f"{found.outcome.utilisation:.0%}"
        numbers = (f"{value:.3g}" for value in (one.p50, one.p95, one.p99))
        rows.add_row(f"{rate:,.0f}", str(found.replicas), *numbers, used)
    console.print(rows)
    return int(missing)


def _title(traffic: Traffic, machine: Machine) -> str:
    mean = (traffic.interactive + traffic.bulk).sum() / traffic.seconds
    return (
        f"{traffic.name}: {mean:,.0f} tokens/s on average, replicas of "
        f"{machine.tokens_per_s:,.0f} tokens/s that start in {machine.start_s:g} s"
    )


def _parser() -> argparse.ArgumentParser:
    usual = Machine()
    parser = argparse.ArgumentParser(prog="python -m loadtests.simulate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    shared = argparse.ArgumentParser(add_help=False)
    add = shared.add_argument
    add("--latency", type=_positive, default=1.0, help="seconds a text may take (%(default)s)")
    add("--request-tokens", type=_positive, default=200.0, help="of a request (%(default)s)")
    add("--tokens-per-s", type=_positive, default=usual.tokens_per_s, help="of a replica")
    add("--batch-tokens", type=_positive, default=usual.batch_tokens, help="of a full batch")
    add("--overhead-s", type=_positive, default=usual.overhead_s, help="of a batch")
    add("--start-s", type=_positive, default=usual.start_s, help="of a replica (%(default)s)")
    questions = parser.add_subparsers(dest="question", required=True)
    traffic = questions.add_parser("traffic", parents=[shared], help="replay traffic")
    traffic.add_argument("--trace", choices=("all", *TRACES), default="all")
    traffic.add_argument("--rate", type=_positive, default=300e3, help="mean tokens/s")
    traffic.add_argument("--min", type=int, default=1, help="replicas at least; 0 is allowed")
    traffic.add_argument("--max", type=int, default=128, help="replicas at most (%(default)s)")
    traffic.add_argument(
        "--ongoing", type=_positive, nargs="+", default=(2.0, 6.0), help="Serve's targets"
    )
    traffic.add_argument("--seed", type=int, default=0, help="of the arrivals")
    traffic.add_argument("--out", type=Path, help="a folder for plots")
    capacity = questions.add_parser("capacity", parents=[shared], help="how many replicas")
    capacity.add_argument("--rate", type=_positive, nargs="+", required=True, help="tokens/s")
    capacity.add_argument("--max", type=int, default=1000, help="replicas at most (%(default)s)")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
