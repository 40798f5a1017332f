"""What several families read alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from serving.errors import InvalidConfig
from serving.models.catalog import Entry
from serving.models.checkpoints import Checkpoint
from serving.models.spec import Adapter, TaskSpec
from serving.models.tensors import Tensor, load
from serving.models.views import made

__all__ = ["context", "created", "known_adapters", "tensor_of", "viewed", "widths"]

_NAME = re.compile(r"\w[\w.-]*")


def context(entry: Entry, positions: int, said: int | None = None) -> int:
    """The longest input: as configured, else as `said`, and never beyond the positions."""
    if entry.max_tokens is None:
        return positions if said is None else min(said, positions)
    if entry.max_tokens > positions:
        raise InvalidConfig(
            f"max_tokens of {entry.id} is {entry.max_tokens}; it has {positions} positions"
        )
    return entry.max_tokens


def widths(entry: Entry, listed: Iterable[int], dimensions: int) -> tuple[int, ...]:
    """The widths that a vector may be cut to, ascending, without the full one."""
    chosen = listed if entry.matryoshka is None else entry.matryoshka
    return tuple(sorted({width for width in chosen if 0 < width < dimensions}))


def created(checkpoint: Checkpoint) -> int:
    """When the checkpoint was written, as a Unix time."""
    return int((checkpoint.path / "config.json").stat().st_mtime)


def viewed(
    checkpoint: Checkpoint, family: str, fill: Callable[[Path], None], ranks: Mapping[str, int]
) -> tuple[Path, tuple[Adapter, ...]]:
    """The directory of the checkpoint's view and the adapters in it, of those ranks by name.

    Without weights there is no view: the checkpoint itself, and adapters that lie nowhere.
    """
    if not checkpoint.weights:
        return checkpoint.path, tuple(Adapter(name, "", rank) for name, rank in ranks.items())
    path = made(checkpoint, family, fill)
    places = {name: str(path / "adapters" / name) for name in ranks}
    return path, tuple(Adapter(name, places[name], rank) for name, rank in ranks.items())


def known_adapters(
    checkpoint: Checkpoint, tasks: Iterable[TaskSpec], names: Collection[str]
) -> None:
    """Refuse a task whose adapter is not among those of the checkpoint, and names of no folder."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise checkpoint.fault(f"has an adapter of the name {name!r} in config.json")
    for task in tasks:
        if task.adapter is not None and task.adapter not in names:
            raise checkpoint.fault(
                f"has no adapter {task.adapter!r}, which its task {task.name} needs;"
                f" it has {', '.join(names) or 'none'}"
            )


def tensor_of(
    checkpoint: Checkpoint, places: Mapping[str, str], name: str, shape: tuple[int, ...]
) -> Tensor:
    """A tensor of the checkpoint's, which has to have that shape; `places` are their files."""
    if name not in places:
        raise checkpoint.fault(f"has no {name} among its weights")
    found = load(checkpoint, places[name]).get(name)
    if found is None or found.shape != shape:
        has = "nothing" if found is None else f"the shape {list(found.shape)}"
        raise checkpoint.fault(f"has {has} for {name} in {places[name]}, not {list(shape)}")
    return found
