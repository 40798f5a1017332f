"""Pixels become the patches that transformers' own processor makes of an image of that size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from serving.engines._vision import patches
from serving.models.spec import ModelSpec, Vision
from serving.values import Pixels
from tests.adapted import make
from tests.serving.engines.harness import pixel_values

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return make("qwen_vl", tmp_path_factory.mktemp("models"))


def vision(spec: ModelSpec) -> Vision:
    assert spec.vision is not None
    return spec.vision


@pytest.mark.parametrize(("height", "width"), [(28, 28), (56, 140), (196, 84)])
def test_patches_are_those_of_transformers_bit_for_bit(
    spec: ModelSpec, height: int, width: int
) -> None:
    image = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    ours = patches(Pixels(0, 0, image), vision(spec), CPU)
    assert torch.equal(ours, pixel_values(spec, image)["pixel_values"])


def test_every_value_of_a_pixel_is_that_of_transformers_bit_for_bit(spec: ModelSpec) -> None:
    every = np.arange(28 * 28 * 3, dtype=np.uint32).reshape(28, 28, 3)
    image = (every // 3 % 256).astype(np.uint8)
    assert len(np.unique(image)) == 256
    ours = patches(Pixels(0, 0, image), vision(spec), CPU)
    assert torch.equal(ours, pixel_values(spec, image)["pixel_values"])


def test_the_sizes_are_those_of_the_checkpoint(spec: ModelSpec) -> None:
    other = replace(spec, vision=replace(vision(spec), patch=4, merge=3, temporal=1))
    image = np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8)
    ours = patches(Pixels(0, 0, image), vision(other), CPU)
    assert ours.shape == (54, 48)
    assert torch.equal(ours, pixel_values(other, image)["pixel_values"])


def test_an_image_out_of_shared_memory_may_be_read_only(spec: ModelSpec) -> None:
    image = np.zeros((28, 28, 3), np.uint8)
    image.setflags(write=False)
    assert patches(Pixels(0, 0, image), vision(spec), CPU).shape == (4, 3 * 2 * 14 * 14)


def test_a_checkpoint_of_one_patch_is_read_only_too(tmp_path: Path) -> None:
    tiny = Vision("", "", "", "", "", "", 2, 1, 1, 4, 4, (0.5,) * 3, (0.5,) * 3)
    image = np.zeros((2, 2, 3), np.uint8)
    image.setflags(write=False)
    assert patches(Pixels(0, 0, image), tiny, CPU).tolist() == [[-1.0] * 12]
