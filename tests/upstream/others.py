"""Qwen3-Embedding and bge-m3 as upstream lays them out."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import Qwen3Config, Qwen3Model, XLMRobertaConfig, XLMRobertaModel

from tests.upstream import _tokenizers, _weights

__all__ = ["write_bge_m3", "write_qwen3_embedding"]

_QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>")
_INSTRUCT = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
)
_PACKAGE = "sentence_transformers.models"


def _write_modules(path: Path, pooling: dict[str, object]) -> None:
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    modules = [
        {"idx": at, "name": str(at), "path": folder, "type": f"{_PACKAGE}.{kind}"}
        for at, (kind, folder) in enumerate(kinds)
    ]
    _weights.write_json(path / "modules.json", modules)
    _weights.write_json(path / "1_Pooling" / "config.json", pooling)


def write_qwen3_embedding(path: Path) -> None:
    """Its tokenizer appends `<|endoftext|>`, which is neither its first nor its eos token."""
    tokenizer = _tokenizers.byte_pairs("qwen", 71, _QWEN)
    tokenizer.post_processor = _tokenizers.processors.Sequence(
        [tokenizer.post_processor, _tokenizers.template(tokenizer, "$A <|endoftext|>")]
    )
    config = Qwen3Config(
        vocab_size=tokenizer.get_vocab_size() + 2,
        hidden_size=80,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        num_hidden_layers=2,
        intermediate_size=101,
        max_position_embeddings=700,
        rope_parameters={"rope_type": "default", "rope_theta": 19000.0},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id("<|endoftext|>"),
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
    )
    model = Qwen3Model(config)
    _weights.save(_weights.randomise(model), path / "model.safetensors")
    facts = _weights.settings(config, ("layer_types",))
    facts |= {"architectures": ["Qwen3ForCausalLM"], "torch_dtype": "bfloat16"}
    _weights.write_json(path / "config.json", facts)
    flags = ("cls", "mean", "max", "mean_sqrt_len", "weightedmean")
    pooling: dict[str, object] = {f"pooling_mode_{flag}_tokens": False for flag in flags}
    pooling |= {"pooling_mode_lasttoken": True, "include_prompt": True}
    _write_modules(path, {"word_embedding_dimension": 80, **pooling})
    prompts = {"query": _INSTRUCT, "document": ""}
    own = {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    _weights.write_json(path / "config_sentence_transformers.json", own)
    _tokenizers.write(
        tokenizer,
        path,
        tokenizer_class="Qwen2Tokenizer",
        add_bos_token=False,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=131072,
    )
    (path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")


def write_bge_m3(path: Path) -> None:
    """Pickled weights, and two heads beside them."""
    tokenizer = _tokenizers.unigram()
    config = XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size() + 4,
        hidden_size=64,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=85,
        max_position_embeddings=434,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    model = XLMRobertaModel(config)
    weights = {name: one.float() for name, one in _weights.randomise(model).items()}
    torch.save(weights, path / "pytorch_model.bin")
    facts = _weights.settings(config)
    facts |= {"architectures": ["XLMRobertaModel"], "torch_dtype": "float32"}
    _weights.write_json(path / "config.json", facts)
    for name, width in (("colbert_linear.pt", 24), ("sparse_linear.pt", 1)):
        head = nn.Linear(64, width).state_dict()
        torch.save({key: torch.randn_like(one) / 8 for key, one in head.items()}, path / name)
    flags: dict[str, object] = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    _write_modules(path, {"word_embedding_dimension": 64, **flags})
    _weights.write_json(path / "sentence_bert_config.json", {"max_seq_length": 432})
    special = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    special |= {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    _tokenizers.write(
        tokenizer, path, tokenizer_class="XLMRobertaTokenizer", model_max_length=432, **special
    )
    (path / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
