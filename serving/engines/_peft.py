"""LoRA adapters, by peft: all of a model's in one backbone, chosen for every row of a batch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import count
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

__all__ = ["Loras"]

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PARTS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")
_VISION = "visual"
_POOLER = "pooler."
_BASE = "__base__"  # peft's word for a row without an adapter


class Loras:
    """The adapters in a model, which is changed, and for which of them each row of a batch is.

    For one thread only.
    """

    def __init__(self, model: nn.Module, told: AdapterMetrics) -> None:
        self._model, self._told = model, told
        self._tuner: LoraModel | None = None
        # peft makes modules of the names, and theirs have no dots; upstream's may.
        self._inner: dict[str, str] = {}
        self._numbers = count()
        self._hooked: set[int] = set()
        self._chosen: list[str] = []

    def choose(self, adapters: Sequence[str | None]) -> None:
        """The adapters of the next batch's rows, by name; None for a row without."""
        self._chosen = [_BASE if name is None else self._inner[name] for name in adapters]

    def exchange(self, gone: str | None, come: Adapter | None) -> None:
        """Take one out, and put another in, each tensor of it.

        `ModelUnavailable` where its file and the model do not match exactly: it is not in then.
        """
        if gone is not None:
            self._take_out(self._inner.pop(gone))
            self._told.dropped()
        if come is not None:
            with self._told.loading():
                self._inner[come.name] = self._put_in(come)

    def _put_in(self, adapter: Adapter) -> str:
        name, file = f"adapter{next(self._numbers)}", Path(adapter.path) / _WEIGHTS
        config, weights = _config(adapter, hasattr(self._model, _VISION)), _weights(file)
        try:
            if self._tuner is None:
                self._tuner = LoraModel(self._model, {name: config}, name, low_cpu_mem_usage=True)
            else:
                self._tuner.peft_config[name] = config
                self._tuner.inject_adapter(self._model, name, low_cpu_mem_usage=True)
            _fill(self._model, name, weights)
        except Exception as error:
            self._take_out(name)
            raise _fault(adapter, file, error) from None
        for layer in self._model.modules():
            if isinstance(layer, LoraLayer) and id(layer) not in self._hooked:
                layer.register_forward_pre_hook(self._give, with_kwargs=True)
                self._hooked.add(id(layer))
        self._model.eval().requires_grad_(False)
        return name

    def _take_out(self, name: str) -> None:
        """peft leaves its layers where they are, for the next."""
        if self._tuner is not None and name in self._tuner.peft_config:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of which is active now: every row says its own
                self._tuner.delete_adapter(name)

    # A foreign border: the signature of a forward pre-hook of torch.
    def _give(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Hand the choice to a layer, as peft does it, but without hooks anew for every batch."""
        return args, {**kwargs, "adapter_names": self._chosen}


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
