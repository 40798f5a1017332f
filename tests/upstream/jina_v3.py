"""jina-embeddings-v3, in upstream's stacked layout and in that of its `-hf` port."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import JinaEmbeddingsV3Config, JinaEmbeddingsV3Model

from tests.upstream import _tokenizers, _weights

__all__ = ["FOLDERS", "TASKS", "write_port", "write_stacked"]

TASKS = ("retrieval.query", "retrieval.passage", "separation", "classification", "text-matching")
FOLDERS = tuple(re.sub(r"\W", "_", task) for task in TASKS)
_PROMPTS = (
    "Represent the query for retrieving evidence documents: ",
    "Represent the document for retrieval: ",
    "",
    "",
    "",
)
_RANK, _ALPHA = 3, 2
_WIDTHS = [8, 16, 32, 64]
_TARGETS = [
    "word_embeddings",
    "token_type_embeddings",
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "fc1",
    "fc2",
    "dense",
]


def _model() -> tuple[JinaEmbeddingsV3Model, dict[str, Tensor]]:
    config = JinaEmbeddingsV3Config(
        vocab_size=_tokenizers.unigram().get_vocab_size() + 3,
        hidden_size=64,
        num_attention_heads=2,
        num_hidden_layers=3,
        intermediate_size=85,
        max_position_embeddings=514,
        rope_parameters={"rope_type": "default", "rope_theta": 23000.0},
    )
    model = JinaEmbeddingsV3Model(config)
    return model, _weights.randomise(model)


def _write_tokenizer(path: Path) -> None:
    special = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    special |= {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    _tokenizers.write(
        _tokenizers.unigram(),
        path,
        tokenizer_class="XLMRobertaTokenizer",
        model_max_length=8194,
        **special,
    )
    (path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Tiny\n")


def write_stacked(path: Path) -> None:
    """Upstream's own layout: all adapters stacked among the weights, under XLM-R flash names."""
    model, weights = _model()
    named: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding) and not re.search("[kv]_proj$", name):
            named |= _stacked(name, weights)
        elif isinstance(module, nn.LayerNorm):
            stem = _flash(name)
            named |= {f"{stem}.{end}": weights[f"{name}.{end}"] for end in ("weight", "bias")}
    _weights.save(named, path / "model.safetensors")
    _weights.write_json(path / "config.json", _stacked_config(model.config))
    # As upstream's: a module of its own, not sentence-transformers'.
    listed = [{"idx": 0, "name": "transformer", "path": "", "type": "custom_st.Transformer"}]
    listed += [{"idx": 1, "name": "1", "path": "1_Pooling", "type": "models.Pooling"}]
    _weights.write_json(path / "modules.json", listed)
    pooling = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}
    _weights.write_json(path / "1_Pooling" / "config.json", pooling)
    (path / "custom_st.py").write_text("raise RuntimeError('remote code was run')\n")
    _write_tokenizer(path)


def _flash(name: str) -> str:
    """A name of the native class as XLM-R flash has it."""
    for pattern, form in (
        (r"^embeddings\.LayerNorm", "emb_ln"),
        (r"^layers", "encoder.layers"),
        (r"self_attn\.q_proj", "mixer.Wqkv"),
        (r"self_attn\.o_proj", "mixer.out_proj"),
        (r"post_attention_layernorm", "norm1"),
        (r"post_mlp_layernorm", "norm2"),
    ):
        name = re.sub(pattern, form, name)
    return f"roberta.{name}"


def _stacked(name: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A layer's weight, its bias and the stacked factors of its adapters."""
    names = [name]
    if name.endswith("q_proj"):
        names = [name.replace("q_proj", f"{one}_proj") for one in "qkv"]
    weight = torch.cat([weights[f"{one}.weight"] for one in names])
    stem = f"{_flash(name)}.parametrizations.weight"
    outputs, inputs = weight.shape
    downs, ups = zip(*(_weights.lora(_RANK, inputs, outputs) for _ in TASKS), strict=True)
    down, up = torch.stack(downs), torch.stack(ups)
    if "embeddings" in name:  # [vocabulary, rank] and [rank, hidden] where linear ones are crossed
        down, up = up, down
    found = {f"{stem}.original": weight, f"{stem}.0.lora_A": down, f"{stem}.0.lora_B": up}
    if f"{name}.bias" in weights:
        found[f"{_flash(name)}.bias"] = torch.cat([weights[f"{one}.bias"] for one in names])
    return found


def _stacked_config(config: JinaEmbeddingsV3Config) -> dict[str, object]:
    elsewhere = "jinaai/xlm-roberta-flash-implementation--"
    facts = _weights.settings(config, ("rope_theta", "rope_scaling"))
    return {
        **{key: value for key, value in facts.items() if not key.startswith("rope")},
        "architectures": ["XLMRobertaModel"],
        "auto_map": {
            "AutoConfig": f"{elsewhere}configuration_xlm_roberta.XLMRobertaFlashConfig",
            "AutoModel": f"{elsewhere}modeling_lora.XLMRobertaLoRA",
        },
        "model_type": "xlm-roberta",
        "emb_pooler": "mean",
        "load_trained_adapters": True,
        "lora_adaptations": list(TASKS),
        "lora_alpha": _ALPHA,
        "lora_dropout_p": 0.0,
        "lora_main_params_trainable": False,
        "lora_rank": _RANK,
        "matryoshka_dimensions": _WIDTHS,
        "position_embedding_type": "rotary",
        "rotary_emb_base": 23000.0,
        "task_instructions": dict(zip(TASKS, _PROMPTS, strict=True)),
        "torch_dtype": "bfloat16",
        "truncate_dim": None,
        "use_flash_attn": True,
    }


def write_port(path: Path) -> None:
    """The port: transformers' own names, and a folder in PEFT's layout for every adapter."""
    model, weights = _model()
    _weights.save(weights, path / "model.safetensors")
    config = model.config.to_dict()
    config |= {"architectures": ["JinaEmbeddingsV3Model"], "matryoshka_dimensions": _WIDTHS}
    _weights.write_json(path / "config.json", config)
    for folder in FOLDERS:
        tensors: dict[str, Tensor] = {}
        for name, module in model.named_modules():
            stem = f"base_model.model.{name}"
            if isinstance(module, nn.Embedding):
                down, up = _weights.lora(_RANK, module.num_embeddings, module.embedding_dim)
                tensors |= {f"{stem}.lora_embedding_A": down, f"{stem}.lora_embedding_B": up}
            elif isinstance(module, nn.Linear):
                down, up = _weights.lora(_RANK, module.in_features, module.out_features)
                tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
        _weights.save(tensors, path / folder / "adapter_model.safetensors")
        facts = _weights.adapter_config(_RANK, _ALPHA, _TARGETS)
        _weights.write_json(path / folder / "adapter_config.json", facts)
    _write_tokenizer(path)
