"""Views run by transformers and peft, against a reference that reads upstream's files by itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from serving.models.spec import ModelSpec
from tests.serving.models.reading import Altered, change_tensors, spec_of
from tests.upstream import jina_v3, jina_v4, jina_v5, reference

TASKS = {
    "jina_v4": jina_v4.TASKS,
    "jina_v5_small": jina_v5.TASKS,
    "jina_v5_nano": jina_v5.TASKS,
    "jina_v3": jina_v3.TASKS,
    "jina_v3_hf": jina_v3.TASKS,
}
TEXT = "Query: how does the fox jump over 2024 lazy dogs? 今天"


def network(spec: ModelSpec) -> PreTrainedModel:
    """The backbone as transformers loads it, with v4's projector among its layers."""
    model = AutoModel.from_pretrained(spec.path, dtype=torch.float32, trust_remote_code=False)
    if spec.multi is not None:
        weights = {}
        for file in Path(spec.path).glob("*.safetensors"):
            weights |= {key: one for key, one in load_file(file).items() if "projector" in key}
        model.multi_vector_projector = nn.Linear(spec.dimensions, spec.multi.dimensions)
        model.multi_vector_projector.weight.data = weights["multi_vector_projector.weight"].float()
        model.multi_vector_projector.bias.data = weights["multi_vector_projector.bias"].float()
    return model.eval()


def adapted(spec: ModelSpec, task: str | None) -> nn.Module:
    """The backbone with an adapter merged by peft."""
    model = network(spec)
    paths = {adapter.name: adapter.path for adapter in spec.adapters}
    if task is None:
        return model
    merged = PeftModel.from_pretrained(model, paths[task]).merge_and_unload()
    return merged.eval()


def compare(spec: ModelSpec, path: Path, task: str | None) -> None:
    ids = Tokenizer.from_file(f"{spec.path}/tokenizer.json").encode(TEXT).ids
    model = adapted(spec, task)
    with torch.no_grad():
        states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    expected = reference.states(path, ids, task)
    assert np.abs(reference.unit(states.numpy()) - reference.unit(expected)).max() <= 1e-6
    if spec.multi is not None:
        with torch.no_grad():
            multi = reference.unit(model.multi_vector_projector(states).numpy())
        assert np.abs(multi - reference.multi(path, ids, task)).max() <= 1e-6


@pytest.mark.parametrize(
    ("name", "task"), [(name, task) for name in TASKS for task in (None, *TASKS[name])]
)
def test_a_view_gives_upstreams_vectors(upstream: Path, name: str, task: str | None) -> None:
    compare(spec_of(upstream / name), upstream / name, task)


@pytest.mark.parametrize("name", TASKS)
def test_the_tasks_of_the_checkpoints_differ_visibly(upstream: Path, name: str) -> None:
    spec = spec_of(upstream / name)
    ids = Tokenizer.from_file(f"{spec.path}/tokenizer.json").encode(TEXT).ids
    vectors = np.stack([reference.dense(upstream / name, ids, task) for task in TASKS[name]])
    assert np.triu(vectors @ vectors.T, 1).max() < 0.95


def rope(spec: ModelSpec) -> float:
    config = AutoConfig.from_pretrained(spec.path, trust_remote_code=False).get_text_config()
    return float(config.rope_parameters["rope_theta"])


def test_the_rope_of_a_view_is_that_of_the_checkpoint(upstream: Path) -> None:
    """Trap 3."""
    assert rope(spec_of(upstream / "jina_v5_small")) == 41000
    assert rope(spec_of(upstream / "jina_v5_nano")) == 29000
    assert rope(spec_of(upstream / "jina_v4")) == 31000
    assert rope(spec_of(upstream / "jina_v3")) == rope(spec_of(upstream / "jina_v3_hf")) == 23000


def test_the_view_of_nano_says_that_it_sees_both_ways(upstream: Path) -> None:
    """Trap 4."""
    kinds = {}
    for size in ("nano", "small"):
        config = json.loads(
            Path(spec_of(upstream / f"jina_v5_{size}").path, "config.json").read_text()
        )
        kinds[size] = config["model_type"], config.get("is_causal")
    assert kinds == {"nano": ("eurobert", False), "small": ("qwen3", None)}


def test_an_adapter_is_beside_its_base_and_not_merged_into_it(upstream: Path) -> None:
    """Trap 5."""
    for name in TASKS:
        spec = spec_of(upstream / name)
        model = AutoModel.from_pretrained(spec.path)
        assert not any("lora" in key for key, _ in model.named_parameters())
        for adapter in spec.adapters:
            keys = load_file(f"{adapter.path}/adapter_model.safetensors")
            assert all(key.startswith("base_model.model.") for key in keys)


def test_no_view_leads_to_remote_code(upstream: Path) -> None:
    for name in TASKS:
        path = Path(spec_of(upstream / name).path)
        assert not list(path.rglob("*.py"))
        for file in path.rglob("*.json"):
            facts = json.loads(file.read_text())
            assert not {"auto_map", "processor_class"} & facts.keys()


def projector(spec: ModelSpec, task: str) -> torch.Tensor:
    path = {adapter.name: adapter.path for adapter in spec.adapters}[task]
    weights = load_file(f"{path}/adapter_model.safetensors")
    return weights["base_model.model.multi_vector_projector.lora_A.weight"]


def test_every_task_of_v4_has_the_factors_of_its_own_projector(upstream: Path) -> None:
    """Trap 17."""
    spec = spec_of(upstream / "jina_v4")
    stacked = load_file(upstream / "jina_v4" / "adapters" / "adapter_model.safetensors")
    for task in jina_v4.TASKS:
        [wanted] = [
            one for key, one in stacked.items() if key.endswith(f"projector.lora_A.{task}.weight")
        ]
        assert torch.equal(projector(spec, task), wanted)


def test_the_scale_of_an_adapter_is_alpha_by_rank(upstream: Path) -> None:
    """Traps 17 and 18."""
    for name, scale in (("jina_v4", 1.5), ("jina_v3", 2 / 3), ("jina_v5_nano", 2.0)):
        for adapter in spec_of(upstream / name).adapters:
            facts = json.loads(Path(adapter.path, "adapter_config.json").read_text())
            assert facts["lora_alpha"] / facts["r"] == scale
            assert adapter.rank == facts["r"]


def test_the_factors_of_v3s_embeddings_are_turned_and_those_of_its_layers_are_not(
    upstream: Path,
) -> None:
    """Trap 18."""
    spec = spec_of(upstream / "jina_v3")
    stacked = load_file(upstream / "jina_v3" / "model.safetensors")
    words = "roberta.embeddings.word_embeddings.parametrizations.weight.0"
    fused = "roberta.encoder.layers.1.mixer.Wqkv.parametrizations.weight.0"
    for at, adapter in enumerate(spec.adapters):
        mine = load_file(f"{adapter.path}/adapter_model.safetensors")
        stem = "base_model.model.embeddings.word_embeddings"
        assert torch.equal(mine[f"{stem}.lora_embedding_A"], stacked[f"{words}.lora_A"][at].T)
        assert torch.equal(mine[f"{stem}.lora_embedding_B"], stacked[f"{words}.lora_B"][at].T)
        for third, part in zip(stacked[f"{fused}.lora_B"][at].chunk(3), "qkv", strict=True):
            stem = f"base_model.model.layers.1.self_attn.{part}_proj"
            assert torch.equal(mine[f"{stem}.lora_A.weight"], stacked[f"{fused}.lora_A"][at])
            assert torch.equal(mine[f"{stem}.lora_B.weight"], third)


# Names that upstream might use as well


def test_v4_whose_adapters_are_named_as_later_releases_name_them(
    altered: Altered, upstream: Path
) -> None:
    path = altered("jina_v4")
    file = path / "adapters" / "adapter_model.safetensors"
    change_tensors(
        file,
        lambda found: {
            key.replace("model.model.layers", "model.model.language_model.layers").replace(
                "lora_A.", "lora_A.default."
            ): one
            for key, one in found.items()
        },
    )
    compare(spec_of(path), upstream / "jina_v4", "code")


@pytest.mark.parametrize(
    ("name", "prefix"), [("jina_v5_small", "model."), ("jina_v3_hf", "roberta.")]
)
def test_an_adapter_whose_modules_have_a_prefix(
    altered: Altered, upstream: Path, name: str, prefix: str
) -> None:
    path, stem = altered(name), "base_model.model."
    for file in path.rglob("adapter_model.safetensors"):
        change_tensors(
            file,
            lambda found: {key.replace(stem, stem + prefix): one for key, one in found.items()},
        )
    compare(spec_of(path), upstream / name, TASKS[name][1])
