"""A checkpoint's transformer, by transformers: found, read, checked to be whole, and run.

Importing this takes seconds, so whoever can do without does.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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

from serving.errors import ModelUnavailable
from serving.models.spec import ModelSpec

__all__ = ["Transformer", "load"]


def load(spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> Transformer:
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
        raise ModelUnavailable(f"{spec.id} cannot be loaded: {_first_line(error)}") from None
    if missing := sorted(loaded["missing_keys"]):
        message = f"{spec.id} cannot be loaded: {folder} lacks {len(missing)} of its weights"
        raise ModelUnavailable(f"{message}, {missing[0]} among them")
    nn.Module.to(model.eval().requires_grad_(False), device)
    return Transformer(model)


class Transformer:
    """A model run by transformers: `(ids, mask)` as `Encoder` takes them, to token states."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.pad = _pad_token(model.config)
        self._model = model
        takes = inspect.signature(model.forward).parameters
        self._always: dict[str, object] = {"use_cache": False} if "use_cache" in takes else {}
        self._needs_mask = True
        self._needs_mask = self._mask_matters()

    def __call__(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """The last layer's token states `[n, longest, hidden]`."""
        if mask is None and self._needs_mask:
            mask = torch.ones_like(ids, dtype=torch.bool)
        given = None if mask is None else mask.long()
        states: Tensor = self._model(input_ids=ids, attention_mask=given, **self._always)[0]
        return states

    def _mask_matters(self) -> bool:
        """Whether unpadded inputs come out different without a mask: then it is always given."""
        ids = torch.full((2, 8), self.pad + 1, device=self._model.device)
        masked = self(ids, None)
        self._needs_mask = False
        try:
            return not torch.allclose(masked, self(ids, None), rtol=1e-3, atol=1e-3)
        except Exception:
            return True


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


def _first_line(error: BaseException) -> str:
    """What an error says in one line, or its name."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
