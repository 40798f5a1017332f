"""jina-embeddings-v5-text-small and -nano as upstream lays them out: a folder for every adapter."""

from __future__ import annotations

from pathlib import Path

from torch import nn
from transformers import EuroBertConfig, EuroBertModel, PreTrainedModel, Qwen3Config, Qwen3Model

from tests.upstream import _tokenizers, _weights

__all__ = ["TASKS", "write_nano", "write_small"]

TASKS = ("retrieval", "text-matching", "clustering", "classification")
_QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LLAMA = ("<|begin_of_text|>", "<|end_of_text|>", "<|mask|>")
_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_RANK, _ALPHA = 5, 10


def write_small(path: Path, **sizes: object) -> None:
    """Like -small: Qwen3, causal; its tokenizer appends nothing. `sizes` replace ours."""
    tokenizer = _tokenizers.byte_pairs("qwen", 47, _QWEN)
    settings: dict[str, object] = {
        "vocab_size": tokenizer.get_vocab_size() + 3,
        "hidden_size": 80,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "num_hidden_layers": 3,
        "intermediate_size": 101,
        "max_position_embeddings": 900,
        "rope_parameters": {"rope_type": "default", "rope_theta": 41000.0},
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|endoftext|>"),
    }
    config = Qwen3Config(**{**settings, **sizes})
    _write(path, Qwen3Model(config), "small", without=("layer_types",))
    _tokenizers.write(
        tokenizer,
        path,
        tokenizer_class="Qwen2Tokenizer",
        add_bos_token=False,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=131072,
    )


def write_nano(path: Path) -> None:
    """Like -nano: EuroBERT, which sees both ways; its tokenizer here appends an end of text."""
    tokenizer = _tokenizers.byte_pairs("llama", 53, _LLAMA)
    tokenizer.post_processor = _tokenizers.processors.Sequence(
        [tokenizer.post_processor, _tokenizers.template(tokenizer, "$A <|end_of_text|>")]
    )
    end = tokenizer.token_to_id("<|end_of_text|>")
    config = EuroBertConfig(
        vocab_size=tokenizer.get_vocab_size() + 4,
        hidden_size=96,
        num_attention_heads=3,
        num_key_value_heads=3,
        num_hidden_layers=2,
        intermediate_size=109,
        max_position_embeddings=640,
        rope_parameters={"rope_type": "default", "rope_theta": 29000.0},
        bos_token_id=tokenizer.token_to_id("<|begin_of_text|>"),
        eos_token_id=end,
        pad_token_id=end,
        mask_token_id=tokenizer.token_to_id("<|mask|>"),
    )
    _write(path, EuroBertModel(config), "nano", is_decoder=False)
    _tokenizers.write(
        tokenizer,
        path,
        tokenizer_class="PreTrainedTokenizerFast",
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        pad_token="<|end_of_text|>",
        mask_token="<|mask|>",
        model_max_length=640,
    )


def _write(
    path: Path,
    model: PreTrainedModel,
    kind: str,
    without: tuple[str, ...] = (),
    **more: object,
) -> None:
    """The weights have no `model.` before their names."""
    _weights.save(_weights.randomise(model), path / "model.safetensors")
    config = {
        **_weights.settings(model.config, without),
        "architectures": ["JinaEmbeddingsV5Model"],
        "auto_map": {
            "AutoConfig": "configuration_jina_embeddings_v5.JinaEmbeddingsV5Config",
            "AutoModel": "modeling_jina_embeddings_v5.JinaEmbeddingsV5Model",
        },
        "model_type": "jina_embeddings_v5",
        "task_names": list(TASKS),
        "dtype": "bfloat16",
        "transformers_version": "4.57.0",
        **more,
    }
    _weights.write_json(path / "config.json", config)
    for task in TASKS:
        _write_adapter(path / "adapters" / task, model)
    modules = ("transformer", "custom_st.Transformer"), ("1_Pooling", "models.Pooling")
    listed = [
        {"idx": at, "name": str(at), "path": folder if at else "", "type": kind}
        for at, (folder, kind) in enumerate(modules)
    ]
    _weights.write_json(path / "modules.json", listed)
    prompts = {"query": "Query: ", "document": "Document: "}
    facts = {"prompts": prompts, "default_prompt_name": "document", "similarity_fn_name": "cosine"}
    _weights.write_json(path / "config_sentence_transformers.json", facts)
    (path / "custom_st.py").write_text("raise RuntimeError('remote code was run')\n")
    (path / "README.md").write_text(f"---\nlicense: cc-by-nc-4.0\n---\n# {kind}\n")


def _write_adapter(path: Path, model: nn.Module) -> None:
    tensors = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            down, up = _weights.lora(_RANK, module.in_features, module.out_features)
            tensors[f"base_model.model.{name}.lora_A.weight"] = down
            tensors[f"base_model.model.{name}.lora_B.weight"] = up
    _weights.save(tensors, path / "adapter_model.safetensors")
    config = _weights.adapter_config(_RANK, _ALPHA, _LINEAR)
    _weights.write_json(path / "adapter_config.json", config)
