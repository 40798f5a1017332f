"""Outcomes as a table in the terminal and as a plot in a folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from loadtests.simulator.cluster import Run
from loadtests.simulator.outcome import Outcome, latencies

__all__ = ["plot", "table"]

_POINTS = 1500  # a plot is not wider


def table(title: str, outcomes: Iterable[Outcome]) -> Table:
    """A row a policy."""
    rows = Table(title=title, title_justify="left")
    rows.add_column("policy", no_wrap=True)
    for name in ("p50 s", "p95 s", "p99 s", "bulk p95", "refused", "late"):
        rows.add_column(name, justify="right", no_wrap=True)
    for name in ("GPU-hours", "used", "most", "up", "down", "turns"):
        rows.add_column(name, justify="right", no_wrap=True)
    for one in outcomes:
        quick, bulk = one.latency["interactive"], one.latency.get("bulk")
        rows.add_row(
            one.policy,
            *(f"{value:.3g}" for value in (quick.p50, quick.p95, quick.p99)),
            f"{bulk.p95:.3g}" if bulk else "–",
            f"{one.refused:.2%}",
            f"{one.late:.2%}",
            f"{one.gpu_hours:,.1f}",
            f"{one.utilisation:.0%}",
            str(one.most),
            str(one.ups),
            str(one.downs),
            str(one.turns),
        )
    return rows


def plot(runs: Sequence[Run], target_s: float, folder: Path) -> Path:
    """Load and capacity, replicas, and interactive latency over time; the file written."""
    import matplotlib as mpl

    mpl.use("Agg")  # no screen
    from matplotlib import pyplot

    traffic, machine = runs[0].traffic, runs[0].machine
    every = max(1, len(traffic.interactive) // _POINTS)
    hours = _binned(np.arange(len(traffic.interactive)) * traffic.step_s / 3600, every)
    figure, (load, replicas, latency) = pyplot.subplots(3, 1, figsize=(11, 9), sharex=True)
    offered = _binned((traffic.interactive + traffic.bulk) / traffic.step_s, every)
    load.plot(hours, offered, color="0.6", lw=0.8, label="offered, both classes")
    for number, run in enumerate(runs):
        style: dict[str, Any] = {"color": f"C{number}", "lw": 1.2, "label": run.policy}
        load.plot(hours, _binned(run.running, every) * machine.tokens_per_s, **style)
        replicas.plot(hours, _binned(run.ordered, every), **style)
        seconds, tokens = latencies(run, "interactive")
        weighted = _binned(seconds * tokens, every) / np.maximum(_binned(tokens, every), 1e-9)
        shown = np.where(_binned(tokens, every) > 0, weighted, np.nan)
        latency.plot(hours, shown, **style)
    load.set_ylabel("tokens/s: offered, and capacity")
    replicas.set_ylabel("replicas running or starting")
    latency.set_ylabel("interactive latency, mean, s")
    latency.set_yscale("log")
    latency.axhline(target_s, color="0.3", ls="--", lw=0.8, label="target")
    latency.set_xlabel("hours")
    load.set_yscale("symlog", linthresh=machine.tokens_per_s)
    replicas.set_yscale("symlog", linthresh=1)
    load.set_ylim(bottom=0)
    replicas.set_ylim(bottom=0)
    for axes in (load, replicas, latency):
        axes.grid(alpha=0.3)
        axes.legend(loc="best", fontsize=8)
    load.set_title(f"{traffic.name}: start-up {machine.start_s:g} s")
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{traffic.name}.png"
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def _binned(values: Any, every: int) -> Any:
    """Means of so many values in a row, the rest at the end left out."""
    whole = len(values) // every * every
    return np.asarray(values)[:whole].reshape(-1, every).mean(axis=1)
