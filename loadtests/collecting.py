"""A locust run's own books: what every process counted, brought to one place, judged, written.

Adds to locust: `--model`, `--keys`, `--grpc`, `--budget`, `--report`.
"""

# mypy: disallow-subclassing-any=False, disallow-untyped-calls=False
# mypy: disallow-untyped-decorators=False
# Locust is annotated in part, and in the extra `load` only.

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from locust import events
from locust.env import Environment
from locust.runners import WorkerRunner

from loadtests import budgets
from loadtests.page import written
from loadtests.tally import Tally

__all__ = ["TALLY"]

TALLY = Tally()
"""Of this process; at the end that of the first one has everybody's."""

log = logging.getLogger("polyvec.load")


@events.init_command_line_parser.add_listener
def _arguments(parser: Any) -> None:
    add = parser.add_argument
    add("--model", default="all-MiniLM-L6-v2", help="the model that is asked")
    add(
        "--keys",
        default=os.environ.get("POLYVEC_API_KEY", ""),
        is_secret=True,
        help="tenants' keys, separated by commas; users take turns (default: $POLYVEC_API_KEY)",
    )
    add("--grpc", default="", metavar="HOST:PORT", help="have users there too, a third of all")
    add(
        "--budget",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help=f"what must be kept to, or the exit code is 1 (default: {' '.join(budgets.DEFAULT)})",
    )
    # Options travel to workers, as plain values.
    add("--report", default="", metavar="FILE.html", help="write a page with plots there")


@events.init.add_listener
def _begin(environment: Environment, **_: object) -> None:
    options = environment.parsed_options
    if options is None:
        return
    budgets.parse(options.budget)
    for kind in environment.user_classes:
        wire = getattr(kind, "wire", "http")
        if wire == "grpc" and not options.grpc:
            kind.fixed_count, kind.weight = 0, 0
        elif wire == "http" and options.grpc:
            kind.weight *= 2
    environment.user_classes = [one for one in environment.user_classes if one.weight]


@events.report_to_master.add_listener
def _report(client_id: str, data: dict[str, Any]) -> None:
    data["tally"] = TALLY.taken()


@events.worker_report.add_listener
def _reported(client_id: str, data: Mapping[str, Any]) -> None:
    TALLY.give(data.get("tally", ()))


@events.quitting.add_listener
def _end(environment: Environment, **_: object) -> None:
    options = environment.parsed_options
    if options is None or isinstance(environment.runner, WorkerRunner):
        return
    budget = budgets.parse([*budgets.DEFAULT, *options.budget])
    checks = budgets.checked(budget, TALLY)
    for check in checks:
        word = "kept" if check.kept else "BROKEN"
        print(f"budget {check.name}: {check.found:.4g} of {check.allowed:g}, {word}")
    if options.report:
        page = Path(options.report)
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(written(_title(options), TALLY, checks), encoding="utf-8")
        print(f"report {page}")
    if not TALLY.total().answered or not all(check.kept for check in checks):
        environment.process_exit_code = 1


def _title(options: Any) -> Sequence[str]:
    return [options.model, options.host or "", *([options.grpc] if options.grpc else [])]
