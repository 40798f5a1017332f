"""Tiny checkpoints with random weights, laid out on disk exactly as upstream lays out real ones.

`build(name, folder)` writes one of `NAMES` under `folder` and gives its directory back. The weights
are seeded, the sizes are odd on purpose (so that a mixed-up axis shows), every head is 32 wide, and
`sentence_transformers.SentenceTransformer(path)` loads every one of them. A build takes 30 ms.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedModel,
    Qwen3Config,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from tests.upstream import _tokenizers

__all__ = ["NAMES", "SENTENCES", "build"]

SENTENCES: tuple[str, ...] = (
    "A man is eating a piece of bread.",
    "The quick brown fox jumps over the lazy dog, twice!",
    "Somebody plays the violin in a crowded street.",
    "Vectors of related sentences lie close to each other.",
    "Le café était fermé à l'aube ; nous sommes repartis.",
    "Der schnelle Fuchs springt über den faulen Hund.",
    "今天天气很好，我们去公园散步。",
    "search_query: how does a tokenizer work?",
    "import numpy as np  # 3.14159, 2718, [0, 1, 2]",
    "Price: 12.50 € (was 15 €), 20% off until 2031-01-07",
)

Names = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "lasttoken"]
Json = Mapping[str, object]

_OLD_KEYS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_OLD_TYPES = {
    kind: f"sentence_transformers.models.{kind}"
    for kind in ("Transformer", "Pooling", "Dense", "Normalize")
}
_NEW_TYPES = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}


@dataclass(frozen=True, slots=True)
class _Recipe:
    """One checkpoint: `new` writes it as sentence-transformers 5.4 and later does."""

    backbone: Literal["bert", "xlmr", "qwen3"] = "bert"
    modes: tuple[Names, ...] = ("mean",)
    include_prompt: bool = True
    dense: tuple[int, ...] = ()
    normalize: bool = True
    new: bool = False
    positions: int = 512
    max_seq_length: int | None = 48
    model_max_length: int = 512
    lowercase: bool = False
    config: Json = field(default_factory=dict)
    facts: Json = field(default_factory=dict)


_E5 = {"query": "query: ", "passage": "passage: "}

_RECIPES: dict[str, _Recipe] = {
    "bert_mean": _Recipe(),
    "bert_cls": _Recipe(modes=("cls",), new=True, max_seq_length=None, model_max_length=40),
    "bert_max": _Recipe(modes=("max",), normalize=False),
    "bert_sqrt": _Recipe(modes=("mean_sqrt_len_tokens",), normalize=False, lowercase=True),
    "bert_two_modes": _Recipe(modes=("cls", "mean"), normalize=False),
    "bert_two_modes_new": _Recipe(modes=("mean", "max"), new=True, max_seq_length=None),
    "bert_dense": _Recipe(dense=(40, 24)),
    "bert_skip_prompt": _Recipe(
        include_prompt=False, facts={"prompts": {"task": "Represent the sentence: ", "plain": ""}}
    ),
    "bert_matryoshka": _Recipe(config={"matryoshka_dimensions": [16, 32, 64, 96]}),
    "bert_long": _Recipe(positions=8300, max_seq_length=8192, model_max_length=8192),
    "xlmr_prompts": _Recipe("xlmr", positions=514, max_seq_length=None, facts={"prompts": _E5}),
    "xlmr_default_prompt": _Recipe(
        "xlmr",
        new=True,
        positions=514,
        max_seq_length=512,
        facts={"prompts": _E5, "default_prompt_name": "query", "truncate_dim": 32},
    ),
    "qwen3_last": _Recipe(
        "qwen3",
        modes=("lasttoken",),
        positions=700,
        max_seq_length=None,
        model_max_length=131072,
        facts={"prompts": {"query": "Instruct: find it\nQuery:", "document": ""}},
    ),
}

NAMES: tuple[str, ...] = tuple(_RECIPES)


def build(name: str, folder: Path) -> Path:
    """Write the checkpoint `name` as `folder/name`; its directory. `folder` may not exist yet."""
    recipe = _RECIPES[name]
    path = folder / name
    path.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1 + NAMES.index(name))
        width = _write_backbone(path, recipe)
        _write_modules(path, recipe, width)
    _write_tokenizer(path, recipe)
    _write(path / "config_sentence_transformers.json", {"__version__": {}, **recipe.facts})
    (path / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# Tiny\n")
    return path


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def _write_backbone(path: Path, recipe: _Recipe) -> int:
    """The backbone's config.json and model.safetensors; its hidden size."""
    model = _backbone(recipe)
    model.save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    _write(path / "config.json", {**config, **recipe.config})
    return int(config["hidden_size"])


def _backbone(recipe: _Recipe) -> PreTrainedModel:
    """A seeded model; `initializer_range` is wide so that different texts differ."""
    vocabulary = _tokenizer(recipe.backbone).get_vocab_size() + 3
    match recipe.backbone:
        case "bert":
            return BertModel(
                BertConfig(
                    vocab_size=vocabulary,
                    hidden_size=96,
                    num_attention_heads=3,
                    num_hidden_layers=2,
                    intermediate_size=77,
                    max_position_embeddings=recipe.positions,
                    initializer_range=0.2,
                )
            )
        case "xlmr":
            return XLMRobertaModel(
                XLMRobertaConfig(
                    vocab_size=vocabulary,
                    hidden_size=64,
                    num_attention_heads=2,
                    num_hidden_layers=3,
                    intermediate_size=85,
                    max_position_embeddings=recipe.positions,
                    type_vocab_size=1,
                    initializer_range=0.2,
                    pad_token_id=1,
                    bos_token_id=0,
                    eos_token_id=2,
                )
            )
        case "qwen3":
            return Qwen3Model(
                Qwen3Config(
                    vocab_size=vocabulary,
                    hidden_size=80,
                    num_attention_heads=4,
                    num_key_value_heads=2,
                    head_dim=32,
                    num_hidden_layers=3,
                    intermediate_size=101,
                    max_position_embeddings=recipe.positions,
                    initializer_range=0.2,
                )
            )


def _write_modules(path: Path, recipe: _Recipe, width: int) -> None:
    """modules.json, and the folder of each module after the backbone."""
    kinds = ["Transformer", "Pooling", *["Dense"] * len(recipe.dense)]
    kinds += ["Normalize"] * recipe.normalize
    types = _NEW_TYPES if recipe.new else _OLD_TYPES
    folders = ["" if not at else f"{at}_{kind}" for at, kind in enumerate(kinds)]
    _write(
        path / "modules.json",
        [
            {"idx": at, "name": str(at), "path": folders[at], "type": types[kind]}
            for at, kind in enumerate(kinds)
        ],
    )
    sentence_bert: dict[str, object] = {"do_lower_case": recipe.lowercase}
    if recipe.max_seq_length is not None:
        sentence_bert["max_seq_length"] = recipe.max_seq_length
    _write(path / "sentence_bert_config.json", sentence_bert)
    _write(path / folders[1] / "config.json", _pooling(recipe, width))
    inputs = width * len(recipe.modes)
    for at, outputs in enumerate(recipe.dense, start=2):
        _write_dense(path / folders[at], inputs, outputs, bias=at % 2 == 0)
        inputs = outputs


def _pooling(recipe: _Recipe, width: int) -> Json:
    """1_Pooling/config.json, as booleans or as `pooling_mode`."""
    if recipe.new:
        modes = recipe.modes[0] if len(recipe.modes) == 1 else list(recipe.modes)
        return {"embedding_dimension": width, "pooling_mode": modes, "include_prompt": True}
    flags: dict[str, object] = {key: mode in recipe.modes for mode, key in _OLD_KEYS.items()}
    return {
        "word_embedding_dimension": width,
        **flags,
        "include_prompt": recipe.include_prompt,
    }


def _write_dense(folder: Path, inputs: int, outputs: int, *, bias: bool) -> None:
    """A Dense module: Tanh with a bias, Identity without."""
    activation = "torch.nn.modules.activation.Tanh" if bias else "torch.nn.modules.linear.Identity"
    _write(
        folder / "config.json",
        {
            "in_features": inputs,
            "out_features": outputs,
            "bias": bias,
            "activation_function": activation,
        },
    )
    linear = torch.nn.Linear(inputs, outputs, bias=bias)
    weights = {f"linear.{name}": value.detach() for name, value in linear.named_parameters()}
    save_file(weights, folder / "model.safetensors")


def _write_tokenizer(path: Path, recipe: _Recipe) -> None:
    """tokenizer.json and tokenizer_config.json, with the padding and truncation upstream leaves."""
    tokenizer = Tokenizer.from_str(_tokenizer(recipe.backbone).to_str())
    if recipe.backbone == "bert":
        tokenizer.enable_truncation(20)  # all-MiniLM-L6-v2 ships both switched on
        tokenizer.enable_padding(length=20)
    tokenizer.save(str(path / "tokenizer.json"))
    config: dict[str, object] = {"model_max_length": recipe.model_max_length}
    match recipe.backbone:
        case "bert":
            config |= {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
        case "xlmr":
            config |= {"tokenizer_class": "XLMRobertaTokenizer"}
        case "qwen3":
            config |= {
                "tokenizer_class": "Qwen2Tokenizer",
                "add_bos_token": False,
                "pad_token": "<|endoftext|>",
                "eos_token": "<|im_end|>",
            }
    _write(path / "tokenizer_config.json", config)


@cache
def _tokenizer(kind: str) -> Tokenizer:
    """A tokenizer of the backbone's kind for `SENTENCES`. None is trained: trainers break ties by
    chance, and vectors would differ from run to run.
    """
    match kind:
        case "bert":
            return _wordpiece()
        case "xlmr":
            return _tokenizers.unigram(SENTENCES)
        case _:
            return _byte_pairs()


def _wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    split = tokenizer.pre_tokenizer.pre_tokenize_str
    words = sorted({word for sentence in SENTENCES for word, _ in split(sentence)})
    letters = sorted({letter for word in words for letter in word})
    pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *words])
    vocabulary = {piece: index for index, piece in enumerate(list(pieces)[:301])}
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = _tokenizers.template(tokenizer, "[CLS] $A [SEP]")
    return tokenizer


def _byte_pairs() -> Tokenizer:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = _tokenizers.byte_pairs("qwen", 88, (), SENTENCES, first=special)
    byte_level = processors.ByteLevel(trim_offsets=False)
    tokenizer.post_processor = processors.Sequence(
        [byte_level, _tokenizers.template(tokenizer, "$A <|endoftext|>")]
    )
    return tokenizer
