"""An operator's own LoRA for a model: found, and held against the model before an engine has it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from serving.models import adapters
from serving.models.checkpoints import Checkpoint
from serving.models.sources import folder_of
from serving.models.spec import Adapter, ModelSpec
from serving.models.tensors import Tensors, load
from serving.models.views import made

__all__ = ["own_adapter"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What wraps the backbone where adapters are trained: sentence-transformers, a task's head.
_WRAPPERS = ("0.auto_model.", "auto_model.", "model.")


def own_adapter(spec: ModelSpec, source: str, most: int | None = None) -> Adapter:
    """The adapter at `source`, named after it, as a view that every engine loads.

    `ModelUnavailable` where it is no plain LoRA, of a rank above `most`, or not for this model.
    """
    found = Checkpoint(folder_of(source), source)
    lora = adapters.described(found, "")
    if most is not None and lora.rank > most:
        raise found.fault(f"is of rank {lora.rank}, and at most {most} is configured")
    _check_base(found, spec)
    tensors = load(found, adapters.WEIGHTS)
    modules = {key.module for key in map(adapters.split, tensors) if key is not None}
    shapes = _shapes(spec)
    without = _wrapper(modules, shapes)
    _check_modules(found, spec, tensors, without, shapes)
    kind = "-".join(("adapter", *without.split(".")[:-1]))
    path = made(
        found, kind, lambda view: adapters.copy(found, adapters.WEIGHTS, view, lora, without)
    )
    return Adapter(source, str(path), lora.rank)


def _check_base(found: Checkpoint, spec: ModelSpec) -> None:
    """Refuse an adapter that names another model of the hub; a directory says nothing."""
    base = found.json(adapters.CONFIG).text("base_model_name_or_path") or ""
    names = {spec.source, spec.id, *spec.aliases}
    if _HUB_ID.fullmatch(base) and _HUB_ID.fullmatch(spec.source) and base not in names:
        raise found.fault(f"is an adapter for {base}, and {spec.id} is {spec.source}")


def _shapes(spec: ModelSpec) -> Mapping[str, tuple[int, ...]]:
    """Of the model's own weights, by module; empty where they are not safetensors."""
    base = Checkpoint(Path(spec.path) / spec.transformer, spec.source)
    name = base.weight_file("")
    files = {name}
    if name.endswith(".index.json"):
        files = {str(one) for one in base.json(name).inner("weight_map").values.values()}
    if not all(file.endswith(".safetensors") for file in files):
        return {}
    every = {key: one.shape for file in files for key, one in load(base, file).items()}
    return {key.removesuffix(".weight"): shape for key, shape in every.items()}


def _wrapper(modules: Collection[str], shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The prefix of the modules' names that the backbone's own do not have."""
    for one in _WRAPPERS:
        if modules and all(name.startswith(one) for name in modules):
            inner = [name.removeprefix(one) for name in modules]
            if not shapes or any(_find(name, shapes) for name in inner):
                return one
    return ""


def _check_modules(
    found: Checkpoint,
    spec: ModelSpec,
    tensors: Tensors,
    without: str,
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Refuse factors that are not as wide as the module they change.

    And those of modules that the model lacks, where it has any of the others under their names:
    transformers gives some modules other names than their file has.
    """
    places = {name: _find(_inner(name, without), shapes) for name in tensors}
    for name, shape in places.items():
        if shape is None:
            if any(places.values()):
                raise found.fault(f"changes {_inner(name, without)}, which {spec.id} does not have")
            continue
        key = adapters.split(name)
        if key is None or len(shape) != 2 or len(tensors[name].shape) != 2:
            continue  # told by `adapters.copy`
        (wide, axis) = _side(key.part)
        has, needs = tensors[name].shape[axis], shape[wide]
        if has != needs:
            module = _inner(name, without)
            raise found.fault(f"is for a {module} {has} wide, and that of {spec.id} is {needs}")


def _side(part: str) -> tuple[int, int]:
    """Which size of the module's weight a factor has, and as which of its own."""
    match part:
        case "lora_A":
            return 1, 1
        case "lora_embedding_A":
            return 0, 1
        case "lora_embedding_B":
            return 1, 0
    return 0, 0


def _inner(name: str, without: str) -> str:
    key = adapters.split(name)
    return (key.module if key else name).removeprefix(without)


def _find(module: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape of a module's weight, under whatever prefix the file has for the backbone."""
    if module in shapes:
        return shapes[module]
    return next((shape for name, shape in shapes.items() if name.endswith(f".{module}")), None)
