"""Reading checkpoints that were changed, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from serving.errors import ModelUnavailable
from serving.models.catalog import Entry
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec

__all__ = ["Altered", "change_tensors", "refusal", "rewrite", "spec_of"]

Altered = Callable[[str], Path]  # a name of `tests.upstream` to a copy of its checkpoint


def spec_of(path: Path, *, weights: bool = True, **overrides: object) -> ModelSpec:
    """What is read in a checkpoint, with an entry's fields."""
    return load_spec(replace(Entry("tiny", str(path)), **overrides), weights=weights)


def refusal(path: Path, **overrides: object) -> str:
    """The sentence for a checkpoint that cannot be served, without the checkpoint's name."""
    with pytest.raises(ModelUnavailable) as caught:
        spec_of(path, **overrides)
    assert caught.value.message.startswith(f"{path} ")
    return caught.value.message.removeprefix(f"{path} ")


def rewrite(path: Path, name: str, **values: object) -> None:
    """Set keys of a JSON file, or drop those that are None."""
    facts = {**json.loads((path / name).read_text()), **values}
    kept = {key: value for key, value in facts.items() if value is not None}
    (path / name).write_text(json.dumps(kept))


def change_tensors(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Rewrite a safetensors file."""
    found = change(load_file(path))
    save_file({name: one.clone().contiguous() for name, one in found.items()}, path)
