"""A checkpoint's transformer, by transformers: found, read, checked to be whole, and run.

Importing this takes seconds, so whoever can do without does.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as chatter

from serving.engines._faults import first_line
from serving.engines._vision import Placed, embedded
from serving.errors import ModelUnavailable
from serving.models.spec import Adapter, ModelSpec, Vision
from serving.telemetry import SILENT, Telemetry
from serving.telemetry.engines import AdapterMetrics

if TYPE_CHECKING:
    from serving.engines._peft import Loras

__all__ = ["Transformer", "load"]

_PROJECTOR = "multi_vector_projector"


def load(
    spec: ModelSpec, dtype: torch.dtype, device: torch.device, telemetry: Telemetry = SILENT
) -> Transformer:
    """The checkpoint's transformer with its own weights, every one of them."""
    folder = Path(spec.path) / spec.transformer
    # A foreign border: transformers' loaders take and give what the checkpoint says.
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **local)
        kind: Any = _kind(config)
        if projects := spec.multi is not None and spec.multi.head is None:
            kind = _projecting(kind, spec.multi.dimensions)
        options = {**local, "config": config, "dtype": dtype, "output_loading_info": True}
        options["ignore_mismatched_sizes"] = True  # told below, and better
        if "add_pooling_layer" in inspect.signature(kind).parameters:
            options["add_pooling_layer"] = False
        with _quiet():
            model, loaded = kind.from_pretrained(folder, **options)
    except Exception as error:
        raise ModelUnavailable(f"{spec.id} cannot be loaded: {first_line(error)}") from None
    if odd := sorted(loaded["mismatched_keys"]):
        name, found, needed = odd[0]
        shapes = f"{list(found)}, not {list(needed)}"
        raise ModelUnavailable(f"{spec.id} cannot be loaded: {name} in {folder} is {shapes}")
    missing = sorted(loaded["missing_keys"])
    if projects and missing == [f"{_PROJECTOR}.bias"]:
        nn.init.zeros_(model.multi_vector_projector.bias)  # the checkpoint's has none
        missing = []
    if missing:
        message = f"{spec.id} cannot be loaded: {folder} lacks {len(missing)} of its weights"
        raise ModelUnavailable(f"{message}, {missing[0]} among them")
    nn.Module.to(model.eval().requires_grad_(False), device)
    loras: Loras | None = None
    if spec.adapters or spec.loadable:
        from serving.engines._peft import Loras  # here, because it takes a second

        loras = Loras(model, AdapterMetrics(telemetry, spec.id))
        for adapter in spec.adapters:
            loras.exchange(None, adapter)
    try:
        return Transformer(model, loras, spec.vision)
    except Exception as error:
        raise ModelUnavailable(f"{spec.id} cannot be run: {first_line(error)}") from None


class Transformer:
    """A model run by transformers, with its adapters and its images."""

    def __init__(self, model: PreTrainedModel, loras: Loras | None, vision: Vision | None) -> None:
        self.pad = _pad_token(model.config)
        self._model = model
        self._loras = loras
        self._vision = vision
        takes = inspect.signature(model.forward).parameters
        self._always: dict[str, object] = {"use_cache": False} if "use_cache" in takes else {}
        self._needs_mask = True
        self._needs_mask = self._mask_matters()

    def __call__(
        self,
        ids: Tensor,
        mask: Tensor | None,
        adapters: Sequence[str | None] = (),
        images: Sequence[Placed] = (),
    ) -> Tensor:
        """The last layer's token states `[n, longest, hidden]`.

        `ids [n, longest]`, `mask [n, longest]` bool or None where nothing is padded; `adapters`
        is empty or has one for every row.
        """
        if mask is None and self._needs_mask:
            mask = torch.ones_like(ids, dtype=torch.bool)
        self._choose(len(ids), adapters)
        given: dict[str, Tensor] = {"input_ids": ids}
        if images and self._vision is not None:
            given = embedded(self._model, self._vision, ids, mask, images)
        if mask is not None:
            given["attention_mask"] = mask.long()
        states: Tensor = self._model(**given, **self._always)[0]
        return states

    def project(self, states: Tensor, adapters: Sequence[str | None]) -> Tensor:
        """`[n, longest, hidden]` to `[n, longest, width]`, by the checkpoint's own projector."""
        self._choose(len(states), adapters)
        projected: Tensor = self._model.get_submodule(_PROJECTOR)(states)
        return projected

    def exchange(self, gone: str | None, come: Adapter | None) -> None:
        """See `Loras.exchange`."""
        assert self._loras is not None
        self._loras.exchange(gone, come)

    def _choose(self, rows: int, adapters: Sequence[str | None]) -> None:
        if self._loras is not None:
            self._loras.choose(adapters or [None] * rows)

    def _mask_matters(self) -> bool:
        """Whether unpadded inputs come out different without a mask: then it is always given."""
        ids = torch.full((2, 8), self.pad + 1, device=self._model.device)
        masked = self(ids, None)
        self._needs_mask = False
        try:
            return not torch.allclose(masked, self(ids, None), rtol=1e-3, atol=1e-3)
        except Exception:
            return True


# A foreign border: a class that is chosen by a config, and one that is made of it.
def _projecting(kind: Any, width: int) -> Any:
    """That class with a linear layer more, so that weights and adapters find it by its name."""

    def init(self: Any, config: PretrainedConfig, *args: Any, **kwargs: Any) -> None:
        kind.__init__(self, config, *args, **kwargs)
        hidden = config.get_text_config().hidden_size
        self.multi_vector_projector = nn.Linear(hidden, width)

    return type(kind.__name__, (kind,), {"__init__": init, "__module__": kind.__module__})


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, and no report of weights left over: the pooler's always are."""
    verbosity, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    try:
        yield
    finally:
        chatter.set_verbosity(verbosity)
        if bars:
            chatter.enable_progress_bar()


def _kind(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class of the backbone: of an encoder and decoder, the encoder alone."""
    mapping = MODEL_FOR_TEXT_ENCODING_MAPPING if config.is_encoder_decoder else MODEL_MAPPING
    kind: object = mapping.get(type(config), None)
    if not (isinstance(kind, type) and issubclass(kind, PreTrainedModel)):
        raise ValueError(f"transformers has no one backbone for {config.model_type!r}")
    return kind


def _pad_token(config: PretrainedConfig) -> int:
    """The token that fills an input up."""
    pad = getattr(config.get_text_config(), "pad_token_id", None)
    return pad if isinstance(pad, int) and pad >= 0 else 0
