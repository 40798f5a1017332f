"""transformers and peft as they come, one input at a time, and an engine to hold against them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from serving.engines import DType, Engine, EngineOptions
from serving.engines.torch import load
from serving.models.spec import ModelSpec
from serving.values import Floats, Prepared, Usage, Vectors
from tests.adapted import PAD, PROJECTOR, tensors_of

__all__ = [
    "LENGTHS",
    "NEAR",
    "TEXTS",
    "Given",
    "Reference",
    "embed",
    "opened",
    "pixel_values",
    "unit",
]

LENGTHS = (9, 2, 30, 1, 17)
TEXTS = [[10 + (7 * n + 3 * at) % 250 for at in range(n)] for n in LENGTHS]
NEAR = {"rtol": 0.0, "atol": 1e-5}


def pixel_values(spec: ModelSpec, image: np.ndarray[Any, Any]) -> dict[str, Tensor]:
    """`pixel_values` and `image_grid_thw` of an image that is sized already."""
    vision = spec.vision
    assert vision is not None
    processor = Qwen2VLImageProcessorPil(
        patch_size=vision.patch,
        merge_size=vision.merge,
        temporal_patch_size=vision.temporal,
        image_mean=list(vision.mean),
        image_std=list(vision.std),
        do_resize=False,
    )
    return dict(processor(image, return_tensors="pt", input_data_format="channels_last"))


class Reference:
    """A model of `tests.adapted`."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.model: Any = AutoModel.from_pretrained(spec.path, dtype=torch.float32).eval()
        self._peft: Any = None
        self._names = {one.name: f"given{n}" for n, one in enumerate(spec.adapters)}
        for one in spec.adapters:
            if self._peft is None:
                name = self._names[one.name]
                self._peft = PeftModel.from_pretrained(self.model, one.path, adapter_name=name)
            else:
                self._peft.load_adapter(one.path, self._names[one.name])

    @torch.inference_mode()
    def states(
        self,
        ids: Sequence[int],
        adapter: str | None = None,
        images: Sequence[np.ndarray[Any, Any]] = (),
        **given: Any,
    ) -> Tensor:
        """`[tokens, hidden]`: the last layer's."""
        row = torch.tensor([list(ids)])
        inputs: dict[str, Any] = {"input_ids": row, "attention_mask": torch.ones_like(row)}
        if images:
            found = [pixel_values(self.spec, image) for image in images]
            inputs |= {key: torch.cat([one[key] for one in found]) for key in found[0]}
            inputs["mm_token_type_ids"] = (row == PAD).int()
        model = self._peft or self.model
        if adapter is not None:
            model.set_adapter(self._names[adapter])
        bare = self._peft is not None and adapter is None
        with self._peft.disable_adapter() if bare else nullcontext():
            states: Tensor = model(**{**inputs, **given})[0][0]
        return states

    def projected(self, states: Tensor, adapter: str | None = None) -> Floats:
        """`[tokens, width]`: by the checkpoint's projector and the adapter's change to it."""
        weights = load_file(Path(self.spec.path) / "model.safetensors")
        rows = states @ weights[f"{PROJECTOR}.weight"].T + weights[f"{PROJECTOR}.bias"]
        for one in self.spec.adapters:
            if one.name == adapter:
                lora = tensors_of(one)
                a, b = (lora[f"base_model.model.{PROJECTOR}.lora_{part}.weight"] for part in "AB")
                rows = rows + states @ a.T @ b.T * (6 / one.rank)  # alpha is 6
        return unit(rows)


def unit(rows: Tensor) -> Floats:
    """Each row by its length."""
    return (rows / rows.norm(dim=-1, keepdim=True)).numpy()


Given: TypeAlias = Callable[[str], tuple[ModelSpec, Reference]]
"""A model of `tests.adapted` and its reference, by its name."""


@asynccontextmanager
async def opened(
    spec: ModelSpec, batch_tokens: int | None = None, dtype: DType = "float32"
) -> AsyncIterator[Engine]:
    """The torch engine with that model."""
    engine = load(spec, EngineOptions(dtype=dtype, threads=1, batch_tokens=batch_tokens))
    try:
        yield engine
    finally:
        await engine.close()


async def embed(engine: Engine, inputs: Sequence[Sequence[int]], **facts: Any) -> Vectors:
    """What the engine makes of those token ids; `facts` are those of `Prepared`."""
    ids = np.array([token for one in inputs for token in one], np.int32)
    lengths = np.array([len(one) for one in inputs], np.int32)
    return await engine.embed(Prepared(ids, lengths, Usage(), **facts), time.monotonic() + 60)
