"""Validate a config and show what goes where."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table

from deployments.commands._checkpoints import checked
from deployments.commands._terminal import OUT
from deployments.config import load_config
from deployments.local import Address
from deployments.loopback import refuse_open_door
from deployments.placement import place, wants_preprocessor

__all__ = ["arguments"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The config."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a YAML file")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    config, http = load_config(args.file)
    specs = {model.id: checked(model) for model in config.models}
    table = Table("deployment", "replicas", "cpus", "gpus", "engine", "serves", box=None)
    gateway = config.gateway
    table.add_row("Gateway", _span(gateway.replicas.min, gateway.replicas.max), f"{gateway.cpus:g}")
    pre = config.preprocessor
    if wants_preprocessor(config, specs):
        table.add_row("Preprocessor", _span(pre.replicas.min, pre.replicas.max), f"{pre.cpus:g}")
    for group in place(config, specs):
        model = group.model
        table.add_row(
            group.name,
            _span(model.replicas.min, model.replicas.max),
            f"{model.cpus_per_replica:g}",
            f"{model.gpus:g}",
            model.engine,
            group.task or "every task",
        )
    OUT.print(f"{args.file} is valid; {len(config.models)} model(s)")
    if http:
        default = Address()
        host = str(http.get("host", default.host))
        refuse_open_door(config, host)
        OUT.print(f"listens on {host}:{http.get('port', default.port)}")
    OUT.print(table)
    return 0


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"
