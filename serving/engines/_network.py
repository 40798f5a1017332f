"""A checkpoint's network: right-padded token ids through backbone, pooling and heads."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from serving.engines._hardware import is_out_of_memory
from serving.engines._pooling import Extent, head, pool
from serving.engines._threaded import Broken, Input, OutOfMemory
from serving.errors import ModelUnavailable
from serving.models.spec import ModelSpec
from serving.values import Floats

__all__ = ["Network"]


class Network:
    """Inputs to vectors, on one device, in one number type. For one thread only."""

    def __init__(
        self, spec: ModelSpec, device: torch.device, dtype: torch.dtype, threads: int | None
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._spec = spec
        self._device = device
        self._backbone = _backbone(spec, dtype)
        self._pad = _pad_token(self._backbone.config)
        nn.Module.to(self._backbone, device)
        self._head = head(spec, device)
        takes = inspect.signature(self._backbone.forward).parameters
        self._always: dict[str, object] = {"return_dict": True} if "return_dict" in takes else {}
        if "use_cache" in takes:
            self._always["use_cache"] = False
        self._needs_mask = True
        with torch.inference_mode():
            self._needs_mask = self._mask_matters()

    def __call__(self, inputs: Sequence[Input]) -> Floats:
        """Inputs to `[inputs, dimensions]`."""
        try:
            with torch.inference_mode():
                return self._vectors(inputs)
        except torch.AcceleratorError as error:
            raise Broken(_sentence(error)) from None
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Out of the handler, the failed try's frames are gone and with them its tensors.
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemory

    def _vectors(self, inputs: Sequence[Input]) -> Floats:
        lengths = [max(len(one.ids), 1) for one in inputs]
        extent = Extent(lengths, [one.skip for one in inputs], self._device)
        states = self._states(self._ids(inputs, extent), extent)
        vectors: Tensor = self._head(pool(states, extent, self._spec.pooling.modes))
        if self._spec.normalize:
            vectors = nn.functional.normalize(vectors, dim=-1)
        array: Floats = vectors.cpu().numpy()
        return array

    def _ids(self, inputs: Sequence[Input], extent: Extent) -> Tensor:
        """`[n, longest]`, right-padded."""
        padded = np.full((len(inputs), extent.longest), self._pad, np.int64)
        for row, one in zip(padded, inputs, strict=True):
            row[: len(one.ids)] = one.ids
        return torch.from_numpy(padded).to(self._device)

    def _states(self, ids: Tensor, extent: Extent) -> Tensor:
        """`[n, longest] -> [n, longest, hidden]`: the backbone's last token states."""
        mask = extent.attended().long() if extent.padded or self._needs_mask else None
        output = self._backbone(input_ids=ids, attention_mask=mask, **self._always)
        states: Tensor = output[0]
        return states

    def _mask_matters(self) -> bool:
        """Whether unpadded inputs come out different without a mask: then it is always given.

        Without one, attention needs no mask to be made, copied and added.
        """
        extent = Extent([8, 8], [0, 0], self._device)
        ids = torch.full((2, 8), self._pad + 1, device=self._device)
        masked = self._states(ids, extent)
        self._needs_mask = False
        try:
            bare = self._states(ids, extent)
        except Exception:
            return True
        return not torch.allclose(masked, bare, rtol=1e-3, atol=1e-3)


def _backbone(spec: ModelSpec, dtype: torch.dtype) -> PreTrainedModel:
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
        raise ModelUnavailable(f"{spec.id} cannot be loaded: {_sentence(error)}") from None
    if missing := sorted(loaded["missing_keys"]):
        message = f"{spec.id} cannot be loaded: {folder} lacks {len(missing)} of its weights"
        raise ModelUnavailable(f"{message}, {missing[0]} among them")
    backbone: PreTrainedModel = model.eval().requires_grad_(False)
    return backbone


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, and no report of weights left over: the pooler's always are."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _kind(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class of the backbone: of an encoder and decoder, the encoder alone."""
    mapping = MODEL_FOR_TEXT_ENCODING_MAPPING if config.is_encoder_decoder else MODEL_MAPPING
    kind: object = mapping.get(type(config), None)
    if not (isinstance(kind, type) and issubclass(kind, PreTrainedModel)):
        raise ValueError(f"transformers has no one backbone for {config.model_type!r}")
    return kind


def _pad_token(config: PretrainedConfig) -> int:
    pad = getattr(config.get_text_config(), "pad_token_id", None)
    return pad if isinstance(pad, int) and pad >= 0 else 0


def _sentence(error: BaseException) -> str:
    """The first line of an error, or its name."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
