"""The images of jina-embeddings-v4, and the layouts of its settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoProcessor

from serving.models.spec import MultiVector, Vision
from tests.serving.models.reading import Altered, rewrite, spec_of

VISION = Vision(
    prompt="<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image."
    "<|im_end|>\n",
    opening="<|im_start|>user\n",
    closing="<|im_end|>\n",
    start="<|vision_start|>",
    end="<|vision_end|>",
    pad="<|image_pad|>",
    patch=12,
    merge=2,
    temporal=2,
    min_pixels=2304,
    max_pixels=23040,
    mean=(0.48, 0.46, 0.41),
    std=(0.27, 0.26, 0.28),
)


def test_images_are_as_the_files_say(upstream: Path) -> None:
    spec = spec_of(upstream / "jina_v4")
    assert spec.vision == VISION
    assert spec.modalities == ("text", "image")
    assert spec.multi == MultiVector(20)


def test_an_operator_may_say_how_many_pixels_and_what_they_cost(upstream: Path) -> None:
    """Trap 11: the bound is one setting, and the checkpoint's only where none is said."""
    vision = spec_of(upstream / "jina_v4", max_pixels=20_000_000, image_token_multiplier=10).vision
    assert vision is not None
    assert (vision.max_pixels, vision.token_multiplier) == (20_000_000, 10)


def test_pixels_in_the_layout_of_transformers_5(altered: Altered) -> None:
    path = altered("jina_v4")
    size = {"shortest_edge": 2304, "longest_edge": 23040}
    rewrite(path, "preprocessor_config.json", min_pixels=None, max_pixels=None, size=size)
    assert spec_of(path).vision == VISION


def test_the_tokens_of_images_are_the_tokenizers(upstream: Path) -> None:
    path = Path(spec_of(upstream / "jina_v4").path)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    assert tokenizer.encode(VISION.prompt).ids.count(config.image_token_id) == 1
    assert tokenizer.token_to_id(VISION.start) == config.vision_start_token_id
    assert tokenizer.token_to_id(VISION.end) == config.vision_end_token_id


def test_the_processor_of_a_view_is_transformers_own(upstream: Path) -> None:
    processor = AutoProcessor.from_pretrained(
        spec_of(upstream / "jina_v4").path, trust_remote_code=False
    )
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
    assert processor.image_processor.patch_size == 12


@pytest.mark.parametrize("nested", [True, False])
def test_text_settings_are_in_a_text_config_or_beside_it(altered: Altered, nested: bool) -> None:
    path = altered("jina_v4")
    text = json.loads((path / "config.json").read_text())["text_config"]
    if nested:
        rewrite(path, "config.json", **dict.fromkeys(text.keys() - {"model_type"}))
    else:
        rewrite(path, "config.json", text_config=None)
    spec = spec_of(path)
    config = AutoConfig.from_pretrained(spec.path, trust_remote_code=False)
    assert (config.model_type, config.text_config.hidden_size) == ("qwen2_5_vl", 128)
    assert config.text_config.rope_parameters["mrope_section"] == [4, 6, 6]
    assert spec.dimensions == 128


def test_a_width_that_the_checkpoint_cuts_to(altered: Altered) -> None:
    path = altered("jina_v4")
    rewrite(path, "config.json", truncate_dim=32)
    assert spec_of(path).default_dimensions == 32
