"""LoRA adapters, by peft: all of a model's in one backbone, chosen for every row of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from peft import LoraConfig, LoraModel, PeftConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from serving.engines._faults import first_line
from serving.errors import ModelUnavailable
from serving.models.spec import Adapter
from serving.telemetry.engines import AdapterMetrics

__all__ = ["Rows", "attach"]

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PARTS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")
_VISION = "visual"
_POOLER = "pooler."
_BASE = "__base__"  # peft's word for a row without an adapter


class Rows:
    """Which adapter each row of the batch under way is for. For one thread only."""

    def __init__(self, inner: Mapping[str, str]) -> None:
        self._inner = inner
        self._chosen: list[str] = []

    def choose(self, adapters: Sequence[str | None]) -> None:
        """The adapters of the next batch's rows, by name; None for a row without."""
        self._chosen = [_BASE if name is None else self._inner[name] for name in adapters]

    # A foreign border: the signature of a forward pre-hook of torch.
    def give(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Hand the choice to a layer, as peft does it, but without hooks anew for every batch."""
        return args, {**kwargs, "adapter_names": self._chosen}


def attach(model: nn.Module, adapters: Sequence[Adapter], told: AdapterMetrics) -> Rows:
    """Put every adapter into the model, which is changed, each tensor of each of them.

    `ModelUnavailable` where an adapter's file and the model do not match exactly.
    """
    # peft makes modules of the names, and theirs have no dots; upstream's may.
    inner = {adapter.name: f"adapter{n}" for n, adapter in enumerate(adapters)}
    configs: dict[str, PeftConfig] = {
        inner[one.name]: _config(one, hasattr(model, _VISION)) for one in adapters
    }
    tuner: LoraModel | None = None
    for adapter in adapters:
        with told.loading():
            tuner = _put_in(model, tuner, adapter, configs, inner[adapter.name])
    rows = Rows(inner)
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.register_forward_pre_hook(rows.give, with_kwargs=True)
    model.eval().requires_grad_(False)
    return rows


def _put_in(
    model: nn.Module,
    tuner: LoraModel | None,
    adapter: Adapter,
    configs: dict[str, PeftConfig],
    name: str,
) -> LoraModel:
    """One adapter into the model. `tuner` has those before it; the first one makes it."""
    file = Path(adapter.path) / _WEIGHTS
    weights = _weights(file)
    try:
        if tuner is None:
            tuner = LoraModel(model, configs, name, low_cpu_mem_usage=True)
        else:
            tuner.inject_adapter(model, name, low_cpu_mem_usage=True)
        _fill(model, name, weights)
    except Exception as error:
        raise _fault(adapter, file, error) from None
    return tuner


def _config(adapter: Adapter, sees: bool) -> LoraConfig:
    """What peft is told. The vision tower's rows are patches, not inputs: it takes no adapter."""
    file = Path(adapter.path) / _CONFIG
    try:
        config = PeftConfig.from_pretrained(adapter.path)
    except Exception as error:
        raise _fault(adapter, file, error) from None
    if not isinstance(config, LoraConfig):
        raise _fault(adapter, file, ValueError(f"it is {config.peft_type}, not a LoRA"))
    if config.use_dora:
        raise _fault(adapter, file, ValueError("DoRA cannot be mixed in one batch"))
    config.inference_mode = True
    if sees and config.exclude_modules is None:
        config.exclude_modules = rf"{_VISION}\..*"
    return config


def _weights(file: Path) -> dict[str, Tensor]:
    try:
        return dict(safetensors.torch.load_file(file))
    except Exception as error:
        message = f"the adapter file {file} cannot be read: {first_line(error)}"
        raise ModelUnavailable(message) from None


def _fill(model: nn.Module, name: str, weights: Mapping[str, Tensor]) -> None:
    """Every tensor into its place; `ValueError` where tensors and places are not one to one.

    The pooler that some checkpoints have is not run, nor is there one to adapt.
    """
    places = {key: one for key, one in model.named_parameters() if name in key.split(".")}
    base = {key: one for key, one in model.named_parameters() if key not in places}
    pooler = any(key.startswith(_POOLER) for key in base)
    found = {_place(key, name): tensor for key, tensor in weights.items()}
    if not pooler:
        found = {key: one for key, one in found.items() if not key.startswith(_POOLER)}
    if strange := sorted(found.keys() - places.keys()):
        raise ValueError(f"the model has no place for {len(strange)} tensors, {strange[0]} first")
    if missing := sorted(places.keys() - found.keys()):
        raise ValueError(f"{len(missing)} tensors are missing, {missing[0]} first")
    like = next(one for one in base.values() if one.is_floating_point())
    for key, tensor in found.items():
        if tensor.shape != places[key].shape:
            shapes = f"{list(tensor.shape)}, not {list(places[key].shape)}"
            raise ValueError(f"{key} has the shape {shapes}")
        owner, _, leaf = key.rpartition(".")
        parameter = nn.Parameter(tensor.to(like.device, like.dtype), requires_grad=False)
        _put(model.get_submodule(owner), leaf, parameter)


def _put(owner: nn.Module, leaf: str, parameter: nn.Parameter) -> None:
    """Set a parameter; those of embeddings lie in a `ParameterDict`."""
    if isinstance(owner, nn.ParameterDict):
        owner[leaf] = parameter
    else:
        owner.register_parameter(leaf, parameter)


def _place(key: str, name: str) -> str:
    """`base_model.model.X.lora_A.weight` to `X.lora_A.NAME.weight`, as peft names it inside."""
    steps = key.removeprefix(_PREFIX).split(".")
    if not key.startswith(_PREFIX):
        raise ValueError(f"{key} does not begin with {_PREFIX}")
    part = next((step for step in steps if step in _PARTS), None)
    if part is None:
        raise ValueError(f"{key} is no part of a LoRA")
    at = steps.index(part) + 1
    return ".".join([*steps[:at], name, *steps[at:]])


def _fault(adapter: Adapter, file: Path, error: Exception) -> ModelUnavailable:
    return ModelUnavailable(
        f"the adapter {adapter.name!r} ({file}) does not fit its model: {first_line(error)}"
    )
