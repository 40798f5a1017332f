"""Tiny models with adapters, projectors, heads and a vision tower, and the facts of each.

They lie on disk as a view does (see `serving.models.views`), so that an engine can be tried without
a family: transformers' base class loads the directory, and each adapter is in PEFT's layout. Every
head is 32 wide, and sizes are odd on purpose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import (
    EuroBertConfig,
    EuroBertModel,
    JinaEmbeddingsV3Config,
    JinaEmbeddingsV3Model,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLModel,
    Qwen3Config,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from serving.models.spec import (
    Adapter,
    Dense,
    ModelSpec,
    MultiVector,
    Pooling,
    SparseWeights,
    TaskSpec,
    Vision,
)

__all__ = ["END", "MAKERS", "PAD", "PROJECTOR", "START", "make", "tensors_of", "write_adapter"]

START, END, PAD = 288, 289, 290  # what stands before, after and for an image

PROJECTOR = "multi_vector_projector"
_DECODER = r"(?:q|k|v|o|gate|up|down)_proj"
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_IDENTITY = "torch.nn.modules.linear.Identity"


def make(name: str, folder: Path) -> ModelSpec:
    """Write the model `name` of `MAKERS` as `folder/name`; its facts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(name))
        return MAKERS[name](folder / name)


def write_adapter(
    path: Path, modules: Sequence[tuple[str, nn.Module]], rank: int = 3, alpha: int = 6
) -> Adapter:
    """A LoRA of random weights for those modules, by their names in the base class."""
    path.mkdir(parents=True)
    tensors: dict[str, torch.Tensor] = {}
    for name, module in modules:
        stem = f"base_model.model.{name}"
        if isinstance(module, nn.Embedding):
            tensors[f"{stem}.lora_embedding_A"] = torch.randn(rank, module.num_embeddings)
            tensors[f"{stem}.lora_embedding_B"] = torch.randn(module.embedding_dim, rank) * 0.1
        else:
            assert isinstance(module, nn.Linear)
            tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, module.in_features) * 0.1
            tensors[f"{stem}.lora_B.weight"] = torch.randn(module.out_features, rank) * 0.1
    save_file(tensors, path / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.1,
        "target_modules": "|".join(re.escape(name) for name, _ in modules),
    }
    (path / "adapter_config.json").write_text(json.dumps(config))
    return Adapter(path.name, str(path), rank)


def _adapted(model: nn.Module, path: Path, names: Sequence[str], wanted: str) -> list[Adapter]:
    """An adapter of each name for the modules whose name the pattern finds."""
    modules = [(name, one) for name, one in model.named_modules() if re.fullmatch(wanted, name)]
    return [write_adapter(path / "adapters" / name, modules) for name in names]


def _spec(
    name: str,
    path: Path,
    model: PreTrainedModel,
    adapters: Sequence[Adapter] = (),
    mode: Pooling | None = None,
    **facts: object,
) -> ModelSpec:
    """The facts of a model whose weights are saved under `path` by this."""
    model.save_pretrained(path)
    spec = {
        "dimensions": model.config.get_text_config().hidden_size,
        "max_tokens": model.config.get_text_config().max_position_embeddings,
        "tasks": tuple(TaskSpec(one.name, adapter=one.name) for one in adapters),
        "adapters": tuple(adapters),
        "pooling": mode or Pooling(),
        "matryoshka": (16,),
        "normalize": True,
    }
    return ModelSpec(name, "none", str(path), str(path), **{**spec, **facts})  # type: ignore[arg-type]


def _qwen_vl(path: Path) -> ModelSpec:
    """Like jina-embeddings-v4: Qwen2.5-VL, a projector, three adapters that change it too."""
    model = Qwen2_5_VLModel(
        Qwen2_5_VLConfig(
            text_config={
                "vocab_size": 300,
                "hidden_size": 96,
                "num_hidden_layers": 2,
                "num_attention_heads": 3,
                "num_key_value_heads": 1,
                "intermediate_size": 77,
                "max_position_embeddings": 512,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1e4,
                    "mrope_section": [4, 6, 6],
                },
                "initializer_range": 0.2,
                "pad_token_id": 0,
                "bos_token_id": 1,
                "eos_token_id": 2,
            },
            vision_config={
                "depth": 2,
                "hidden_size": 64,
                "num_heads": 2,
                "intermediate_size": 45,
                "out_hidden_size": 96,
                "patch_size": 14,
                "window_size": 56,
                "fullatt_block_indexes": [1],
                "initializer_range": 0.2,
            },
            vision_start_token_id=START,
            vision_end_token_id=END,
            image_token_id=PAD,
            video_token_id=PAD + 1,
        )
    )
    for norm in [one for name, one in model.named_modules() if name.endswith("norm")]:
        if isinstance(weight := getattr(norm, "weight", None), torch.Tensor):
            nn.init.uniform_(weight, 0.3, 2.0)  # else every token's state is equally long
    model.multi_vector_projector = nn.Linear(96, 20)
    wanted = rf"language_model\.layers\..*{_DECODER}|{PROJECTOR}"
    adapters = _adapted(model, path, ("retrieval", "text-matching", "code"), wanted)
    multi, vision = (
        MultiVector(20),
        Vision("", "", "", "", "", "", 14, 2, 2, 28 * 28, 28 * 28 * 64, _MEAN, _STD),
    )
    facts = {"multi": multi, "vision": vision, "modalities": ("text", "image")}
    _write_processor(path, vision)
    return _spec("qwen_vl", path, model, adapters, **facts, late_chunking=True)


def _write_processor(path: Path, vision: Vision) -> None:
    """The files beside the weights that vLLM reads for images: every token is a word."""
    words = {f"t{n}": n for n in range(300)}
    special = {"<|vision_start|>": START, "<|vision_end|>": END, "<|image_pad|>": PAD}
    special["<|video_pad|>"] = PAD + 1
    words = {word: n for word, n in words.items() if n not in special.values()} | special
    tokenizer = Tokenizer(WordLevel(words, unk_token="t0"))
    tokenizer.add_special_tokens([AddedToken(word) for word in special])
    tokenizer.save(str(path / "tokenizer.json"))
    image = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": vision.patch,
        "merge_size": vision.merge,
        "temporal_patch_size": vision.temporal,
        "min_pixels": vision.min_pixels,
        "max_pixels": vision.max_pixels,
        "image_mean": vision.mean,
        "image_std": vision.std,
    }
    (path / "preprocessor_config.json").write_text(json.dumps(image))
    classes = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "t0"}
    (path / "tokenizer_config.json").write_text(json.dumps(classes))


def _rotary(path: Path) -> ModelSpec:
    """Like jina-embeddings-v3: rotary XLM-R whose adapters change the embeddings as well."""
    model = JinaEmbeddingsV3Model(
        JinaEmbeddingsV3Config(
            vocab_size=300,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=85,
            max_position_embeddings=512,
            initializer_range=0.2,
        )
    )
    names = ("retrieval.query", "retrieval.passage", "separation")
    wanted = r".*(?:word_embeddings|token_type_embeddings|[qkvo]_proj|fc[12]|dense)"
    adapters = _adapted(model, path, names, wanted)
    return _spec("rotary", path, model, adapters, late_chunking=True)


def _last(path: Path, model: PreTrainedModel) -> ModelSpec:
    """Like jina-embeddings-v5: the last token's state, and two adapters."""
    adapters = _adapted(model, path, ("retrieval", "clustering"), rf"layers\..*{_DECODER}")
    return _spec(path.name, path, model, adapters, Pooling(("last",)))


def _qwen3(path: Path) -> ModelSpec:
    sizes = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    rope = {"rope_type": "default", "rope_theta": 3.5e6}
    config = Qwen3Config(
        vocab_size=300,
        hidden_size=80,
        num_hidden_layers=2,
        intermediate_size=101,
        max_position_embeddings=512,
        rope_parameters=rope,
        initializer_range=0.2,
        **sizes,
    )
    return _last(path, Qwen3Model(config))


def _eurobert(path: Path) -> ModelSpec:
    config = EuroBertConfig(
        vocab_size=300,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=101,
        max_position_embeddings=512,
        initializer_range=0.2,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=1,
        mask_token_id=2,
    )
    return _last(path, EuroBertModel(config))


def _heads(path: Path) -> ModelSpec:
    """Like bge-m3: the first token's state, and heads for multi-vectors and sparse weights."""
    model = XLMRobertaModel(
        XLMRobertaConfig(
            vocab_size=300,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=85,
            max_position_embeddings=514,
            type_vocab_size=1,
            initializer_range=0.2,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
        ),
        add_pooling_layer=False,
    )
    path.mkdir(parents=True)
    for name, width in (("colbert_linear.pt", 24), ("sparse_linear.pt", 1)):
        linear = nn.Linear(64, width)
        nn.init.normal_(linear.weight)
        torch.save(linear.state_dict(), path / name)
    multi = MultiVector(24, 1, Dense("", "colbert_linear.pt", 64, 24, True, _IDENTITY))
    sparse = SparseWeights(Dense("", "sparse_linear.pt", 64, 1, True, _IDENTITY), (0, 1, 2, 3))
    facts = {"multi": multi, "sparse": sparse, "max_tokens": 512}
    return _spec("heads", path, model, (), Pooling(("cls",)), **facts)


MAKERS = {
    "qwen_vl": _qwen_vl,
    "rotary": _rotary,
    "qwen3": _qwen3,
    "eurobert": _eurobert,
    "heads": _heads,
}


def tensors_of(adapter: Adapter) -> dict[str, torch.Tensor]:
    """An adapter's tensors, by the names in its file."""
    tensors: dict[str, torch.Tensor] = load_file(Path(adapter.path) / "adapter_model.safetensors")
    return tensors
