"""Qwen3-Reranker, jina-reranker-m0 and jina-reranker-v3 as upstream lays them out."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer
from torch import Tensor, nn
from transformers import Qwen2VLConfig, Qwen2VLModel, Qwen3Config, Qwen3Model

from tests.upstream import _tokenizers, _weights
from tests.upstream.jina_v4 import SPECIAL

__all__ = ["write_m0", "write_qwen3_reranker", "write_v3"]

_QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>")
_MARKS = ("<|score_token|>", "<|embed_token|>", "<|rerank_token|>")
_THINK = ("<think>", "</think>")
_TEXTS = (
    *_tokenizers.TEXTS,
    *("yes", "no") * 9,
    "I will provide you with passages, rank the passages based on their relevance to query",
    "Judge whether the Document meets the requirements based on the Query and the Instruct",
)


def _tokenizer(merges: int, special: tuple[str, ...]) -> Tokenizer:
    """With the tokens of thinking, which are added but not special."""
    tokenizer = _tokenizers.byte_pairs("qwen", merges, special, _TEXTS)
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in _THINK])
    return tokenizer


def _write_tokenizer(tokenizer: Tokenizer, path: Path, longest: int) -> None:
    _tokenizers.write(
        tokenizer,
        path,
        tokenizer_class="Qwen2Tokenizer",
        add_bos_token=False,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=longest,
    )


def _qwen3(tokenizer: Tokenizer, **sizes: object) -> Qwen3Config:
    settings: dict[str, object] = {
        "vocab_size": tokenizer.get_vocab_size() + 2,
        "hidden_size": 80,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 101,
        "max_position_embeddings": 700,
        "rope_parameters": {"rope_type": "default", "rope_theta": 23000.0},
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
    }
    return Qwen3Config(**{**settings, **sizes})


def _named(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


def write_qwen3_reranker(path: Path, tied: bool = True) -> None:
    """A causal language model and nothing else: what it is for is said in its card alone."""
    tokenizer = _tokenizer(67, _QWEN)
    config = _qwen3(tokenizer, tie_word_embeddings=tied)
    weights = _named("model.", _weights.randomise(Qwen3Model(config)))
    if not tied:
        weights["lm_head.weight"] = torch.randn_like(weights["model.embed_tokens.weight"])
    _weights.save(weights, path / "model.safetensors")
    facts = _weights.settings(config, ("layer_types",))
    facts |= {"architectures": ["Qwen3ForCausalLM"], "torch_dtype": "bfloat16"}
    _weights.write_json(path / "config.json", facts)
    _write_tokenizer(tokenizer, path, 131072)
    card = "---\nlicense: apache-2.0\nlibrary_name: transformers\npipeline_tag: text-ranking\n---\n"
    (path / "README.md").write_text(f"{card}# Tiny\n")


def write_v3(path: Path) -> None:
    """No output layer; a projector whose width is in upstream's code."""
    tokenizer = _tokenizer(53, (*_QWEN, *_MARKS))
    config = _qwen3(tokenizer, tie_word_embeddings=False, max_position_embeddings=4000)
    weights = _named("model.", _weights.randomise(Qwen3Model(config)))
    projector = nn.Sequential(
        nn.Linear(80, 40, bias=False), nn.ReLU(), nn.Linear(40, 512, bias=False)
    )
    weights |= _named("projector.", _weights.randomise(projector))
    _weights.save(weights, path / "model.safetensors")
    facts = _weights.settings(config, ("layer_types",))
    facts |= {
        "architectures": ["JinaForRanking"],
        "auto_map": {"AutoModel": "modeling.JinaForRanking"},
        "dtype": "bfloat16",
    }
    _weights.write_json(path / "config.json", facts)
    _write_tokenizer(tokenizer, path, 3600)
    (path / "modeling.py").write_text("raise RuntimeError('remote code was run')\n")
    (path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Tiny\n")


def write_m0(path: Path) -> None:
    """Settings of the text on top of config.json, a network on the last token as `score`."""
    tokenizer = _tokenizers.byte_pairs("qwen", 59, SPECIAL)
    ids = {word: tokenizer.token_to_id(word) for word in SPECIAL}
    text = {
        "vocab_size": tokenizer.get_vocab_size() + 5,
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 108,
        "max_position_embeddings": 1400,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 37000.0,
            "mrope_section": [4, 6, 6],
        },
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
    }
    vision = {
        "depth": 2,
        "embed_dim": 64,
        "hidden_size": 128,
        "num_heads": 2,
        "mlp_ratio": 3,
        "patch_size": 12,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    places = {
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
    }
    config = Qwen2VLConfig(text_config=text, vision_config=vision, **places)
    weights = _upstream(_weights.randomise(Qwen2VLModel(config)))
    score = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1))
    weights |= _named("score.", _weights.randomise(score))
    _weights.save(weights, path / "model.safetensors")
    own = {
        **_weights.settings(config.text_config, ("layer_types",)),
        **places,
        "vision_token_id": ids["<|vision_pad|>"],
        "vision_config": {**_weights.settings(config.vision_config), "in_chans": 3},
        "architectures": ["JinaVLForRanking"],
        "auto_map": {"AutoModel": "modeling.JinaVLForRanking"},
        "model_type": "qwen2_vl",
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }
    _weights.write_json(path / "config.json", own)
    processor = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "patch_size": 12,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "image_mean": [0.48, 0.46, 0.41],
        "image_std": [0.27, 0.26, 0.28],
    }
    _weights.write_json(path / "preprocessor_config.json", processor)
    _write_tokenizer(tokenizer, path, 32768)
    (path / "modeling.py").write_text("raise RuntimeError('remote code was run')\n")
    (path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Tiny\n")


def _upstream(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under the names of transformers before 4.52: `model.` for the text, `visual.` for images."""
    return {name.replace("language_model.", "model."): one for name, one in weights.items()}
