"""Which backbones run in vLLM, by the `model_type` of their config.json, and as what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.models.spec import ModelSpec

__all__ = ["BACKBONES", "Backbone", "read_config", "refusal"]

_LORA = "adapter_model.safetensors"
_EMBEDDING_PARTS = ("lora_embedding_A", "lora_embedding_B")


@dataclass(frozen=True, slots=True)
class Backbone:
    """Our class of that name, and what its attention is.

    `causal` states depend on what stands before them alone: a long input may be computed in chunks,
    and a beginning that two inputs share once. `adapts` says whether adapters can be added.
    """

    architecture: str
    causal: bool
    adapts: bool = True
    sees: bool = False


BACKBONES: Mapping[str, Backbone] = {
    "bert": Backbone("PolyvecBert", causal=False),
    "camembert": Backbone("PolyvecRoberta", causal=False),
    "eurobert": Backbone("PolyvecLlama", causal=False),
    "llama": Backbone("PolyvecLlama", causal=True),
    "mistral": Backbone("PolyvecLlama", causal=True),
    "modernbert": Backbone("PolyvecModernBert", causal=False, adapts=False),
    "qwen2": Backbone("PolyvecQwen2", causal=True),
    "qwen2_5_vl": Backbone("PolyvecQwen2_5_VL", causal=True, sees=True),
    "qwen3": Backbone("PolyvecQwen3", causal=True),
    "roberta": Backbone("PolyvecRoberta", causal=False),
    "xlm-roberta": Backbone("PolyvecRoberta", causal=False),
}


def refusal(spec: ModelSpec) -> str | None:
    """Why vLLM cannot run a model, in one sentence; None where it can. Imports nothing heavy."""
    kind = str(read_config(spec).get("model_type"))
    backbone = BACKBONES.get(kind)
    if backbone is None:
        return f"vLLM runs {', '.join(BACKBONES)}, and {spec.id} is {kind}"
    if spec.adapters and not backbone.adapts:
        return f"vLLM has no adapters for {kind}, and {spec.id} has {len(spec.adapters)}"
    if spec.vision is not None and not backbone.sees:
        return f"vLLM takes no images into {kind}, and {spec.id} does"
    if spec.multi is not None and spec.multi.head is None and not backbone.sees:
        return f"vLLM has no multi_vector_projector in {kind}, and {spec.id} needs one"
    for adapter in spec.adapters:
        if any(_adapts_embeddings(name) for name in _names(Path(adapter.path) / _LORA)):
            return f"vLLM cannot adapt embeddings, as the adapter {adapter.name} of {spec.id} does"
    return None


def read_config(spec: ModelSpec) -> Mapping[str, Any]:
    """The backbone's config.json; empty where it cannot be read."""
    try:
        found = json.loads((Path(spec.path) / spec.transformer / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _adapts_embeddings(name: str) -> bool:
    return name.endswith(_EMBEDDING_PARTS)


def _names(file: Path) -> list[str]:
    """The tensors in a safetensors file, from its header: eight bytes of length, and JSON."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            return list(json.loads(opened.read(length)))
    except (OSError, ValueError):
        return []
