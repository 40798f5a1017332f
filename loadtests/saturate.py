"""Where a running server saturates, and what it does when it is asked for three times as much.

    python -m loadtests.saturate [--url URL] [--kinds query,passages] [--seconds 20]

First the rate is doubled until the server does not keep up; then it is offered shares and multiples
of what it answered, and its throughput far beyond is held against the most it did. Exits 1 where
that falls by more than 10 % or where requests fail: to refuse is right, to fail is not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import orjson
import uvloop

from loadtests.client import Target
from loadtests.mixes import KINDS, Facts, Question, questions
from loadtests.openloop import Pool, Step, offer, requests_of

__all__ = [
    "OFFERED",
    "facts_of",
    "main",
    "most",
    "reached",
    "saturation",
    "supply_of",
    "worst_beyond",
]

OFFERED = (0.5, 0.7, 0.85, 1.0, 1.25, 1.5, 2.0, 3.0)
_KEEPS_UP = 0.95
_MAY_FALL = 0.10
_FIRST_PER_S = 25.0
_PROBE_S = 4.0
_PAUSE_S = 1.0


def main() -> int:
    """The command."""
    options = _options()
    if options.pin_client is not None:
        os.sched_setaffinity(0, {options.pin_client})
    steps = uvloop.run(_measured(options))
    peak = most(steps)
    first = saturation(steps)
    kept = worst_beyond(steps) / peak.tokens_per_s
    failed = sum(sum(step.failed.values()) for step in steps)
    where = f"from {first.rate:.0f} requests/s on" if first else "not reached"
    print(
        f"\nsaturated {where}; at most {peak.tokens_per_s:.0f} tokens/s, "
        f"{peak.answered_per_s:.0f} requests/s\n"
        f"beyond, down to {OFFERED[-1]:.0f} times as much: {100 * kept:.0f} % of that; "
        f"{failed} requests failed"
    )
    if options.json:
        options.json.write_bytes(orjson.dumps(steps, option=orjson.OPT_INDENT_2))
    return int(failed > 0 or kept < 1 - _MAY_FALL)


def most(steps: Sequence[Step]) -> Step:
    """The step with the highest throughput, in tokens: questions are of all sizes."""
    return max(steps, key=lambda step: step.tokens_per_s)


def saturation(steps: Sequence[Step]) -> Step | None:
    """The lowest rate that the server did not keep up with, or None."""
    slow = [s for s in steps if s.answered_per_s < _KEEPS_UP * s.rate]
    return min(slow, key=lambda step: step.rate, default=None)


def worst_beyond(steps: Sequence[Step]) -> float:
    """The fewest tokens answered a second at the rate of the highest throughput, or more."""
    peak = most(steps)
    return min(step.tokens_per_s for step in steps if step.rate >= peak.rate)


def facts_of(target: Target) -> Facts:
    """What the server says of the model."""
    headers = {"authorization": f"Bearer {target.key}"} if target.key else {}
    answer = httpx.get(f"{target.url}/v1/models/{target.model}", headers=headers, timeout=30)
    answer.raise_for_status()
    return Facts.of(answer.json())


def supply_of(facts: Facts, names: str, seed: int = 0) -> Iterator[Question]:
    """Questions of the named kinds; ValueError for a kind that there is not."""
    wanted = names.split(",")
    if unknown := set(wanted) - {kind.name for kind in KINDS}:
        raise ValueError(f"no kind {', '.join(unknown)}; there are {[k.name for k in KINDS]}")
    return questions(facts, seed, [kind for kind in KINDS if kind.name in wanted])


async def _measured(options: argparse.Namespace) -> list[Step]:
    target = Target(options.url, options.model, options.key)
    supply = supply_of(facts_of(target), options.kinds)
    pool = Pool(target)
    print(f"{'offered/s':>9} {'answered/s':>10} {'tokens/s':>9} {'refused':>8} {'failed':>6} "
          f"{'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8} {'client':>6}")  # fmt: skip
    top = await reached(pool, target, supply)
    steps = []
    for share in OFFERED:
        await asyncio.sleep(_PAUSE_S)
        rate = share * top
        made = requests_of(target, supply, round(rate * options.seconds))
        steps.append(_told(await offer(pool, made, rate)))
    pool.close()
    return steps


async def reached(pool: Pool, target: Target, supply: Iterator[Question]) -> float:
    """What is answered a second at the first rate that the server does not keep up with."""
    rate = _FIRST_PER_S
    while True:
        made = requests_of(target, supply, round(rate * _PROBE_S))
        step = _told(await offer(pool, made, rate))
        if step.answered_per_s < _KEEPS_UP * rate:
            return max(step.answered_per_s, rate / 2)
        rate *= 2
        await asyncio.sleep(_PAUSE_S)


def _told(step: Step) -> Step:
    times = " ".join(f"{1000 * step.quantile(share):8.0f}" for share in (0.5, 0.95, 0.99))
    print(
        f"{step.rate:9.0f} {step.answered_per_s:10.1f} {step.tokens_per_s:9.0f} "
        f"{step.refused:8d} {sum(step.failed.values()):6d} {times} {100 * step.client_cpu:5.0f}%"
        + "".join(f"  {times} x {what}" for what, times in step.failed.items()),
        flush=True,
    )
    return step


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.saturate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:8000")
    add("--model", default="all-MiniLM-L6-v2")
    add("--key", default=os.environ.get("POLYVEC_API_KEY"), help="default: $POLYVEC_API_KEY")
    add("--kinds", default="query,passages", help="what is asked: loadtests/mixes.py")
    add("--seconds", type=float, default=20.0, help="of each step")
    add("--pin-client", type=int, metavar="CPU", help="the core of this client")
    add("--json", type=Path, metavar="FILE", help="write the steps there too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
