"""A running server at 70 % of what it can do, for hours: does anything of it grow?

    python -m loadtests.soak --minutes 120 [--url URL]

Every process is sampled for memory that is its own and for open files, and the object store as a
whole. At the end each has a slope with its doubt (`drift.py`) and a word: flat, grows, or unclear,
which a longer run decides. Exits 1 where something grows or a request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import uvloop

from loadtests import processes
from loadtests.client import Target
from loadtests.drift import Drift, Word, drift
from loadtests.footprint import footprint, object_store_bytes
from loadtests.openloop import Pool, Step, offer, requests_of
from loadtests.saturate import facts_of, reached, supply_of

__all__ = ["Series", "allowed", "main"]

_CHUNK_S = 10.0  # requests are made ahead for so long
_STORE = "object store"


@dataclass(slots=True)
class Series:
    """Samples of one thing: when, and how much."""

    name: str
    unit: str
    seconds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def note(self, second: float, value: float) -> None:
        """One sample."""
        self.seconds.append(second)
        self.values.append(value)

    def drift(self) -> Drift | None:
        """See `loadtests.drift`."""
        return drift(self.seconds, self.values)


Everything = dict[tuple[int, str], Series]


def main() -> int:
    """The command."""
    options = _options()
    target = Target(options.url, options.model, options.key)
    pid = options.pid or processes.listener(target.port)
    if pid is None:
        raise SystemExit("the server's processes cannot be seen; name its first one: --pid")
    root = options.pid or processes.serving_root(pid)
    print(f"pid {root}, {processes.read(root)}", flush=True)
    series, steps = uvloop.run(_soaked(options, target, root))
    if options.json:
        options.json.write_bytes(orjson.dumps(list(series.values()), option=orjson.OPT_INDENT_2))
    words = [_told(one) for one in sorted(series.values(), key=lambda one: (one.unit, one.name))]
    failed = sum(sum(step.failed.values()) for step in steps)
    answered = sum(len(step.latencies_s) for step in steps)
    refused = sum(step.refused for step in steps)
    print(f"\n{answered} requests answered, {refused} refused, {failed} failed")
    print(
        ", ".join(f"{words.count(word)} {word}" for word in ("flat", "grows", "unclear", "brief"))
    )
    return int(failed > 0 or "grows" in words)


def allowed(unit: str, level: float) -> float:
    """Growth an hour that is none: a hundredth of the memory and a MiB, one open file."""
    return 1.0 + 0.01 * level if unit == "MiB" else 1.0


async def _soaked(
    options: argparse.Namespace, target: Target, root: int
) -> tuple[Everything, list[Step]]:
    supply, pool = supply_of(facts_of(target), options.kinds), Pool(target)
    rate = options.rate or options.share * await reached(pool, target, supply)
    print(f"{rate:.0f} requests/s for {options.minutes:g} minutes", flush=True)
    series: Everything = {}
    steps = []
    end = time.monotonic() + 60 * options.minutes
    async with asyncio.TaskGroup() as group:
        sampling = group.create_task(_sample(root, options.every, series))
        while time.monotonic() < end:
            made = requests_of(target, supply, max(1, round(rate * _CHUNK_S)))
            steps.append(await offer(pool, made, rate))
        sampling.cancel()
    pool.close()
    return series, steps


async def _sample(root: int, every_s: float, series: Everything) -> None:
    began = time.monotonic()
    while True:
        at = time.monotonic() - began
        store = await asyncio.to_thread(object_store_bytes, root)
        series.setdefault((0, _STORE), Series(_STORE, "MiB")).note(at, store / 2**20)
        held = await asyncio.to_thread(footprint, root)
        every = [(one.pid, f"{one.name} ({one.pid})", one.mib, one.files) for one in held]
        every.append((0, "all", sum(one.mib for one in held), sum(one.files for one in held)))
        for pid, name, mib, files in every:
            for unit, value in (("MiB", mib), ("files", files)):
                series.setdefault((pid, unit), Series(name, unit)).note(at, value)
        await asyncio.sleep(max(0.0, every_s - (time.monotonic() - began - at)))


def _told(series: Series) -> Word | str:
    found = series.drift()
    if found is None:
        print(f"{series.name:56} {series.values[-1]:9.1f} {series.unit:5}  too brief")
        return "brief"
    word = found.word(allowed(series.unit, found.level))
    doubt = f"({found.low:+.1f} to {found.high:+.1f})"
    level = f"{series.name:56} {found.level:9.1f} {series.unit:5}"
    print(f"{level} {found.slope:+9.2f}/h {doubt:24} {word}")
    return word


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--minutes", type=float, default=120.0)
    add("--url", default="http://127.0.0.1:8000")
    add("--model", default="all-MiniLM-L6-v2")
    add("--key", default=os.environ.get("POLYVEC_API_KEY"), help="default: $POLYVEC_API_KEY")
    add("--pid", type=int, help="the server's first process (default: who listens on the port)")
    add("--kinds", default="query,passages", help="what is asked: loadtests/mixes.py")
    add("--share", type=float, default=0.7, help="of what the server can do")
    add("--rate", type=float, help="requests a second, instead of a share")
    add("--every", type=float, default=5.0, help="seconds between samples")
    add("--json", type=Path, metavar="FILE", help="write the samples there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
