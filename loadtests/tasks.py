"""All task adapters in one engine against an engine for each task: rate, waiting, memory.

    python -m loadtests.tasks [--engine torch] [--shape mid] [--rounds N] [--texts N] [--skew S]

Both arrangements get the same texts at the same moment, in turns within one run, on the same core.
Every text asks for one of the model's tasks; `--skew 0` asks for each as often, larger numbers for
the first ones more often (Zipf). Printed are medians of texts a second of processor time, of the
time until the last text is answered, and what each arrangement added to the process's memory.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil

from loadtests.shapes import SHAPES, write
from serving.engines import Engine, EngineOptions, open_engine
from serving.models.catalog import Entry
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec
from serving.values import Prepared, Usage

__all__ = ["main", "traffic"]

_TOKENS = (8, 48)
_DEADLINE_S = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: prints a table."""
    args = _parser().parse_args(arguments)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    folder = Path(args.folder) / args.shape
    if not (folder / "config.json").exists():
        write(SHAPES[args.shape], folder)
    spec = load_spec(Entry("measured", str(folder), family="jina_v4"))
    asyncio.run(_run(spec, args))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.tasks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="mid")
    parser.add_argument("--folder", default="/tmp/polyvec-shapes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--skew", type=float, default=1.0)
    return parser


def traffic(spec: ModelSpec, texts: int, skew: float, seed: int) -> list[Prepared]:
    """One job a text, of 8 to 48 tokens, with the model's adapters by Zipf's law of that skew."""
    draw = np.random.default_rng(seed)
    adapters = [adapter.name for adapter in spec.adapters]
    weights = 1.0 / np.arange(1, len(adapters) + 1) ** skew
    chosen = draw.choice(len(adapters), texts, p=weights / weights.sum())
    jobs = []
    for one in chosen:
        ids = draw.integers(5, 250, draw.integers(*_TOKENS), dtype=np.int32)
        lengths = np.array([len(ids)], np.int32)
        jobs.append(Prepared(ids, lengths, Usage(len(ids)), adapter=adapters[one]))
    return jobs


async def _run(spec: ModelSpec, args: argparse.Namespace) -> None:
    options = EngineOptions(dtype="float32", threads=1)
    resident = [_resident()]
    together = open_engine(args.engine, spec, options)
    resident.append(_resident())
    apart = {one.name: open_engine(args.engine, spec, options) for one in spec.adapters}
    resident.append(_resident())
    arrangements: dict[str, Mapping[str, Engine]] = {
        "one engine, tasks mixed": dict.fromkeys(apart, together),
        f"{len(apart)} engines, one a task": apart,
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in arrangements}
    for turn in range(args.rounds + 1):
        jobs = traffic(spec, args.texts, args.skew, turn)
        for name in sorted(arrangements, reverse=bool(turn % 2)):
            spent[name].append(await _measured(arrangements[name], jobs))
    print(f"{'':28}{'texts/CPU-s':>12}  {'last ms':>8}  {'MiB':>6}")
    for name, grown in zip(arrangements, np.diff(resident), strict=True):
        cpu = statistics.median(seconds for seconds, _ in spent[name][1:])
        wall = statistics.median(seconds for _, seconds in spent[name][1:])
        rate = args.texts / cpu
        print(f"{name:28}{rate:>12.1f}  {1e3 * wall:>8.0f}  {grown / 2**20:>6.0f}")
    for engine in (together, *apart.values()):
        await engine.close()


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


async def _measured(engines: Mapping[str, Engine], jobs: Sequence[Prepared]) -> tuple[float, float]:
    """Seconds of processor time and of the clock until every job is answered."""
    cpu, wall = time.process_time(), time.perf_counter()
    deadline = time.monotonic() + _DEADLINE_S
    await asyncio.gather(*(engines[str(job.adapter)].embed(job, deadline) for job in jobs))
    return time.process_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    raise SystemExit(main())
