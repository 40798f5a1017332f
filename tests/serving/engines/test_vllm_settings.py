"""What a vLLM engine is started with, which models it takes, and what reaches its processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from serving.engines import ENGINES, EngineOptions, open_engine
from serving.engines._calls import Rest
from serving.engines._vllm.arguments import arguments
from serving.engines._vllm.backbones import BACKBONES, read_config, refusal
from serving.engines._vllm.inputs import asked
from serving.engines._vllm.packing import Facts
from serving.engines._vllm.plugin import register
from serving.engines.vllm import load
from serving.errors import InvalidConfig
from serving.models.spec import Adapter, ModelSpec
from serving.values import Pixels, Prepared, Usage
from tests.adapted import MAKERS, make
from tests.vllm_engines import needs_vllm

GPU = EngineOptions(device="cuda")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSpec]:
    folder = tmp_path_factory.mktemp("models")
    return {name: make(name, folder) for name in MAKERS}


def settings(spec: ModelSpec, device: str = "cpu", **options: Any) -> dict[str, Any]:
    needs_vllm()
    backbone = BACKBONES[str(read_config(spec)["model_type"])]
    return arguments(spec, EngineOptions(**options), backbone, device, "float32")


@pytest.mark.parametrize("name", ["qwen_vl", "qwen3", "eurobert", "heads"])
def test_most_models_run(models: Mapping[str, ModelSpec], name: str) -> None:
    assert refusal(models[name]) is None


def test_a_model_that_vllm_cannot_run_is_refused_with_the_reason(
    models: Mapping[str, ModelSpec], tmp_path: Path
) -> None:
    assert "jina_embeddings_v3" in (refusal(models["rotary"]) or "")
    words = "base_model.model.embed_tokens.lora_embedding_A"
    save_file({words: torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    facts = {name: getattr(models["qwen3"], name) for name in ("dimensions", "max_tokens")}
    adapters = (Adapter("words", str(tmp_path), 1),)
    spec = ModelSpec("m", "f", models["qwen3"].path, "", adapters=adapters, **facts)
    reason = refusal(spec) or ""
    assert "cannot adapt embed_tokens" in reason and "the adapter words of m" in reason
    with pytest.raises(InvalidConfig, match="the torch engine runs it"):
        load(spec, EngineOptions())


def test_auto_is_vllm_on_a_gpu_for_the_models_it_runs_and_torch_elsewhere(
    models: Mapping[str, ModelSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[str] = []
    for name in ("torch", "vllm"):
        engine = ENGINES.load(name)
        monkeypatch.setattr(engine, "load", lambda *_, name=name: chosen.append(name))
    open_engine("auto", models["rotary"], GPU)
    open_engine("auto", models["qwen3"], EngineOptions(device="cpu"))
    assert chosen == ["torch", "torch"]
    needs_vllm()
    open_engine("auto", models["qwen3"], GPU)
    assert chosen[-1] == "vllm"


def test_a_causal_model_is_computed_in_chunks_and_one_that_looks_both_ways_whole(
    models: Mapping[str, ModelSpec],
) -> None:
    causal = settings(models["qwen_vl"], batch_tokens=100)
    assert causal["enable_chunked_prefill"] and causal["max_num_batched_tokens"] == 100
    whole = settings(models["eurobert"], batch_tokens=100)
    assert not whole["enable_chunked_prefill"] and whole["max_num_batched_tokens"] == 512
    assert settings(models["eurobert"], batch_tokens=900)["max_num_batched_tokens"] == 900
    assert whole["hf_overrides"]["is_causal"] is False


@pytest.mark.parametrize(
    ("name", "on"), [("qwen3", True), ("qwen_vl", False), ("eurobert", False), ("heads", False)]
)
def test_beginnings_are_kept_only_where_the_last_state_is_all(
    models: Mapping[str, ModelSpec], name: str, on: bool
) -> None:
    assert settings(models[name])["enable_prefix_caching"] is on


def test_every_adapter_has_a_place_in_one_step(models: Mapping[str, ModelSpec]) -> None:
    found = settings(models["qwen_vl"], device="cuda")
    assert (found["max_loras"], found["max_lora_rank"]) == (3, 8)  # the rank is 3
    assert "enable_lora" not in settings(models["heads"])


def test_images_are_neither_resized_nor_kept(models: Mapping[str, ModelSpec]) -> None:
    found = settings(models["qwen_vl"])
    vision = models["qwen_vl"].vision
    assert vision is not None
    assert found["mm_processor_kwargs"]["size"]["longest_edge"] == vision.max_pixels
    assert found["limit_mm_per_prompt"]["video"] == 0
    assert found["limit_mm_per_prompt"]["image"] >= 2


def test_vllms_own_options_pass_and_unknown_ones_are_refused_with_what_is_close(
    models: Mapping[str, ModelSpec],
) -> None:
    extra = {"gpu_memory_utilization": 0.3, "hf_overrides": {"mine": 1}, "max_num_seqs": 7}
    found = settings(models["qwen3"], extra=extra)
    assert found["gpu_memory_utilization"] == 0.3 and found["max_num_seqs"] == 7
    assert found["hf_overrides"]["mine"] == 1
    assert found["hf_overrides"]["architectures"] == ["PolyvecQwen3"]
    with pytest.raises(InvalidConfig, match=r"tensor_paralel_size.*tensor_parallel_size"):
        settings(models["qwen3"], extra={"tensor_paralel_size": 2})
    with pytest.raises(InvalidConfig, match="'runner' is for Polyvec"):
        settings(models["qwen3"], extra={"runner": "generate"})
    with pytest.raises(InvalidConfig, match=r"hf_overrides.*mapping"):
        settings(models["qwen3"], extra={"hf_overrides": 3})


@pytest.mark.parametrize(
    "extra",
    [
        {"enable_prefix_caching": True},
        {"enable_chunked_prefill": True},
        {"max_num_batched_tokens": 100},
    ],
)
def test_what_would_make_vectors_wrong_is_refused(
    models: Mapping[str, ModelSpec], extra: dict[str, Any]
) -> None:
    with pytest.raises(InvalidConfig, match="eurobert"):
        settings(models["eurobert"], extra=extra)


def test_a_device_that_this_build_does_not_have_is_refused(
    models: Mapping[str, ModelSpec],
) -> None:
    needs_vllm()
    if torch.version.cuda is not None:
        pytest.skip("this build of vLLM has it")
    with pytest.raises(InvalidConfig, match="runs on 'cpu'"):
        load(models["qwen3"], GPU)


def test_facts_are_the_same_after_the_journey(models: Mapping[str, ModelSpec]) -> None:
    for name in ("heads", "qwen_vl", "qwen3"):
        facts = Facts.of(models[name])
        assert Facts.unpacked(facts.packed()) == facts


def test_an_image_is_one_placeholder_on_its_way(models: Mapping[str, ModelSpec]) -> None:
    ids = np.array([5, 9, 9, 9, 9, 6, 9, 9, 7, 9, 9, 4], np.int32)
    black = np.zeros((28, 28, 3), np.uint8)
    pixels = (Pixels(1, 4, black), Pixels(9, 2, black))
    prepared = Prepared(ids, np.array([8, 4], np.int32), Usage(), pixels=pixels)
    first, second = asked(prepared, Rest(prepared, [8, 12]), [8, 12], 0, 0.0)
    assert first.prompt["prompt_token_ids"] == [5, 9, 6, 9, 9]
    assert second.prompt["prompt_token_ids"] == [7, 9, 4]
    assert first.ids == ids[:8].tolist()
    assert len(second.prompt["multi_modal_data"]["image"]) == 1


def test_vllm_knows_every_class_of_ours() -> None:
    needs_vllm()
    register()
    from vllm import ModelRegistry

    assert {one.architecture for one in BACKBONES.values()} <= set(
        ModelRegistry.get_supported_archs()
    )


def test_what_runs_at_a_process_start_hides_nothing(tmp_path: Path) -> None:
    from serving.engines._vllm import site

    (tmp_path / "sitecustomize.py").write_text("print('the other one')\n")
    folders = os.pathsep.join([str(Path(site.__file__).parent), str(tmp_path)])
    code = "import transformers.image_utils; print('ready')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": folders},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.split("\n")[:2]) == (0, ["the other one", "ready"])
