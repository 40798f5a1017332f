"""Rounds of measurements to the numbers and tables that are read. Pure: no clock, no server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from loadtests.client import Outcome, Scenario, percentile

__all__ = ["Measured", "Row", "best_raw", "ratios", "row", "table"]

COLUMNS = ("texts/s", "p50 ms", "p99 ms", "errors", "CPU-ms/req", "texts/CPU-s", "of raw", "client")


@dataclass(frozen=True, slots=True)
class Measured:
    """One round of one scenario against one server; `cpu_s` is None where it cannot be seen."""

    outcome: Outcome
    cpu_s: float | None

    @property
    def texts_per_s(self) -> float:
        """Texts answered per second of the clock."""
        return self.outcome.texts / self.outcome.wall_s

    @property
    def cpu_ms_per_request(self) -> float:
        """Milliseconds of the server's processor time per request answered."""
        answered = len(self.outcome.latencies_s)
        return float("nan") if not self.cpu_s or not answered else 1000 * self.cpu_s / answered

    @property
    def texts_per_cpu_s(self) -> float:
        """Texts answered per second of the server's processor time."""
        return float("nan") if not self.cpu_s else self.outcome.texts / self.cpu_s


@dataclass(frozen=True, slots=True)
class Row:
    """A scenario over all rounds: medians of the rounds, percentiles of all their requests."""

    scenario: str
    server: str
    texts_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_ms_per_request: float
    texts_per_cpu_s: float
    share_of_raw: float | None
    client_share: float
    said: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For `--json`; numbers that could not be had are null."""
        return {key: None if value != value else value for key, value in asdict(self).items()}


def row(scenario: Scenario, server: str, rounds: Sequence[Measured], raw: float | None) -> Row:
    """The row of a scenario; `raw` is the raw model's texts per CPU-second, if it was measured."""
    requests = [1000 * s for measured in rounds for s in measured.outcome.latencies_s]
    said: Counter[str] = Counter()
    for measured in rounds:
        said.update(measured.outcome.errors)
    rate = median(measured.texts_per_cpu_s for measured in rounds)
    return Row(
        scenario=scenario.name,
        server=server,
        texts_per_s=median(measured.texts_per_s for measured in rounds),
        p50_ms=percentile(requests, 0.5),
        p99_ms=percentile(requests, 0.99),
        errors=sum(said.values()),
        cpu_ms_per_request=median(measured.cpu_ms_per_request for measured in rounds),
        texts_per_cpu_s=rate,
        share_of_raw=rate / raw if raw else None,
        client_share=median(m.outcome.client_cpu_s / m.outcome.wall_s for m in rounds),
        said=dict(said),
    )


def best_raw(rates: dict[tuple[str, int, int], list[float]], scenario: Scenario) -> float | None:
    """The raw model's rate for what a scenario can batch, with the faster type of weights.

    A server that batches perfectly sees the texts of all clients at once, up to 32.
    """
    batch = min(32, scenario.clients * scenario.batch)
    same = [r for (_, b, t), r in rates.items() if (b, t) == (batch, scenario.tokens)]
    return max((median(rate) for rate in same), default=None)


def ratios(ours: Sequence[Measured], theirs: Sequence[Measured]) -> tuple[float, float]:
    """Ours over theirs, as the median over rounds: texts per second, texts per CPU-second."""
    pairs = list(zip(ours, theirs, strict=True))
    wall = median(_over(a.texts_per_s, b.texts_per_s) for a, b in pairs)
    return wall, median(_over(a.texts_per_cpu_s, b.texts_per_cpu_s) for a, b in pairs)


def table(rows: Iterable[Row]) -> str:
    """The rows as aligned text."""
    listed = list(rows)
    servers = {entry.server for entry in listed}
    head = ["", *COLUMNS]
    body = []
    for entry in listed:
        label = entry.scenario if len(servers) == 1 else f"{entry.scenario}  [{entry.server}]"
        share = "-" if entry.share_of_raw is None else _shown(100 * entry.share_of_raw, 1) + " %"
        numbers = [_shown(entry.texts_per_s, 0), _shown(entry.p50_ms, 2), _shown(entry.p99_ms, 2)]
        numbers += [str(entry.errors), _shown(entry.cpu_ms_per_request, 3)]
        numbers += [_shown(entry.texts_per_cpu_s, 0), share, f"{100 * entry.client_share:.0f} %"]
        body.append([label, *numbers])
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *body]
    )


def _shown(value: float, digits: int) -> str:
    return "-" if value != value else f"{value:.{digits}f}"


def _over(a: float, b: float) -> float:
    return a / b if b else float("nan")
