"""Checkpoints with something missing or broken fail when they are read, and say what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from serving.errors import InvalidConfig
from tests.serving.models.reading import Altered, change_tensors, refusal, rewrite, spec_of

WEIGHTS = "adapter_model.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"
ADAPTER = {
    "jina_v4": "adapters",
    "jina_v5_small": "adapters/clustering",
    "jina_v5_nano": "adapters/clustering",
    "jina_v3_hf": "separation",
}


@pytest.mark.parametrize(("name", "folder"), ADAPTER.items())
def test_an_adapter_that_is_missing(altered: Altered, name: str, folder: str) -> None:
    path = altered(name)
    (path / folder / WEIGHTS).unlink()
    assert refusal(path) == f"has no {folder}/{WEIGHTS}"
    assert spec_of(path, weights=False).adapters
    (path / folder / "adapter_config.json").unlink()
    assert refusal(path) == f"has no {folder}/adapter_config.json"


@pytest.mark.parametrize(("name", "folder"), ADAPTER.items())
def test_an_adapter_that_is_a_pointer_of_git_lfs(altered: Altered, name: str, folder: str) -> None:
    path = altered(name)
    (path / folder / WEIGHTS).write_text(POINTER)
    assert refusal(path) == (
        f"has a Git LFS pointer instead of {folder}/{WEIGHTS}; run `git lfs pull`"
    )


@pytest.mark.parametrize(("name", "folder"), ADAPTER.items())
def test_an_adapter_that_is_cut_short(altered: Altered, name: str, folder: str) -> None:
    path = altered(name)
    whole = (path / folder / WEIGHTS).read_bytes()
    (path / folder / WEIGHTS).write_bytes(whole[:-7])
    assert refusal(path) == f"has a {folder}/{WEIGHTS} that is cut short by 7 bytes"


@pytest.mark.parametrize(("name", "folder"), ADAPTER.items())
def test_a_factor_without_its_other(altered: Altered, name: str, folder: str) -> None:
    path = altered(name)
    lost: list[str] = []

    def drop(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        lost.append(next(key for key in sorted(found) if "lora_B" in key))
        return {key: one for key, one in found.items() if key not in lost}

    change_tensors(path / folder / WEIGHTS, drop)
    said = refusal(path)
    assert said.startswith("lacks ")
    assert f".lora_B.weight in {folder}/{WEIGHTS}" in said


@pytest.mark.parametrize(("name", "folder"), ADAPTER.items())
def test_a_rank_that_is_not_the_configs(altered: Altered, name: str, folder: str) -> None:
    path = altered(name)
    rewrite(path, f"{folder}/adapter_config.json", r=7)
    assert "which is not of rank 7" in refusal(path)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"use_dora": True}, "of the type DoRA"),
        ({"peft_type": "IA3"}, "of the type IA3"),
        ({"bias": "all"}, "with biases"),
        ({"rank_pattern": {"q_proj": 2}}, "with several ranks"),
        ({"alpha_pattern": {"q_proj": 2}}, "with several scales"),
    ],
)
def test_an_adapter_that_is_no_plain_lora(
    altered: Altered, values: dict[str, object], what: str
) -> None:
    path = altered("jina_v5_nano")
    file = "adapters/retrieval/adapter_config.json"
    rewrite(path, file, **values)
    assert refusal(path) == f"has an adapter {what} in {file}; supported is a plain LoRA"


def test_an_adapter_without_a_scale(altered: Altered) -> None:
    path = altered("jina_v4")
    rewrite(path, "adapters/adapter_config.json", lora_alpha=None)
    assert refusal(path) == "has a adapters/adapter_config.json that does not say r and lora_alpha"


# jina_v4


def test_a_task_of_v4_that_its_adapter_file_lacks(altered: Altered) -> None:
    path = altered("jina_v4")
    file = path / "adapters" / WEIGHTS
    change_tensors(file, lambda found: {k: v for k, v in found.items() if ".code." not in k})
    assert refusal(path) == f"has no adapter for the task 'code' in adapters/{WEIGHTS}"


def test_a_module_of_one_task_that_the_others_have(altered: Altered) -> None:
    path = altered("jina_v4")
    file = path / "adapters" / WEIGHTS
    change_tensors(
        file,
        lambda found: {
            k: v for k, v in found.items() if not ("projector" in k and ".retrieval." in k)
        },
    )
    assert refusal(path) == (
        f"lacks base_model.model.multi_vector_projector.lora_A.weight in adapters/{WEIGHTS}"
        " for the task 'retrieval'"
    )


def test_a_task_of_v4_that_its_config_does_not_name(altered: Altered) -> None:
    path = altered("jina_v4")
    rewrite(path, "config.json", task_names=["retrieval", "text-matching"])
    assert "has no adapter 'code', which its task code.query needs" in refusal(path)


def test_v4_without_its_projector(altered: Altered) -> None:
    path = altered("jina_v4")
    index = json.loads((path / "model.safetensors.index.json").read_text())
    kept = {k: v for k, v in index["weight_map"].items() if "projector" not in k}
    rewrite(path, "model.safetensors.index.json", weight_map=kept)
    assert refusal(path) == "has no multi_vector_projector.weight among its weights"


def test_a_projector_of_another_shape(altered: Altered) -> None:
    path = altered("jina_v4")
    rewrite(path, "config.json", multi_vector_projector_dim=19)
    said = refusal(path)
    assert said.startswith(
        "has the shape [20, 128] for multi_vector_projector.weight in model-0000"
    )
    assert said.endswith(", not [19, 128]")


def test_a_shard_that_is_missing(altered: Altered) -> None:
    path = altered("jina_v4")
    (path / "model-00002-of-00002.safetensors").unlink()
    assert refusal(path) == (
        "has 2 shards of weights, and model-00002-of-00002.safetensors is missing"
    )


def test_weights_of_v4_under_other_names(altered: Altered) -> None:
    path = altered("jina_v4")
    index = json.loads((path / "model.safetensors.index.json").read_text())
    weights = {**index["weight_map"], "base.norm.weight": "model-00001-of-00002.safetensors"}
    rewrite(path, "model.safetensors.index.json", weight_map=weights)
    assert refusal(path) == "has weights of another layout, base.norm.weight among them"


def test_a_shard_outside_the_checkpoint(altered: Altered) -> None:
    path = altered("jina_v4")
    (path.parent / "model.safetensors").touch()
    index = json.loads((path / "model.safetensors.index.json").read_text())
    weights = {**index["weight_map"], "model.x": "../model.safetensors"}
    rewrite(path, "model.safetensors.index.json", weight_map=weights)
    assert refusal(path) == "has a file '../model.safetensors' outside its own folder"


def test_an_adapter_whose_name_leads_elsewhere(altered: Altered) -> None:
    path = altered("jina_v4")
    rewrite(path, "config.json", task_names=["retrieval", "text-matching", "code", "../x"])
    assert refusal(path) == "has an adapter of the name '../x' in config.json"


def test_v4_without_the_settings_of_its_images(altered: Altered) -> None:
    path = altered("jina_v4")
    (path / "preprocessor_config.json").unlink()
    assert refusal(path) == "has no preprocessor_config.json"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"patch_size": 14}, "has another patch_size in preprocessor_config.json and config.json"),
        ({"merge_size": None}, "does not say merge_size"),
        ({"max_pixels": None}, "size in preprocessor_config.json"),
        ({"image_mean": [0.5]}, "should be three numbers, not [0.5]"),
    ],
)
def test_settings_of_images_that_cannot_be(
    altered: Altered, values: dict[str, object], said: str
) -> None:
    from serving.errors import ModelUnavailable

    path = altered("jina_v4")
    rewrite(path, "preprocessor_config.json", **values)
    with pytest.raises(ModelUnavailable) as caught:
        spec_of(path)
    assert said in caught.value.message


def test_pixels_below_the_least(upstream: Path) -> None:
    with pytest.raises(InvalidConfig) as caught:
        spec_of(upstream / "jina_v4", max_pixels=99)
    assert caught.value.message == "max_pixels of tiny is 99; its images have at least 2304"


# jina_v5_text


def test_v5_whose_weights_are_those_of_the_other_backbone(altered: Altered) -> None:
    path = altered("jina_v5_small")
    rewrite(path, "config.json", is_decoder=False)
    assert refusal(path) == "has the weights of Qwen3, and is_decoder of EuroBERT"
    path = altered("jina_v5_nano")
    rewrite(path, "config.json", is_decoder=None)
    assert refusal(path) == "has the weights of EuroBERT, and is_decoder of Qwen3"


def test_pickled_weights_where_others_are_needed(altered: Altered) -> None:
    path = altered("jina_v5_nano")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    assert refusal(path) == "has its weights in pytorch_model.bin; wanted is model.safetensors"


def test_a_size_that_is_missing(altered: Altered) -> None:
    from serving.errors import ModelUnavailable

    path = altered("jina_v5_nano")
    rewrite(path, "config.json", hidden_size=None)
    with pytest.raises(ModelUnavailable, match=r"config.json of .* does not say hidden_size"):
        spec_of(path)
    rewrite(path, "config.json", hidden_size=0)
    with pytest.raises(ModelUnavailable, match=r"should be above zero, not 0"):
        spec_of(path)


# jina_v3


def test_v3_without_adapters(altered: Altered) -> None:
    path = altered("jina_v3")
    change_tensors(
        path / "model.safetensors",
        lambda found: {k: v for k, v in found.items() if ".lora_" not in k},
    )
    assert refusal(path) == "has no adapters in model.safetensors"


def test_v3_with_fewer_adapters_than_tasks(altered: Altered) -> None:
    path = altered("jina_v3")
    change_tensors(
        path / "model.safetensors",
        lambda found: {k: v[:4] if ".lora_" in k else v for k, v in found.items()},
    )
    assert "of the shape [4, " in refusal(path)
    assert "its config.json has 5 lora_adaptations" in refusal(path)


# bge_m3


@pytest.mark.parametrize("head", ["colbert_linear.pt", "sparse_linear.pt"])
def test_a_head_that_is_missing_or_broken(altered: Altered, head: str) -> None:
    path = altered("bge_m3")
    (path / head).write_text(POINTER)
    assert refusal(path) == f"has a Git LFS pointer instead of {head}; run `git lfs pull`"
    (path / head).write_bytes(b"PK\x03\x04 nothing")
    assert refusal(path) == f"has a {head} that is not a file of torch.save"
    torch.save({"weight": torch.zeros(3, 65), "bias": torch.zeros(3)}, path / head)
    assert refusal(path) == f"has a {head} that is not a linear layer with 64 inputs"
    torch.save({"weight": torch.zeros(2, 64), "bias": torch.zeros(3)}, path / head)
    assert refusal(path) == f"has a {head} that is not a linear layer with 64 inputs"
    (path / head).unlink()
    assert refusal(path) == f"has no {head}"


def test_sparse_weights_of_two_kinds(altered: Altered) -> None:
    path = altered("bge_m3")
    torch.save({"weight": torch.zeros(2, 64)}, path / "sparse_linear.pt")
    assert refusal(path) == "has a sparse_linear.pt with 2 outputs; there is one weight"


# qwen3_embedding


def test_a_qwen3_embedding_that_is_pooled_in_another_way(altered: Altered) -> None:
    path = altered("qwen3_embedding")
    rewrite(path, "1_Pooling/config.json", pooling_mode="mean")
    assert refusal(path) == "is pooled by mean; a Qwen3-Embedding is by its last token"
