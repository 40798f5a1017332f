"""A checkpoint's transformer: found, read, checked to be whole, and run in the fewest steps."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

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

from serving.engines._bert import Encoder, Packed, Plain
from serving.errors import ModelUnavailable
from serving.models.spec import ModelSpec

__all__ = ["Backbone", "first_line", "fitted", "pad_token", "read"]

_log = logging.getLogger(__name__)

Backbone: TypeAlias = Callable[[Tensor, Tensor | None], Tensor]
"""`(ids [n, longest], mask [n, longest] bool or None where nothing is padded)` to token states."""


def read(spec: ModelSpec, dtype: torch.dtype) -> PreTrainedModel:
    """The checkpoint's transformer with its own weights, every one of them."""
    folder = Path(spec.path) / spec.transformer
    # A foreign border: transformers' loaders take and give what the checkpoint says.
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **local)
        kind: Any = _kind(config)
        options = {**local, "config": config, "dtype": dtype, "output_loading_info": True}
        if "add_pooling_layer" in inspect.signature(kind).parameters:
            options["add_pooling_layer"] = False
        with _quiet():
            model, loaded = kind.from_pretrained(folder, **options)
    except Exception as error:
        raise ModelUnavailable(f"{spec.id} cannot be loaded: {first_line(error)}") from None
    if missing := sorted(loaded["missing_keys"]):
        message = f"{spec.id} cannot be loaded: {folder} lacks {len(missing)} of its weights"
        raise ModelUnavailable(f"{message}, {missing[0]} among them")
    whole: PreTrainedModel = model.eval().requires_grad_(False)
    return whole


def fitted(model: PreTrainedModel, device: torch.device) -> Backbone:
    """The fastest way to run a model on a device that gives what transformers gives."""
    nn.Module.to(model, device)
    original = _AsItIs(model)
    for pack in (Packed, Plain) if device.type == "cpu" else (Plain,):
        try:
            encoder = Encoder(model, pack)
            if _agree(original, encoder, pad_token(model.config), device):
                return encoder
        except Exception as error:
            _log.debug("%s is run as it is: %s", type(model).__name__, first_line(error))
    original.spare_masks(pad_token(model.config), device)
    return original


def pad_token(config: PretrainedConfig) -> int:
    """The token that fills an input up."""
    pad = getattr(config.get_text_config(), "pad_token_id", None)
    return pad if isinstance(pad, int) and pad >= 0 else 0


def first_line(error: BaseException) -> str:
    """What an error says in one line, or its name."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


class _AsItIs:
    """A model run by transformers."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        takes = inspect.signature(model.forward).parameters
        self._always: dict[str, object] = {"use_cache": False} if "use_cache" in takes else {}
        self._needs_mask = True

    def __call__(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None and self._needs_mask:
            mask = torch.ones_like(ids, dtype=torch.bool)
        given = None if mask is None else mask.long()
        states: Tensor = self._model(input_ids=ids, attention_mask=given, **self._always)[0]
        return states

    def spare_masks(self, pad: int, device: torch.device) -> None:
        """Give no mask where nothing is padded, if this model comes out the same without."""
        ids = torch.full((2, 8), pad + 1, device=device)
        masked = self(ids, None)
        self._needs_mask = False
        try:
            self._needs_mask = not _close(masked, self(ids, None))
        except Exception:
            self._needs_mask = True


def _agree(one: Backbone, other: Backbone, pad: int, device: torch.device) -> bool:
    """Whether both give the same states for padded inputs, and for inputs without padding."""
    ids = torch.arange(pad + 1, pad + 49, device=device).view(3, 16)
    mask = torch.arange(16, device=device) < torch.tensor([[16], [3], [9]], device=device)
    padded = ids.masked_fill(~mask, pad)
    alike = _close(one(padded, mask)[mask], other(padded, mask)[mask])
    return alike and _close(one(ids, None), other(ids, None))


def _close(one: Tensor, other: Tensor) -> bool:
    """Whether two ways to reckon differ by no more than their roundings."""
    bound = 1e-4 if one.dtype == torch.float32 else 0.03
    one, other = one.float(), other.float()
    return bool((one - other).norm() <= bound * one.norm())


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
