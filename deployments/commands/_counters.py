"""Billed tokens as Prometheus has them: out of scrapes, or out of a Prometheus over a window.

Ray writes `ray_` before a name and the id of the process as `WorkerId`; without Ray neither is
there, and two processes cannot be told apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from deployments.commands._http import fetch, parsed
from serving.errors import InvalidConfig, Refused
from serving.metering.reconciling import Label
from serving.telemetry.metrics import BILLED_TOKENS, Metric
from serving.telemetry.recording import NONE

__all__ = ["gained", "samples", "summed", "text_of"]

_RAY = "ray_"
_WORKER = "WorkerId"
# How far Prometheus looks back for the last value of a series.
_LOOKBACK_S = 300
_STEP_S = 6 * 3600

Sample = tuple[Mapping[str, str], int]


def text_of(where: str) -> str:
    """The text of a file, or of what an http address answers."""
    if where.startswith(("http://", "https://")):
        return fetch(where).decode("utf-8", "replace")
    try:
        return Path(where).read_text("utf-8")
    except OSError as wrong:
        raise InvalidConfig(f"{where}: {wrong.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidConfig(f"{where}: not UTF-8") from None


def samples(where: str, text: str, metric: Metric = BILLED_TOKENS) -> Iterator[Sample]:
    """Every series of a metric in Prometheus' text: its labels and its value, a whole number."""
    names = (metric.name, _RAY + metric.name)
    # Of the hundreds of metrics in a scrape, only this one's lines are read.
    lines = [line for line in text.split("\n") if line.startswith(names)]
    try:
        for family in text_string_to_metric_families("\n".join([*lines, ""])):
            for sample in family.samples:
                if sample.name in names:
                    yield sample.labels, _whole(where, sample.value)
    except ValueError as wrong:
        raise InvalidConfig(f"{where} is not Prometheus' text: {wrong}") from None


def summed(found: Iterable[Sample]) -> dict[Label, int]:
    """The sums by tenant, model, task and modality, over every process.

    `InvalidConfig` where the same counter of a process comes twice, as with two scrapes of a node.
    """
    count: dict[Label, int] = {}
    seen: set[tuple[str, Label]] = set()
    for labels, value in found:
        tenant, model, task, modality = (labels.get(name, "") for name in BILLED_TOKENS.labels)
        label = (tenant, model, "" if task == NONE else task, modality)
        worker = labels.get(_WORKER)
        if worker is not None and (worker, label) in seen:
            raise InvalidConfig(
                f"the counters of the process {worker} come twice; scrape each node once"
            )
        seen.add((worker or "", label))
        count[label] = count.get(label, 0) + value
    return count


def gained(url: str, since: datetime, until: datetime) -> Iterator[Sample]:
    """What every series of a Prometheus grew by between two times, as far as it was scraped.

    Prometheus' own `increase` is not asked: it extrapolates to the edges of its window, and gives
    fractions. Here every sample is read; one below that before it is a process that began anew, and
    a series that was not there five minutes before `since` began at zero.
    """
    address, end = f"{url.rstrip('/')}/api/v1/query", until.timestamp()
    series: dict[frozenset[tuple[str, str]], list[int]] = {}  # the last value, the growth
    at = since.timestamp()
    for labels, values in _range(address, at, _LOOKBACK_S):
        series[labels] = [values[-1], 0]
    while at < end:
        step = min(_STEP_S, end - at)
        at += step
        for labels, values in _range(address, at, step):
            state = series.setdefault(labels, [0, 0])
            for value in values:
                last, growth = state
                state[:] = value, growth + (value - last if value >= last else value)
    return ((dict(labels), growth) for labels, (_, growth) in series.items())


def _range(
    address: str, at: float, span_s: float
) -> Iterator[tuple[frozenset[tuple[str, str]], list[int]]]:
    query = f'{{__name__=~"({_RAY})?{BILLED_TOKENS.name}"}}[{round(span_s * 1000)}ms]'
    body = fetch(address, {"query": query, "time": f"{at:.3f}"}, with_key=False)
    found: Any = parsed(address, body)
    try:
        for one in found["data"]["result"]:
            values = [_whole(address, float(value)) for _, value in one["values"]]
            yield frozenset(one["metric"].items()), values
    except (KeyError, TypeError, AttributeError, ValueError):
        raise Refused(f"{address} answers, but not as Prometheus does") from None


def _whole(where: str, value: float) -> int:
    if not value.is_integer():
        raise InvalidConfig(f"{where}: {value} billed tokens; they come whole")
    return int(value)
