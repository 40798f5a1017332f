"""An entry to a spec: the files are found, and the family that knows them reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from serving.errors import InvalidConfig, ModelUnavailable
from serving.models.catalog import Entry
from serving.models.checkpoints import Checkpoint, resolve
from serving.models.families import FAMILIES, ModelFamily
from serving.models.own import own_adapter
from serving.models.spec import Adapter, ModelSpec

__all__ = ["family_of", "load_spec"]

_GENERAL = "sentence_transformers"  # which recognises nearly everything


def load_spec(entry: Entry, *, weights: bool = True) -> ModelSpec:
    """The facts of the entry's checkpoint, fetched from the hub where it has to be.

    `weights` false leaves the weights out, for a process that only tokenizes.
    """
    if entry.family is not None and entry.family not in FAMILIES:
        names = ", ".join(FAMILIES.names())
        raise InvalidConfig(f"family of {entry.id} is {entry.family!r}; there are {names}")
    checkpoint = resolve(entry.source, entry.revision, weights=weights)
    return _with_own(family_of(checkpoint, entry.family).read(checkpoint, entry), entry, weights)


def _with_own(spec: ModelSpec, entry: Entry, weights: bool) -> ModelSpec:
    """The spec with the operator's adapters; without weights they are names."""
    if not entry.adapters:
        return spec
    of = dict(entry.adapters)
    tasks = tuple(replace(one, adapter=of.get(one.name, one.adapter)) for one in spec.tasks)
    sources = tuple(dict.fromkeys(of.values()))
    if entry.on_demand:
        return replace(spec, tasks=tasks, loadable=sources)
    own = (own_adapter(spec, one) if weights else Adapter(one, "", 0) for one in sources)
    return replace(spec, tasks=tasks, adapters=(*spec.adapters, *own))


def family_of(checkpoint: Checkpoint, name: str | None = None) -> ModelFamily:
    """The family of that name, or the first to recognise the checkpoint, the general one last."""
    every = sorted(FAMILIES.names(), key=lambda one: one == _GENERAL)
    for one in every if name is None else (name,):
        family = cast("ModelFamily", FAMILIES.load(one))
        if name is not None or family.recognises(checkpoint):
            return family
    names = ", ".join(FAMILIES.names())
    raise ModelUnavailable(f"{checkpoint.source} is of no known family; there are {names}")
