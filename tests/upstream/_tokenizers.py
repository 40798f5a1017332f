"""Tokenizers of upstream's kinds, made without a trainer: trainers break ties by chance."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

__all__ = ["byte_pairs", "template", "unigram", "write"]

TEXTS: tuple[str, ...] = (
    "A man is eating a piece of bread while the quick brown fox jumps over the lazy dog.",
    "Query: Passage: Document: Represent the query for retrieving evidence documents: ",
    "Instruct: Given a web search query, retrieve relevant passages that answer the query",
    "Describe the image. user system assistant Le café était fermé à l'aube.",
    "Der schnelle Fuchs springt über den faulen Hund; 今天天气很好，我们去公园散步。",
    "import numpy as np  # 3.14159, 2718, [0, 1, 2] Price: 12.50 € (was 15 €), 20% off",
)

_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {"qwen": _QWEN, "llama": _QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")}


def template(tokenizer: Tokenizer, form: str) -> processors.TemplateProcessing:
    """`<s> $A </s>` and the like, by the tokenizer's own ids."""
    words = [word for word in form.split() if word != "$A"]
    return processors.TemplateProcessing(
        single=form, special_tokens=[(word, tokenizer.token_to_id(word)) for word in words]
    )


def byte_pairs(
    split: str,
    merges: int,
    special: Sequence[str],
    texts: Sequence[str] = TEXTS,
    first: Sequence[str] = (),
) -> Tokenizer:
    """A byte-level BPE with that many merges, special tokens after its vocabulary and `first`."""
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLITS[split]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words = Counter(tuple(word) for text in texts for word, _ in splitter.pre_tokenize_str(text))
    vocabulary = [*first, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merged = _merges(words, merges)
    vocabulary += [left + right for left, right in merged]
    tokenizer = Tokenizer(
        models.BPE({piece: index for index, piece in enumerate(vocabulary)}, merged)
    )
    tokenizer.normalizer = normalizers.NFC() if split == "qwen" else None
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(word, normalized=False) for word in (*first, *special)]
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _merges(words: Counter[tuple[str, ...]], count: int) -> list[tuple[str, str]]:
    """The most frequent pair, again and again; of equally frequent ones the first by name."""
    merged: list[tuple[str, str]] = []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += times
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merged.append(best)
        joined: Counter[tuple[str, ...]] = Counter()
        for word, times in words.items():
            joined[_joined(word, best)] += times
        words = joined
    return merged


def _joined(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return tuple(out)


@cache
def _pieces(texts: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """Words and letters with the logarithm of their share, words first."""
    metaspace = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    words = Counter(word for text in texts for word, _ in metaspace.pre_tokenize_str(text))
    letters = Counter(letter for word in words for letter in word)
    counts = letters + Counter({word: times for word, times in words.items() if len(word) > 1})
    total = sum(counts.values())
    ranked = sorted(counts, key=lambda piece: (-len(piece), piece))
    return tuple((piece, math.log(counts[piece] / total)) for piece in ranked)


def unigram(texts: Sequence[str] = TEXTS) -> Tokenizer:
    """A Unigram as XLM-R's: `<s>`, `<pad>`, `</s>`, `<unk>` first, `<mask>` last."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*((word, 0.0) for word in special), *_pieces(tuple(texts)), ("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([*special, "<mask>"])
    tokenizer.post_processor = template(tokenizer, "<s> $A </s>")
    return tokenizer


def write(tokenizer: Tokenizer, path: Path, **config: object) -> None:
    """tokenizer.json and tokenizer_config.json."""
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
