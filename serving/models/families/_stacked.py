"""jina-embeddings-v3's own layout: five adapters stacked among the weights, under other names.

A layer's weight is `X.parametrizations.weight.original`, its factors `X.parametrizations.weight.0.
lora_A` and `lora_B`, their first axis the task. Linear ones are A `[tasks, r, in]`, B `[tasks, out,
r]`; an embedding's are crossed: A `[tasks, vocabulary, r]`, B `[tasks, r, hidden]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from serving.models.adapters import Key
from serving.models.checkpoints import Checkpoint
from serving.models.tensors import Tensor, Tensors

__all__ = ["adapter", "base", "whole"]

_FACTOR = re.compile(r"(?P<stem>.+)\.parametrizations\.weight\.0\.(?P<part>lora_[AB])")
_ORIGINAL = ".parametrizations.weight.original"
_FUSED = re.compile(r"mixer\.Wqkv$")
_RENAMED = (
    (re.compile(r"^emb_ln$"), "embeddings.LayerNorm"),
    (re.compile(r"^encoder\.layers\."), "layers."),
    (re.compile(r"mixer\.out_proj$"), "self_attn.o_proj"),
    (re.compile(r"norm1$"), "post_attention_layernorm"),
    (re.compile(r"norm2$"), "post_mlp_layernorm"),
)
_PARTS = ("q", "k", "v")


def whole(checkpoint: Checkpoint, file: str, tensors: Tensors, tasks: Sequence[str]) -> None:
    """Refuse a file without adapters, or with others than one for each task."""
    shapes = {name: one.shape for name, one in tensors.items() if _FACTOR.fullmatch(name)}
    if not shapes:
        raise checkpoint.fault(f"has no adapters in {file}")
    for name, shape in shapes.items():
        if len(shape) != 3 or shape[0] != len(tasks):
            raise checkpoint.fault(
                f"has {name} of the shape {list(shape)} in {file}; its config.json has"
                f" {len(tasks)} lora_adaptations"
            )


def base(tensors: Tensors) -> dict[str, Tensor]:
    """The weights without adapters, under transformers' names."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not _FACTOR.fullmatch(name):
            plain = name.replace(_ORIGINAL, ".weight")
            stem, _, end = plain.rpartition(".")
            found |= {f"{module}.{end}": one for module, one in _modules(stem, tensor)}
    return found


def adapter(tensors: Tensors, task: int) -> dict[str, Tensor]:
    """The factors of one task, by its index, under PEFT's names."""
    found: dict[str, Tensor] = {}
    for name, stacked in tensors.items():
        match = _FACTOR.fullmatch(name)
        if match is None:
            continue
        stem, part, factor = match["stem"], match["part"], stacked[task]
        if stem.endswith("_embeddings"):
            key = Key(_native(stem), part.replace("lora_", "lora_embedding_"))
            found[str(key)] = factor.transposed()
        elif part == "lora_B":
            found |= {str(Key(module, part)): one for module, one in _modules(stem, factor)}
        else:  # what the fused layer takes in, all three of its parts take in
            found |= {str(Key(module, part)): factor for module in _names(stem)}
    return found


def _modules(stem: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The module of that name with its outputs; of a fused one the three, a third each."""
    names = _names(stem)
    rows = tensor.shape[0] // len(names)
    for at, name in enumerate(names):
        yield name, tensor[at * rows : (at + 1) * rows]


def _names(stem: str) -> tuple[str, ...]:
    native = _native(stem)
    if not _FUSED.search(native):
        return (native,)
    return tuple(_FUSED.sub(f"self_attn.{part}_proj", native) for part in _PARTS)


def _native(stem: str) -> str:
    """A module's name in transformers' class."""
    name = stem.removeprefix("roberta.")
    for pattern, form in _RENAMED:
        name = pattern.sub(form, name)
    return name
