"""Expected scores of the tiny rerankers, from upstream's files and formulas, with none of our code.

Texts are tokenized by transformers' tokenizer as upstream's code does it, one input at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen2VLConfig,
    Qwen2VLModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

__all__ = ["blocks", "in_blocks", "in_one_prompt", "says_yes", "scores_pair"]

Array = npt.NDArray[Any]
Part = str | Array  # a text, or `[height, width, 3]` of the size that the model sees

_JUDGE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and"
    ' the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
_ANSWER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


@cache
def _tokenizer(path: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(path)


@torch.no_grad()
def says_yes(
    path: Path, query: str, document: str, longest: int, instruction: str = _INSTRUCTION
) -> float:
    """Qwen3-Reranker's card: the softmax of the last logits of `no` and `yes`, of yes."""
    tokenizer = _tokenizer(path)
    before, after = (tokenizer.encode(one, add_special_tokens=False) for one in (_JUDGE, _ANSWER))
    body = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
    ids = tokenizer.encode(body, add_special_tokens=False)[: longest - len(before) - len(after)]
    logits = _causal(path)(torch.tensor([before + ids + after])).logits[0, -1]
    two = [tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes")]
    return float(logits[two].double().softmax(0)[1])


@cache
def _causal(path: Path) -> nn.Module:
    config = AutoConfig.from_pretrained(path)
    return Qwen3ForCausalLM.from_pretrained(path, config=config, dtype=torch.float32).eval()


@torch.no_grad()
def scores_pair(path: Path, query: Part, document: Part) -> float:
    """jina-reranker-m0: sigmoid(score(last state) - 2.65), images as they are."""
    images = [part for part in (document, query) if not isinstance(part, str)]
    given: dict[str, Any] = {}
    if images:
        facts = json.loads((path / "preprocessor_config.json").read_text())
        keys = ("patch_size", "merge_size", "temporal_patch_size", "image_mean", "image_std")
        processor = Qwen2VLImageProcessorPil(**{key: facts[key] for key in keys}, do_resize=False)
        given = dict(processor(images, return_tensors="pt"))
    pads = [int(grid.prod()) // 4 for grid in given.get("image_grid_thw", [])]
    words = []
    for part in (document, query):
        if isinstance(part, str):
            words.append(part)
        else:
            words.append(f"<|vision_start|>{'<|image_pad|>' * pads.pop(0)}<|vision_end|>")
    tokenizer = _tokenizer(path)
    prompt = "**Document**:\n{}\n**Query**:\n{}".format(*words)
    row = torch.tensor([[*tokenizer(prompt)["input_ids"], 100]])
    pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    given |= {"input_ids": row, "attention_mask": torch.ones_like(row)}
    if images:
        given["mm_token_type_ids"] = (row == pad).int()
    model, score = _scorer(path)
    logit = score(model(**given).last_hidden_state[0, -1])
    return float(torch.sigmoid(logit.double() - 2.65))


@cache
def _scorer(path: Path) -> tuple[nn.Module, nn.Module]:
    values = json.loads((path / "config.json").read_text())
    dropped = ("auto_map", "architectures", "model_type", "torch_dtype")
    model = Qwen2VLModel(
        Qwen2VLConfig(**{key: one for key, one in values.items() if key not in dropped})
    )
    weights = _floats(path)
    score = _network(weights, "score")
    named = {re.sub("^model[.]", "language_model.", name): one for name, one in weights.items()}
    return _filled(model, named, "score"), score


@torch.no_grad()
def in_one_prompt(
    path: Path, query: str, documents: Sequence[str], instruction: str | None = None
) -> tuple[Array, Array]:
    """jina-reranker-v3: the query's projected vector and the documents', `[1 + documents, 512]`."""
    tokenizer = _tokenizer(path)
    passages = [
        f'<passage id="{at}">\n{text}<|embed_token|>\n</passage>'
        for at, text in enumerate(documents)
    ]
    told = f"<instruct>\n{instruction}\n</instruct>\n" if instruction else ""
    prompt = (
        "<|im_start|>system\nYou are a search relevance expert who can determine a ranking of the "
        "passages based on how relevant they are to the query. If the query is a question, how "
        "relevant a passage is depends on how well it answers the question. If not, try to analyze "
        "the intent of the query and assess how well each passage satisfies the intent. If an "
        "instruction is provided, you should follow the instruction when determining the ranking."
        f"<|im_end|>\n<|im_start|>user\nI will provide you with {len(documents)} passages, each "
        "indicated by a numerical identifier. Rank the passages based on their relevance to query: "
        f"{query}\n{told}" + "\n".join(passages) + f"\n<query>\n{query}<|rerank_token|>\n</query>"
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    ids = tokenizer(prompt)["input_ids"]
    model, projector = _listwise(path)
    projected = projector(model(torch.tensor([ids])).last_hidden_state[0]).numpy()
    marks = [tokenizer.convert_tokens_to_ids(f"<|{word}_token|>") for word in ("rerank", "embed")]
    at_query, at_documents = (np.flatnonzero(np.array(ids) == mark) for mark in marks)
    return projected[at_query[0]], projected[at_documents]


def blocks(
    path: Path, query: str, documents: Sequence[str], longest: int, most: int = 125
) -> list[list[str]]:
    """Which documents upstream puts into one prompt (`JinaForRanking.rerank`)."""
    tokenizer = _tokenizer(path)
    free = tokenizer.model_max_length - 2 * len(tokenizer(query)["input_ids"])
    found: list[list[str]] = []
    block, room = [], free
    for document in documents:
        block.append(document)
        room -= len(tokenizer(document)["input_ids"])
        if len(block) >= most or room <= longest:
            found.append(block)
            block, room = [], free
    return [*found, block] if block else found


def in_blocks(path: Path, query: str, blocks: Sequence[Sequence[str]]) -> Array:
    """The scores of documents in several prompts: cosines with a weighted mean of the queries."""
    read = [in_one_prompt(path, query, block) for block in blocks]
    weights = [((1 + _cosines(one, several)) / 2).max() for one, several in read]
    mean = np.average([one for one, _ in read], axis=0, weights=weights)
    return _cosines(mean, np.concatenate([several for _, several in read]))


def _cosines(one: Array, several: Array) -> Array:
    return several @ one / np.linalg.norm(one) / np.linalg.norm(several, axis=1)


@cache
def _listwise(path: Path) -> tuple[nn.Module, nn.Module]:
    values = json.loads((path / "config.json").read_text())
    dropped = ("auto_map", "architectures", "model_type", "dtype")
    model = Qwen3Model(
        Qwen3Config(**{key: one for key, one in values.items() if key not in dropped})
    )
    weights = _floats(path)
    projector = _network(weights, "projector")
    named = {name.removeprefix("model."): one for name, one in weights.items()}
    return _filled(model, named, "projector"), projector


def _floats(path: Path) -> dict[str, Tensor]:
    return {name: one.float() for name, one in load_file(path / "model.safetensors").items()}


def _network(weights: dict[str, Tensor], name: str) -> nn.Module:
    """Two layers with a ReLU between them."""
    own = {key.removeprefix(f"{name}."): w for key, w in weights.items() if key.startswith(name)}
    layers = [
        nn.Linear(*reversed(own[f"{at}.weight"].shape), bias=f"{at}.bias" in own) for at in (0, 2)
    ]
    network = nn.Sequential(layers[0], nn.ReLU(), layers[1]).eval()
    network.load_state_dict(own)
    return network


def _filled(model: nn.Module, weights: dict[str, Tensor], head: str) -> nn.Module:
    missing, unexpected = model.eval().load_state_dict(weights, strict=False)
    assert not missing
    assert all(name.startswith(head) for name in unexpected), unexpected
    return model
