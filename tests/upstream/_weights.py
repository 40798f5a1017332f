"""Random weights that differ visibly, and the files they are written to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PretrainedConfig

__all__ = ["adapter_config", "lora", "randomise", "save", "settings", "write_json"]


def randomise(model: nn.Module) -> dict[str, Tensor]:
    """The model's weights in bfloat16: norms about 1 but uneven, everything else about 0."""
    return {name: _random(name, one).to(torch.bfloat16) for name, one in model.named_parameters()}


def _random(name: str, like: Tensor) -> Tensor:
    if like.dim() == 1:
        return torch.rand_like(like) * 1.5 + 0.5 if "weight" in name else torch.randn_like(like) / 8
    if "embed" in name:
        return torch.randn_like(like) * (1 if "word" in name or "tokens" in name else 0.2)
    # What a feed-forward layer adds is much the same for all tokens: less of it, so texts differ.
    spread = 0.3 if re.search(r"fc2|output\.dense", name) else 1.0
    return torch.randn_like(like) * spread / like[0].numel() ** 0.5


def lora(rank: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """`[rank, inputs]` and `[outputs, rank]` in bfloat16: B is not zero, so that tasks differ."""
    down = torch.randn(rank, inputs) / inputs**0.5
    up = torch.randn(outputs, rank) * 0.2
    return down.to(torch.bfloat16), up.to(torch.bfloat16)


def adapter_config(rank: int, alpha: int, targets: object, **more: object) -> dict[str, object]:
    """adapter_config.json as PEFT writes it."""
    return {
        "base_model_name_or_path": "somewhere/on-the-trainers-disk",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": "gaussian",
        "lora_alpha": alpha,
        "lora_dropout": 0.1,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": targets,
        "task_type": "FEATURE_EXTRACTION",
        "use_dora": False,
        "use_rslora": False,
        **more,
    }


def save(weights: Mapping[str, Tensor], path: Path) -> None:
    """One safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: one.contiguous() for name, one in weights.items()}, path, {"format": "pt"})


def write_json(path: Path, value: object) -> None:
    """A JSON file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def settings(config: PretrainedConfig, without: Iterable[str] = ()) -> dict[str, object]:
    """The settings of a config, with its rope as transformers before 5 wrote it."""
    found: dict[str, object] = json.loads(config.to_json_string(use_diff=False))
    rope = found.pop("rope_parameters", None)
    if isinstance(rope, dict):
        found["rope_theta"] = rope.pop("rope_theta")
        rest = {key: value for key, value in rope.items() if key != "rope_type"}
        found["rope_scaling"] = (
            {**rest, "type": "default", "rope_type": "default"} if rest else None
        )
    dropped = {"transformers_version", "dtype", "_name_or_path", "architectures", *without}
    return {key: value for key, value in found.items() if key not in dropped}
