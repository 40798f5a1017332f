"""LoRA adapters of upstream's layouts into PEFT's, every tensor checked to have its counterpart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from serving.models.checkpoints import Checkpoint
from serving.models.tensors import Tensor, Tensors, load, save
from serving.models.views import write_json

__all__ = ["CONFIG", "WEIGHTS", "Key", "Lora", "check", "copy", "described", "split", "write"]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_EMBEDDING = "embedding_"
_KEY = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+?)\.(?P<part>lora_(?:embedding_)?[AB])(?:\.(?P<rest>.+))?"
)


@dataclass(frozen=True, slots=True)
class Lora:
    """What an adapter's config.json says: its rank r, and alpha; its scale is alpha / r."""

    rank: int
    alpha: float
    rslora: bool = False


class Key(NamedTuple):
    """A tensor's name taken apart: the module, `lora_A` or the like, and a task inside it or ""."""

    module: str
    part: str
    task: str = ""

    def __str__(self) -> str:
        """The name as PEFT has it."""
        end = "" if _EMBEDDING in self.part else ".weight"
        return f"{_PREFIX}{self.module}.{self.part}{end}"


def split(name: str) -> Key | None:
    """A name as PEFT, or upstream's own module built on it, saves it; None for another's."""
    match = _KEY.fullmatch(name)
    if match is None:
        return None
    rest = [one for one in (match["rest"] or "").split(".") if one not in ("", "default", "weight")]
    return Key(match["module"], match["part"], ".".join(rest))


def described(checkpoint: Checkpoint, folder: str) -> Lora:
    """The adapter_config.json of a folder, "" for the checkpoint's own.

    `ModelUnavailable` for all but a plain LoRA.
    """
    name = f"{folder}/{CONFIG}" if folder else CONFIG
    facts = checkpoint.json(name)
    kind = facts.text("peft_type") or "LORA"
    for wrong, what in (
        (kind != "LORA", f"of the type {kind}"),
        (facts.flag("use_dora"), "of the type DoRA"),
        ((facts.text("bias") or "none") != "none", "with biases"),
        (facts.values.get("rank_pattern"), "with several ranks"),
        (facts.values.get("alpha_pattern"), "with several scales"),
    ):
        if wrong:
            raise checkpoint.fault(f"has an adapter {what} in {name}; supported is a plain LoRA")
    rank, alpha = facts.whole("r"), facts.whole("lora_alpha")
    if not rank or not alpha or rank < 1:
        raise checkpoint.fault(f"has a {name} that does not say r and lora_alpha")
    return Lora(rank, alpha, bool(facts.flag("use_rslora")))


def check(checkpoint: Checkpoint, place: str, tensors: Tensors, lora: Lora) -> None:
    """Refuse an adapter whose factors are not in pairs, or not of its rank.

    `tensors` are under PEFT's names, `place` says where they come from. Linear layers have A `[r,
    in]` and B `[out, r]`, embeddings A `[r, vocabulary]` and B `[out, r]`.
    """
    if not tensors:
        raise checkpoint.fault(f"has no adapter in {place}")
    for key, one in tensors.items():
        down = re.search(r"lora_(embedding_)?A", key) is not None
        other = re.sub(r"(lora_(?:embedding_)?)[AB]", rf"\g<1>{'B' if down else 'A'}", key)
        if other not in tensors:
            raise checkpoint.fault(f"lacks {other.removeprefix(_PREFIX)} in {place}")
        if len(one.shape) != 2 or one.shape[0 if down else 1] != lora.rank:
            raise checkpoint.fault(
                f"has {key.removeprefix(_PREFIX)} of the shape {list(one.shape)} in {place},"
                f" which is not of rank {lora.rank}"
            )


def write(folder: Path, tensors: Tensors, lora: Lora, file: Path | None = None) -> None:
    """An adapter in PEFT's layout. `file` has the tensors already, under just those names."""
    modules = {one.module for one in map(split, tensors) if one}
    patterns = {re.sub(r"\d+", r"\\d+", re.escape(module)) for module in modules}
    write_json(
        folder / CONFIG,
        {
            "peft_type": "LORA",
            "task_type": "FEATURE_EXTRACTION",
            "r": lora.rank,
            "lora_alpha": lora.alpha,
            "use_rslora": lora.rslora,
            "lora_dropout": 0.0,
            "bias": "none",
            "inference_mode": True,
            "target_modules": "|".join(sorted(patterns)),
        },
    )
    if file is None:
        save(folder / WEIGHTS, tensors)
    else:
        (folder / WEIGHTS).symlink_to(file.absolute())


def copy(checkpoint: Checkpoint, file: str, folder: Path, lora: Lora, without: str) -> None:
    """An adapter that is in PEFT's layout already, but for a prefix of its modules perhaps.

    Its file is linked to where nothing in it has to change.
    """
    found = load(checkpoint, file)
    fit: dict[str, Tensor] = {}
    for name, tensor in found.items():
        key = split(name)
        if key is None or key.task:
            raise checkpoint.fault(f"has {name} in {file}, which is no part of a LoRA")
        fit[str(key._replace(module=key.module.removeprefix(without)))] = tensor
    check(checkpoint, file, fit, lora)
    write(folder, fit, lora, checkpoint.path / file if fit.keys() == found.keys() else None)
