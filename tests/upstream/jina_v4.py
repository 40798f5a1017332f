"""jina-embeddings-v4 as upstream lays it out: one adapter file with three tasks, two shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel

from tests.upstream import _tokenizers, _weights

__all__ = ["SPECIAL", "TASKS", "Shape", "write"]

TASKS = ("retrieval", "text-matching", "code")
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_CHAT = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes that can be had: `text` and `vision` are settings of config.json in place of ours."""

    text: Mapping[str, object] = field(default_factory=dict)
    vision: Mapping[str, object] = field(default_factory=dict)
    mrope: tuple[int, int, int] = (4, 6, 6)
    patch: int = 12
    merge: int = 2
    rank: int = 4
    alpha: int = 6
    projected: int = 20


def write(path: Path, shape: Shape = Shape()) -> None:
    """Every file of the repository that a server could read."""
    tokenizer = _tokenizers.byte_pairs("qwen", 61, SPECIAL)
    ids = {word: tokenizer.token_to_id(word) for word in SPECIAL}
    config = _config(tokenizer.get_vocab_size() + 5, ids, shape)
    model = Qwen2_5_VLModel(config)
    model.multi_vector_projector = nn.Linear(config.text_config.hidden_size, shape.projected)
    _write_weights(path, _weights.randomise(model))
    _write_adapters(path / "adapters", model, shape)
    _write_config(path, config, ids, shape)
    _write_processor(path, shape)
    _tokenizers.write(
        tokenizer,
        path,
        tokenizer_class="Qwen2Tokenizer",
        processor_class="JinaEmbeddingsV4Processor",
        add_bos_token=False,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=131072,
        chat_template=_CHAT,
    )


def _config(vocabulary: int, ids: dict[str, int], shape: Shape) -> Qwen2_5_VLConfig:
    text = {
        "vocab_size": vocabulary,
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 108,
        "max_position_embeddings": 1400,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 31000.0,
            "mrope_section": list(shape.mrope),
        },
        "pad_token_id": None,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        **shape.text,
    }
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "num_heads": 2,
        "intermediate_size": 44,
        "out_hidden_size": 128,
        "patch_size": shape.patch,
        "spatial_merge_size": shape.merge,
        "temporal_patch_size": 2,
        "window_size": 48,
        "fullatt_block_indexes": [1],
        **shape.vision,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        tie_word_embeddings=True,
    )


def _write_config(path: Path, config: Qwen2_5_VLConfig, ids: dict[str, int], shape: Shape) -> None:
    """Text settings lie both in `text_config` and beside it, as in upstream's file."""
    text = _weights.settings(config.text_config, ("layer_types",))
    vision = _weights.settings(config.vision_config)
    top = {**text, "text_config": text, "vision_config": vision}
    own = {
        "architectures": ["JinaEmbeddingsV4Model"],
        "auto_map": {
            "AutoConfig": "configuration_jina_embeddings_v4.JinaEmbeddingsV4Config",
            "AutoModel": "modeling_jina_embeddings_v4.JinaEmbeddingsV4Model",
        },
        "model_type": "qwen2_5_vl",
        "single_vector_pool_strategy": "mean",
        "multi_vector_projector_dim": shape.projected,
        "matryoshka_dims": [config.text_config.hidden_size >> by for by in (3, 2, 1, 0)],
        "task_names": list(TASKS),
        "truncate_dim": None,
        "tie_word_embeddings": True,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "torch_dtype": "bfloat16",
        "transformers_version": "4.52.0",
    }
    _weights.write_json(path / "config.json", {**top, **own})


def _write_processor(path: Path, shape: Shape) -> None:
    area = (shape.patch * shape.merge) ** 2
    processor = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "JinaEmbeddingsV4Processor",
        "auto_map": {"AutoProcessor": "modeling_jina_embeddings_v4.JinaEmbeddingsV4Processor"},
        "patch_size": shape.patch,
        "merge_size": shape.merge,
        "temporal_patch_size": 2,
        "min_pixels": 4 * area,
        "max_pixels": 40 * area,
        "image_mean": [0.48, 0.46, 0.41],
        "image_std": [0.27, 0.26, 0.28],
    }
    _weights.write_json(path / "preprocessor_config.json", processor)


def _upstream(name: str) -> str:
    """A name of transformers' base class as transformers 4.52 saved it."""
    if name.startswith("language_model."):
        return f"model.{name.removeprefix('language_model.')}"
    return name


def _write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    named = {_upstream(name): tensor for name, tensor in weights.items()}
    files = [f"model-0000{at}-of-00002.safetensors" for at in (1, 2)]
    places = {name: files[at % 2] for at, name in enumerate(sorted(named))}
    for file in files:
        _weights.save({name: named[name] for name in named if places[name] == file}, path / file)
    size = sum(one.numel() * one.element_size() for one in named.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    _weights.write_json(path / "model.safetensors.index.json", index)


def _write_adapters(path: Path, model: nn.Module, shape: Shape) -> None:
    """Every task's factors in one file, the task's name inside the key."""
    tensors: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear) or name.startswith("visual"):
            continue
        stem = f"base_model.model.{_upstream(name)}"
        for task in TASKS:
            down, up = _weights.lora(shape.rank, module.in_features, module.out_features)
            tensors[f"{stem}.lora_A.{task}.weight"] = down
            tensors[f"{stem}.lora_B.{task}.weight"] = up
    _weights.save(tensors, path / "adapter_model.safetensors")
    targets = f"(.*(model).*({'|'.join(_LINEAR)}).*$|.*(multi_vector_projector).*$)"
    config = _weights.adapter_config(shape.rank, shape.alpha, targets)
    _weights.write_json(path / "adapter_config.json", config)
