"""What the families on a Qwen-VL backbone read alike: its images, and its config."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from serving.errors import InvalidConfig, ModelUnavailable
from serving.models.catalog import Entry
from serving.models.checkpoints import Checkpoint, Facts
from serving.models.spec import Vision
from serving.models.views import write_json

__all__ = ["PLACEHOLDER", "Frame", "read_vision", "write_config"]

_START, _END, _PAD = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"
_TOP = ("text_config", "vision_config", "tie_word_embeddings", "dtype", "torch_dtype")

PLACEHOLDER = f"{_START}{_PAD}{_END}"
"""An image, as a prompt has it."""


class Frame(NamedTuple):
    """What stands around images; see `Vision`."""

    prompt: str = PLACEHOLDER
    opening: str = ""
    closing: str = ""


def read_vision(
    checkpoint: Checkpoint,
    config: Facts,
    entry: Entry,
    frame: Frame,
    pixels: tuple[int, int] | None = None,
) -> Vision:
    """preprocessor_config.json, of today's layout (`size`) or that of transformers before 5.

    `pixels` are the least and the most of an image, for a model whose code sets them.
    """
    facts = checkpoint.json("preprocessor_config.json")
    size = facts.inner("size")
    if pixels is None:
        pixels = (
            facts.whole("min_pixels") or size.required("shortest_edge"),
            facts.whole("max_pixels") or size.required("longest_edge"),
        )
    least, most = pixels
    if entry.max_pixels is not None:
        most = entry.max_pixels
    if most < least:
        raise InvalidConfig(f"max_pixels of {entry.id} is {most}; its images have at least {least}")
    patch = facts.required("patch_size")
    if patch != config.inner("vision_config").required("patch_size"):
        raise checkpoint.fault("has another patch_size in preprocessor_config.json and config.json")
    return Vision(
        prompt=frame.prompt,
        opening=frame.opening,
        closing=frame.closing,
        start=_START,
        end=_END,
        pad=_PAD,
        patch=patch,
        merge=facts.required("merge_size"),
        temporal=facts.required("temporal_patch_size"),
        min_pixels=least,
        max_pixels=most,
        mean=_colours(facts, "image_mean"),
        std=_colours(facts, "image_std"),
        token_multiplier=entry.image_token_multiplier or 1,
    )


def _colours(facts: Facts, key: str) -> tuple[float, float, float]:
    value = facts.values.get(key)
    numbers = value if isinstance(value, list) else []
    if len(numbers) != 3 or not all(isinstance(one, int | float) for one in numbers):
        raise ModelUnavailable(f"{key} in {facts.name} should be three numbers, not {value!r}")
    red, green, blue = numbers
    return float(red), float(green), float(blue)


def write_config(config: Facts, view: Path, model_type: str, architecture: str) -> None:
    """Upstream has the text's settings on top, or there too; here `text_config` alone has them."""
    values = dict(config.values)
    if "text_config" not in config:
        values["text_config"] = {key: values[key] for key in values if key not in _TOP}
    kept = {key: values[key] for key in values if key in _TOP or key.endswith("_token_id")}
    own = {"model_type": model_type, "architectures": [architecture]}
    write_json(view / "config.json", {**kept, **own})
