"""Expected vectors of the tiny checkpoints, computed from upstream's files without any of our code.

Adapters are merged into the base weights by hand, in float32, by the formulas of upstream's own
modules; the merged weights run in transformers' plain class. `task` is an adapter's name as in
upstream's files, None the base.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoConfig,
    EuroBertConfig,
    EuroBertModel,
    JinaEmbeddingsV3Config,
    JinaEmbeddingsV3Model,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLModel,
    Qwen3Config,
    Qwen3Model,
    XLMRobertaModel,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

__all__ = ["dense", "multi", "sparse", "states", "tasks", "unit"]

Array = npt.NDArray[Any]
Weights = dict[str, Tensor]


def unit(vectors: Array) -> Array:
    """Every row of unit length."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def tasks(path: Path) -> tuple[str, ...]:
    """The adapters' names, as upstream has them."""
    config = json.loads((path / "config.json").read_text())
    if path.name == "jina_v3_hf":
        return ("retrieval.query", "retrieval.passage", "separation", *_PLAIN)
    return tuple(config.get("task_names") or config.get("lora_adaptations") or ())


_PLAIN = ("classification", "text-matching")


def states(
    path: Path, ids: Sequence[int], task: str | None = None, images: Sequence[Array] = ()
) -> Array:
    """Token states after the last norm, `[tokens, hidden]`.

    `ids` have one pad for each token of an image; an image is `[height, width, 3]` uint8, of the
    size that the model sees.
    """
    model = _model(path, task)[0]
    given: dict[str, Any] = {"input_ids": torch.tensor([list(ids)])}
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    if images:
        facts = json.loads((path / "preprocessor_config.json").read_text())
        processor = Qwen2VLImageProcessorPil(
            patch_size=facts["patch_size"],
            merge_size=facts["merge_size"],
            temporal_patch_size=facts["temporal_patch_size"],
            image_mean=facts["image_mean"],
            image_std=facts["image_std"],
            do_resize=False,
        )
        given |= processor(list(images), return_tensors="pt")
        pad = model.config.image_token_id
        given["mm_token_type_ids"] = (given["input_ids"] == pad).int()
    with torch.no_grad():
        return np.asarray(model(**given).last_hidden_state[0].numpy())


def dense(
    path: Path,
    ids: Sequence[int],
    task: str | None = None,
    images: Sequence[Array] = (),
    span: tuple[int, int] | None = None,
) -> Array:
    """The pooled vector at full width, of unit length, `[hidden]`.

    `span`: the mean from its start up to its end; without one, as the model pools whole inputs,
    which for one image is its vision span with both markers.
    """
    found = states(path, ids, task, images)
    if span is None and images:
        config = _model(path, task)[0].config
        first = list(ids).index(config.vision_start_token_id)
        span = first, list(ids).index(config.vision_end_token_id) + 1
    if span is not None:
        return unit(found[span[0] : span[1]].mean(axis=0))
    match path.name:
        case "jina_v5_small" | "jina_v5_nano" | "qwen3_embedding":
            return unit(found[-1])
        case "bge_m3":
            return unit(found[0])
        case _:
            return unit(found.mean(axis=0))


def multi(
    path: Path, ids: Sequence[int], task: str | None = None, images: Sequence[Array] = ()
) -> Array:
    """A vector for every token, each of unit length, `[tokens, width]`; bge-m3 skips the first."""
    found = states(path, ids, task, images)
    if path.name == "bge_m3":
        head = torch.load(path / "colbert_linear.pt", weights_only=True)
        return unit(found[1:] @ head["weight"].numpy().T + head["bias"].numpy())
    weights = _model(path, task)[1]
    weight, bias = (weights[f"multi_vector_projector.{one}"].numpy() for one in ("weight", "bias"))
    return unit(found @ weight.T + bias)


def sparse(path: Path, ids: Sequence[int]) -> dict[int, float]:
    """bge-m3's weight for every token id that has one."""
    head = torch.load(path / "sparse_linear.pt", weights_only=True)
    weights = states(path, ids) @ head["weight"].numpy().T + head["bias"].numpy()
    found: dict[int, float] = {}
    for one, weight in zip(ids, weights[:, 0], strict=True):
        if weight > 0 and one > 3:  # the first four ids of XLM-R's vocabulary are special
            found[one] = max(found.get(one, 0.0), float(weight))
    return dict(sorted(found.items()))


@cache
def _model(path: Path, task: str | None) -> tuple[PreTrainedModel, Weights]:
    """The plain model with one task's adapter merged, and all of its weights."""
    config = json.loads((path / "config.json").read_text())
    match path.name:
        case "jina_v4":
            return _v4(path, config, task)
        case "jina_v5_small":
            return _v5(path, task, Qwen3Model(Qwen3Config(**_plain(config))))
        case "jina_v5_nano":
            return _v5(path, task, EuroBertModel(EuroBertConfig(**_plain(config))))
        case "jina_v3":
            return _stacked(path, config, task)
        case "jina_v3_hf":
            return _port(path, task)
        case "bge_m3":
            model = XLMRobertaModel(AutoConfig.from_pretrained(path), add_pooling_layer=False)
            weights = torch.load(path / "pytorch_model.bin", weights_only=True)
            return _filled(model, weights)
        case _:
            model = Qwen3Model(AutoConfig.from_pretrained(path))
            return _filled(model, _floats(path / "model.safetensors"))


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    dropped = ("auto_map", "model_type", "architectures", "task_names", "dtype", "is_decoder")
    return {key: value for key, value in config.items() if key not in dropped}


def _floats(*files: Path) -> Weights:
    return {name: one.float() for file in files for name, one in load_file(file).items()}


def _filled(model: PreTrainedModel, weights: Weights) -> tuple[PreTrainedModel, Weights]:
    """The model with those weights: none may be missing, and of what is left over only heads."""
    model.eval().requires_grad_(False)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not missing
    assert all(re.match("multi_vector_projector|pooler", name) for name in unexpected), unexpected
    return model, weights


def _scale(path: Path) -> float:
    config = json.loads((path / "adapter_config.json").read_text())
    return float(config["lora_alpha"] / config["r"])


def _merge(weights: Weights, factors: Weights, scale: float) -> Weights:
    """`W + scale B A` for every layer of an adapter in PEFT's layout."""
    merged = dict(weights)
    for key, down in factors.items():
        if ".lora_A" not in key and ".lora_embedding_A" not in key:
            continue
        up = factors[key.replace("lora_A", "lora_B").replace("embedding_A", "embedding_B")]
        name = re.sub(r"\.lora_(embedding_)?A.*", ".weight", key.removeprefix("base_model.model."))
        delta = up @ down
        merged[name] = weights[name] + scale * (delta.T if "embedding_A" in key else delta)
    return merged


def _v4(path: Path, config: dict[str, Any], task: str | None) -> tuple[PreTrainedModel, Weights]:
    weights = _floats(*path.glob("model-*.safetensors"))
    if task is not None:
        factors = _floats(path / "adapters" / "adapter_model.safetensors")
        mine = {
            key.replace(f".{task}.", "."): one for key, one in factors.items() if f".{task}." in key
        }
        weights = _merge(weights, mine, _scale(path / "adapters"))
    named = {re.sub("^model[.]", "language_model.", name): one for name, one in weights.items()}
    keep = ("text_config", "vision_config", "vision_start_token_id", "vision_end_token_id")
    keep += ("image_token_id", "video_token_id")
    model = Qwen2_5_VLModel(Qwen2_5_VLConfig(**{key: config[key] for key in keep}))
    return _filled(model, named)


def _v5(path: Path, task: str | None, model: PreTrainedModel) -> tuple[PreTrainedModel, Weights]:
    weights = _floats(path / "model.safetensors")
    if task is not None:
        folder = path / "adapters" / task
        factors = _floats(folder / "adapter_model.safetensors")
        weights = _merge(weights, factors, _scale(folder))
    return _filled(model, weights)


def _port(path: Path, task: str | None) -> tuple[PreTrainedModel, Weights]:
    weights = _floats(path / "model.safetensors")
    if task is not None:
        folder = path / re.sub(r"\W", "_", task)
        factors = _floats(folder / "adapter_model.safetensors")
        weights = _merge(weights, factors, _scale(folder))
    return _filled(JinaEmbeddingsV3Model(AutoConfig.from_pretrained(path)), weights)


def _stacked(
    path: Path, config: dict[str, Any], task: str | None
) -> tuple[PreTrainedModel, Weights]:
    """XLM-R flash: `W + scale B A`, and `W + scale A B` for embeddings, by the task's index."""
    found = _floats(path / "model.safetensors")
    scale = config["lora_alpha"] / config["lora_rank"]
    weights: Weights = {}
    for key, one in found.items():
        stem, _, end = key.rpartition(".")
        name = key
        if end == "original":
            name, value = key.replace("parametrizations.weight.original", "weight"), one
            if task is not None:
                at = config["lora_adaptations"].index(task)
                down, up = (found[f"{stem}.0.lora_{part}"][at] for part in "AB")
                value = one + scale * (down @ up if "embeddings" in key else up @ down)
            weights |= _native(name, value)
        elif not end.startswith("lora_"):
            weights |= _native(name, one)
    keys = ("vocab_size", "hidden_size", "num_attention_heads", "num_hidden_layers")
    keys += ("intermediate_size", "max_position_embeddings")
    rope = {"rope_type": "default", "rope_theta": config["rotary_emb_base"]}
    native = JinaEmbeddingsV3Config(**{key: config[key] for key in keys}, rope_parameters=rope)
    return _filled(JinaEmbeddingsV3Model(native), weights)


def _native(name: str, value: Tensor) -> Weights:
    """A weight of XLM-R flash under transformers' names."""
    name = name.removeprefix("roberta.").replace("encoder.", "").replace("emb_ln", "embeddings.LN")
    name = name.replace("norm1", "post_attention_layernorm").replace("out_proj", "o_proj")
    name = name.replace("norm2", "post_mlp_layernorm").replace("mixer", "self_attn")
    name = name.replace("LN", "LayerNorm")
    if "Wqkv" not in name:
        return {name: value}
    parts = zip("qkv", value.chunk(3), strict=True)
    return {name.replace("Wqkv", f"{one}_proj"): part for one, part in parts}
