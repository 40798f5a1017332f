"""What metering costs: `record()` for a request, and how many events a second a ledger takes.

    python -m loadtests.ledger [--url postgresql://… ] [--events 50000] [--rate 1000]

A ledger is measured as the gateway writes it, in batches of 200 on one connection; `record()` at a
steady rate, as requests come, with the ledger up and with it away.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from serving.metering.events import UsageEvent, event_id
from serving.metering.meter import MeterOptions, open_meter
from serving.metering.sinks import open_sink

__all__ = ["Cost", "main", "record_cost", "sink_rate"]

_BATCH = 200


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of a call: half of them, 99 of 100 and every one took no longer."""

    p50: float
    p99: float
    most: float


def main() -> int:
    """The command: measures and prints."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        urls = [f"sqlite://{folder}/usage.db", f"jsonl://{folder}/usage.jsonl", *options.url]
        print("| ledger | events/s | of them again/s | client CPU µs an event |\n|---|---|---|---|")
        for url in urls:
            new, again, cpu = sink_rate(url, options.events)
            print(f"| {url.partition(':')[0]} | {new:,.0f} | {again:,.0f} | {cpu:.1f} |")
        print("\n| record() | p50 µs | p99 µs | max µs |\n|---|---|---|---|")
        up = f"sqlite://{folder}/recorded.db"
        (Path(folder) / "file").touch()
        away = f"sqlite://{folder}/file/where/a/folder/should/be.db"
        for name, url in (("ledger up", up), ("ledger away", away)):
            cost = record_cost(url, Path(folder) / name, options.events, options.rate)
            print(f"| {name} | {cost.p50:.1f} | {cost.p99:.1f} | {cost.most:.0f} |")
    return 0


def sink_rate(url: str, count: int) -> tuple[float, float, float]:
    """Events a second when they are new, when they are there already, and CPU µs of a new one."""
    sink = open_sink(url)
    batches = list(_batches(count))
    sink.write(batches[0][:1])
    began, used = time.perf_counter(), time.process_time()
    for batch in batches:
        sink.write(batch)
    new, cpu = count / (time.perf_counter() - began), time.process_time() - used
    began = time.perf_counter()
    for batch in batches:
        sink.write(batch)
    again = count / (time.perf_counter() - began)
    sink.close()
    return new, again, cpu / count * 1e6


def record_cost(url: str, spool: Path, count: int, rate: float) -> Cost:
    """What `record()` takes at so many events a second, everything behind it running."""
    meter = open_meter(MeterOptions(url=url, spool=str(spool)))
    taken = []
    began = time.perf_counter()
    for i, event in enumerate(_events(count)):
        while time.perf_counter() < began + i / rate:
            time.sleep(0)
        start = time.perf_counter()
        meter.record(event)
        taken.append(time.perf_counter() - start)
    meter.close(1.0)
    taken = sorted(1e6 * seconds for seconds in taken)
    return Cost(taken[len(taken) // 2], taken[len(taken) * 99 // 100], taken[-1])


def _batches(count: int) -> Iterator[Sequence[UsageEvent]]:
    events = list(_events(count))
    for start in range(0, count, _BATCH):
        yield events[start : start + _BATCH]


def _events(count: int) -> Iterator[UsageEvent]:
    """Of eight tenants and two models, with ids of their own."""
    now = time.time()
    first = UsageEvent("", "", "key", "", "retrieval.query", "text", 128, 0, 1, 384, 200, 0.01, now)
    for i in range(count):
        name = event_id(f"{i:032x}", "tenant", "/v1/embeddings")
        yield replace(first, id=name, tenant=f"tenant-{i % 8}", model=f"model-{i % 2}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--url", action="append", default=[], help="a further ledger; may repeat")
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--rate", type=float, default=5000, help="events a second recorded")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
