"""Models as a command line names them, and their specs with a word where a download comes first."""

from __future__ import annotations

import argparse
from pathlib import Path

from deployments.commands._terminal import ERR
from deployments.config import ModelConfig, parse_config
from serving.models.catalog import DEFAULT, Entry
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec

__all__ = ["add_models", "checked", "is_here", "model_of"]


def add_models(command: argparse.ArgumentParser) -> None:
    """`--model`, any number of times."""
    command.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="ID[=SOURCE]",
        help=f"a known model, or a name for a folder, hub id or package:NAME (default {DEFAULT})",
    )


def model_of(word: str) -> ModelConfig:
    """The model of `ID` or `ID=SOURCE`; `InvalidConfig` where it is not known."""
    name, _, source = word.partition("=")
    raw = {"id": name, "source": source} if source else {"id": name}
    return parse_config({"models": [raw]}).models[0]


def checked(model: ModelConfig) -> ModelSpec:
    """The model's spec; a checkpoint that cannot be had is a sentence before anything starts."""
    entry = model.entry()
    if not is_here(entry):
        licence = entry.licence or "see its page"
        ERR.print(
            f"{entry.id} is {entry.source} on the hub (licence: {licence}); "
            "what is not on this machine yet is fetched now",
            markup=False,
        )
    return load_spec(entry)


def is_here(entry: Entry) -> bool:
    """Whether the source is a package or a directory, so that nothing is fetched."""
    return entry.source.startswith("package:") or Path(entry.source).expanduser().is_dir()
