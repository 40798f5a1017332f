"""Which backbones run in vLLM, by the `model_type` of their config.json, and as what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.models.spec import Adapter, ModelSpec

__all__ = ["BACKBONES", "Backbone", "foreign", "read_config", "refusal"]

_LORA = "adapter_model.safetensors"
_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class Backbone:
    """Our class of that name, and what its attention is.

    `causal` states depend on what stands before them alone: a long input may be computed in chunks,
    and a beginning that two inputs share once. Adapters may change the modules whose names, as in
    transformers' base class, begin with one of `adapted`. `sees`: it takes images.
    """

    architecture: str
    causal: bool
    adapted: tuple[str, ...] = ()
    sees: bool = False


_LAYERS = ("layers.",)
_SEEN = ("language_model.layers.", "multi_vector_projector.")

BACKBONES: Mapping[str, Backbone] = {
    "bert": Backbone("PolyvecBert", causal=False),
    "camembert": Backbone("PolyvecRoberta", causal=False),
    "eurobert": Backbone("PolyvecLlama", causal=False, adapted=_LAYERS),
    "llama": Backbone("PolyvecLlama", causal=True, adapted=_LAYERS),
    "mistral": Backbone("PolyvecLlama", causal=True, adapted=_LAYERS),
    "modernbert": Backbone("PolyvecModernBert", causal=False),
    "qwen2": Backbone("PolyvecQwen2", causal=True, adapted=_LAYERS),
    "qwen2_vl": Backbone("PolyvecQwen2_VL", causal=True, sees=True),
    "qwen2_5_vl": Backbone("PolyvecQwen2_5_VL", causal=True, adapted=_SEEN, sees=True),
    "qwen3": Backbone("PolyvecQwen3", causal=True, adapted=_LAYERS),
    "roberta": Backbone("PolyvecRoberta", causal=False),
    "xlm-roberta": Backbone("PolyvecRoberta", causal=False),
}


def refusal(spec: ModelSpec) -> str | None:
    """Why vLLM cannot run a model, in one sentence; None where it can. Imports nothing heavy."""
    kind = str(read_config(spec).get("model_type"))
    backbone = BACKBONES.get(kind)
    if backbone is None:
        return f"vLLM runs {', '.join(BACKBONES)}, and {spec.id} is {kind}"
    if spec.vision is not None and not backbone.sees:
        return f"vLLM takes no images into {kind}, and {spec.id} does"
    if spec.multi is not None and spec.multi.head is None and not backbone.sees:
        return f"vLLM has no multi_vector_projector in {kind}, and {spec.id} needs one"
    if spec.loadable and not backbone.adapted:
        return f"vLLM takes no adapters into {kind}, and {spec.id} has some"
    told = (foreign(spec, backbone, adapter) for adapter in spec.adapters)
    return next((reason for reason in told if reason is not None), None)


def foreign(spec: ModelSpec, backbone: Backbone, adapter: Adapter) -> str | None:
    """Why vLLM cannot run an adapter, in one sentence; None where it can."""
    for name in _modules(Path(adapter.path) / _LORA):
        if not name.startswith(backbone.adapted):  # vLLM would leave it out, and say nothing
            return f"vLLM cannot adapt {name}, as the adapter {adapter.name} of {spec.id} does"
    return None


def read_config(spec: ModelSpec) -> Mapping[str, Any]:
    """The backbone's config.json; empty where it cannot be read."""
    try:
        found = json.loads((Path(spec.path) / spec.transformer / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _modules(file: Path) -> list[str]:
    """The tensors of an adapter, by their modules, from its header: a length in bytes, and JSON."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            names = json.loads(opened.read(length))
    except (OSError, ValueError):
        return []
    return [name.removeprefix(_PREFIX) for name in names if name != "__metadata__"]
