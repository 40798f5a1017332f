"""Adapters fit their model to the last tensor, or the model is not loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from serving.engines._backbone import load as load_backbone
from serving.engines._peft import Loras
from serving.errors import ModelUnavailable
from serving.models.spec import Adapter, ModelSpec, MultiVector
from serving.telemetry import SILENT
from serving.telemetry.engines import AdapterMetrics
from tests.adapted import make

CPU = torch.device("cpu")
Change = Callable[[Path], object]


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    """The adapter's file, changed."""

    def apply(path: Path) -> None:
        file = path / "adapter_model.safetensors"
        found = load_file(file)
        change(found)
        save_file(found, file)

    return apply


def config(**facts: object) -> Change:
    """The adapter's config, changed."""

    def apply(path: Path) -> None:
        file = path / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))

    return apply


def renamed(found: dict[str, torch.Tensor], old: str, new: str) -> None:
    found[new] = found.pop(old)


def a_key(part: str) -> str:
    return f"base_model.model.layers.1.mlp.up_proj.lora_{part}.weight"


ALIEN = "base_model.model.layers.9.mlp.up_proj.lora_A.weight"
NO_LORA = "base_model.model.layers.1.mlp.up_proj.bias"
BROKEN: dict[str, tuple[Change, str]] = {
    "without one half": (tensors(lambda f: f.pop(a_key("B"))), r"missing, layers\.1\.mlp\.up_proj"),
    "with a stranger": (
        tensors(lambda f: f.update({ALIEN: torch.zeros(3, 80)})),
        r"no place for 1 tensors, layers\.9",
    ),
    "with another name": (
        tensors(lambda f: renamed(f, a_key("A"), a_key("A").replace("up_", "off_"))),
        "no place",
    ),
    "with another prefix": (
        tensors(lambda f: renamed(f, a_key("A"), a_key("A").removeprefix("base_model."))),
        "does not begin with",
    ),
    "with a bias": (tensors(lambda f: f.update({NO_LORA: torch.zeros(1)})), "no part of a LoRA"),
    "of another width": (
        tensors(lambda f: f.update({a_key("A"): torch.zeros(3, 79)})),
        r"shape \[3, 79\], not \[3, 80\]",
    ),
    "of another rank": (config(r=5), "shape"),
    "for modules that are not there": (config(target_modules="nothing"), "nothing"),
    "of another kind": (
        lambda path: (path / "adapter_config.json").write_text('{"peft_type": "IA3"}'),
        "not a LoRA",
    ),
    "with DoRA": (config(use_dora=True), "DoRA"),
    "without its weights": (
        lambda path: (path / "adapter_model.safetensors").unlink(),
        "cannot be",
    ),
    "cut short": (
        lambda path: (path / "adapter_model.safetensors").write_bytes(b"version https://git-lfs"),
        "cannot be read",
    ),
    "without its config": (lambda path: (path / "adapter_config.json").unlink(), "adapter_config"),
}


@pytest.mark.parametrize("how", list(BROKEN))
def test_an_adapter_that_does_not_fit_is_refused_with_its_file(tmp_path: Path, how: str) -> None:
    spec = make("qwen3", tmp_path)
    change, reason = BROKEN[how]
    change(Path(spec.adapters[1].path))
    with pytest.raises(ModelUnavailable, match=reason) as raised:
        load_backbone(spec, torch.float32, CPU)
    assert spec.adapters[1].path in raised.value.message
    assert "\n" not in raised.value.message


def test_every_tensor_of_every_adapter_is_in_the_model(tmp_path: Path) -> None:
    spec = make("qwen_vl", tmp_path)
    model: Any = load_backbone(spec, torch.float32, CPU)._model
    inside = [one for name, one in model.named_parameters() if "lora" in name]
    files = [load_file(Path(one.path) / "adapter_model.safetensors") for one in spec.adapters]
    given = [tensor for file in files for tensor in file.values()]
    assert len(inside) == len(given) == 3 * 2 * 15
    for tensor in given:
        assert sum(torch.equal(tensor, one) for one in inside if one.shape == tensor.shape) == 1


def test_module_names_that_the_vision_tower_has_too_mean_the_language_model(tmp_path: Path) -> None:
    spec = make("qwen_vl", tmp_path)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    for one in spec.adapters:
        config(target_modules=[*names, "multi_vector_projector"])(Path(one.path))
    model: Any = load_backbone(spec, torch.float32, CPU)._model
    assert not any("lora" in name for name, _ in model.visual.named_parameters())
    assert any("lora" in name for name, _ in model.language_model.named_parameters())


def test_an_adapter_of_the_vision_tower_is_refused(tmp_path: Path) -> None:
    spec = make("qwen_vl", tmp_path)
    stranger = "base_model.model.visual.blocks.0.mlp.up_proj.lora_A.weight"
    tensors(lambda f: f.update({stranger: torch.zeros(3, 64)}))(Path(spec.adapters[0].path))
    with pytest.raises(ModelUnavailable, match="visual"):
        load_backbone(spec, torch.float32, CPU)


def test_the_pooler_of_an_adapter_is_left_out_with_the_models_own(tmp_path: Path) -> None:
    spec = make("rotary", tmp_path)
    file = load_file(Path(spec.adapters[0].path) / "adapter_model.safetensors")
    assert any(".pooler." in key for key in file)
    model: Any = load_backbone(spec, torch.float32, CPU)._model
    assert not any("pooler" in name for name, _ in model.named_parameters())


def test_adapters_are_in_the_number_type_of_their_model(tmp_path: Path) -> None:
    spec = make("rotary", tmp_path)
    model: Any = load_backbone(spec, torch.bfloat16, CPU)._model
    assert {one.dtype for one in model.parameters()} == {torch.bfloat16}


def test_a_row_for_an_adapter_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    spec = make("qwen3", tmp_path)
    loras = Loras(nn.ModuleDict(_layers(spec)), AdapterMetrics(SILENT, "m"))
    loras.exchange(None, spec.adapters[0])
    with pytest.raises(KeyError):
        loras.choose(["clustering"])


def _layers(spec: ModelSpec) -> dict[str, nn.Module]:
    model: Any = load_backbone(replace(spec, adapters=()), torch.float32, CPU)._model
    return {"layers": model.layers}


@pytest.mark.parametrize("layout", ["native", "upstream"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_projector_is_found_among_weights_of_either_layout(
    tmp_path: Path, layout: str, bias: bool
) -> None:
    spec = make("qwen_vl", tmp_path)
    file = Path(spec.path) / "model.safetensors"
    stored = load_file(file)
    if layout == "native":  # else as transformers saves it, and jina-embeddings-v4 has it
        stored = {_native(name): tensor for name, tensor in stored.items()}
        assert any(name.startswith("language_model.layers") for name in stored)
    if not bias:
        del stored["multi_vector_projector.bias"]
    save_file(stored, file, {"format": "pt"})
    model: Any = load_backbone(replace(spec, adapters=()), torch.float32, CPU)._model
    projector = model.multi_vector_projector
    assert torch.equal(projector.weight, stored["multi_vector_projector.weight"])
    assert bool(projector.bias.any()) is bias


def _native(name: str) -> str:
    if name.startswith(("visual.", "multi_vector", "language_model.")):
        return name
    return f"language_model.{name.removeprefix('model.')}"


def test_a_checkpoint_without_its_projector_is_refused(tmp_path: Path) -> None:
    spec = make("qwen_vl", tmp_path)
    file = Path(spec.path) / "model.safetensors"
    stored = {k: v for k, v in load_file(file).items() if not k.startswith("multi_vector")}
    save_file(stored, file, {"format": "pt"})
    with pytest.raises(ModelUnavailable, match="lacks 2 of its weights, multi_vector_projector"):
        load_backbone(replace(spec, adapters=()), torch.float32, CPU)


def test_a_projector_of_another_width_is_refused(tmp_path: Path) -> None:
    spec = replace(make("qwen_vl", tmp_path), multi=MultiVector(21))
    with pytest.raises(ModelUnavailable, match=r"projector.* \[20.*\], not \[21") as raised:
        load_backbone(spec, torch.float32, CPU)
    assert spec.path in raised.value.message


def test_an_adapter_without_a_folder_is_refused(tmp_path: Path) -> None:
    spec = make("qwen3", tmp_path)
    lost = Adapter("lost", str(tmp_path / "nowhere"), 3)
    with pytest.raises(ModelUnavailable, match=r"lost.*nowhere"):
        load_backbone(replace(spec, adapters=(lost,)), torch.float32, CPU)
