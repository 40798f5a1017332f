"""A table of the models known or configured."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Column, Table

from deployments.commands._checkpoints import is_here
from deployments.commands._terminal import OUT, plain
from deployments.config import load_config
from serving.errors import PolyvecError
from serving.models.catalog import KNOWN, Entry
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec

__all__ = ["arguments"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """A config, or nothing."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="the models of this file")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if args.config:
        entries = [model.entry() for model in load_config(args.config)[0].models]
    else:
        entries = list(KNOWN)
    model = Column("model", no_wrap=True)
    table = Table(model, "inputs", "dimensions", "context", "tasks", "licence", "source", box=None)
    for entry in entries:
        table.add_row(*_row(entry))
    OUT.print(table)
    return 0


def _row(entry: Entry) -> tuple[str, ...]:
    licence = entry.licence or ""
    if not is_here(entry):
        tasks = ", ".join(task.name for task in entry.extra_tasks)
        return entry.id, "", "", "", tasks, licence, entry.source
    try:
        spec = load_spec(entry, weights=False)
    except PolyvecError as error:
        return entry.id, "", "", "", "", licence, plain(error.message)
    tasks = ", ".join(task.name for task in spec.tasks) or "-"
    inputs = ", ".join(spec.modalities)
    context, licence = str(spec.max_tokens), spec.licence or ""
    return entry.id, inputs, _sizes(spec), context, tasks, licence, entry.source


def _sizes(spec: ModelSpec) -> str:
    if spec.least_dimensions is not None:
        return f"{spec.dimensions} down to {spec.least_dimensions}"
    return ", ".join(str(size) for size in (spec.dimensions, *reversed(spec.matryoshka)))
