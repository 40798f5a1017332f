"""Texts to token ids, in this process: a `Preparer` for every model whose input is text only.

A tokenizer is configured once, when it is loaded: one that never cuts, and one that cuts at the
model's context. Both are only read afterwards, so that any number of threads may use them. It is
called in batches, because a batch releases the interpreter lock and a single call does not.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
from tokenizers import Tokenizer, normalizers

from serving.errors import InvalidInput, ModelUnavailable, TokenLimitExceeded
from serving.models.checkpoints import Checkpoint, Facts
from serving.models.spec import ModelSpec
from serving.operators import declare
from serving.values import Job, Prepared, Text, Usage

__all__ = ["TextPreparer", "Tokenizers", "load"]

# Measured on one core of a Xeon with WordPiece: 0.46 us a character and 3 to 10 us a text, so that
# a job of this many characters takes at most 2 ms of the event loop.
_INLINE_CHARACTERS = 4000
_CHARACTERS_PER_TEXT = 16

# Their transformers classes build the normalizer from tokenizer_config.json, whatever
# tokenizer.json says.
_BERT_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MPNetTokenizer")
_VOCABULARIES = ("vocab.txt", "vocab.json", "*.model", "*.tiktoken", "tekken.json")


@dataclass(frozen=True, slots=True)
class Tokenizers:
    """A model's tokenizer twice: `whole` never cuts a text, `cutting` keeps the model's context.

    `filler` is the token that stands for a text without any, `special` the ids of special tokens.
    """

    whole: Tokenizer
    cutting: Tokenizer
    filler: int
    special: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Way:
    """What a task does: a prefix, the leading tokens that pooling leaves out, an adapter."""

    prefix: str = ""
    skip: int = 0
    adapter: str | None = None


class TextPreparer:
    """The `Preparer` of a text model. Small jobs run on the event loop, others in `threads`."""

    def __init__(self, spec: ModelSpec, tokenizers: Tokenizers, threads: int = 2) -> None:
        self._id = spec.id
        self._limit = spec.max_tokens
        self._tokenizers = tokenizers
        self._encode = tokenizers.whole.encode_batch_fast
        self._ways = _ways(spec, tokenizers)
        self._pool = ThreadPoolExecutor(threads, f"tokenize-{spec.id}")

    async def prepare(self, job: Job) -> Prepared:
        """Token ids and the usage of the job. Images are refused before they come here."""
        way = self._ways[job.task]
        items = cast("tuple[Text, ...]", job.items)
        texts = [way.prefix + item.text for item in items]
        if sum(map(len, texts)) + _CHARACTERS_PER_TEXT * len(texts) <= _INLINE_CHARACTERS:
            return self._prepared(job, texts, way)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._prepared, job, texts, way)

    def close(self) -> None:
        """End the threads; jobs that wait for one are dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _prepared(self, job: Job, texts: list[str], way: _Way) -> Prepared:
        ids = self._ids(texts, job.truncate)
        lengths = [len(one) for one in ids]
        tokens = sum(lengths)
        flat = ids[0] if len(ids) == 1 else list(chain.from_iterable(ids))
        return Prepared(
            ids=np.array(flat, np.int32),
            lengths=np.array(lengths, np.int32),
            usage=Usage(tokens),
            output=job.output,
            task=job.task,
            adapter=way.adapter,
            skip=way.skip,
            service_class=job.service_class,
        )

    def _ids(self, texts: list[str], truncate: bool) -> list[list[int]]:
        """The ids of each text, none of them empty or longer than the context."""
        try:
            ids = [encoding.ids for encoding in self._encode(texts)]
        except TypeError:
            raise _undecodable(texts) from None
        for index, one in enumerate(ids):
            if len(one) > self._limit:
                if not truncate:
                    raise self._too_long(index, len(one), len(ids))
                ids[index] = self._tokenizers.cutting.encode_batch_fast([texts[index]])[0].ids
            elif not one:
                ids[index] = [self._tokenizers.filler]
        return ids

    def _too_long(self, index: int, tokens: int, inputs: int) -> TokenLimitExceeded:
        field = _field(index, inputs)
        return TokenLimitExceeded(
            f"{'the input' if inputs == 1 else f'input {index}'} has {tokens} tokens;"
            f" {self._id} takes {self._limit} (set truncate: true to cut it)",
            field,
        )


def load(spec: ModelSpec) -> TextPreparer:
    """The preparer of a model, its tokenizer read from the checkpoint."""
    # Read by the tokenizers library at every batch: its own thread pool costs a short text more
    # than its encoding does, and long jobs have `threads` here.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    checkpoint = Checkpoint(Path(spec.path) / spec.transformer, spec.source, weights=False)
    described = checkpoint.json("tokenizer_config.json", optional=True)
    whole = _tokenizer(checkpoint, described)
    if spec.lowercase:
        whole.normalizer = normalizers.Sequence(
            [normalizers.Lowercase(), *([whole.normalizer] if whole.normalizer else [])]
        )
    side = described.text("truncation_side") or (whole.truncation or {}).get("direction", "right")
    whole.no_padding()
    whole.no_truncation()
    cutting = Tokenizer.from_str(whole.to_str())
    cutting.enable_truncation(spec.max_tokens, direction=side)
    added = whole.get_added_tokens_decoder()
    special = frozenset(index for index, token in added.items() if token.special)
    filler = _filler(checkpoint, described, whole)
    return TextPreparer(spec, Tokenizers(whole, cutting, filler, special))


def _field(index: int, inputs: int) -> str:
    return "input" if inputs == 1 else f"input.{index}"


def _undecodable(texts: Sequence[str]) -> InvalidInput:
    """Which text has a lone surrogate: it is no Unicode, and no tokenizer takes it."""
    for index, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            field = _field(index, len(texts))
            lone = f"a lone surrogate U+{ord(text[error.start]):04X}"
            return InvalidInput(f"{field} is no valid Unicode: it has {lone}", field)
    raise TypeError("the tokenizer takes no such input")


def _ways(spec: ModelSpec, tokenizers: Tokenizers) -> Mapping[str | None, _Way]:
    """What each task does, by the task's name; None is no task."""
    ways: dict[str | None, _Way] = {None: _Way()}
    for task in spec.tasks:
        skips = task.prompt and not spec.pooling.include_prompt
        skip = _skip(task.prompt, tokenizers) if skips else 0
        ways[task.name] = _Way(task.prompt, skip, task.adapter)
    return ways


def _skip(prompt: str, tokenizers: Tokenizers) -> int:
    """A prompt's tokens as sentence-transformers counts them: without a special one at the end."""
    ids = tokenizers.cutting.encode_batch_fast([prompt])[0].ids
    return len(ids) - (bool(ids) and ids[-1] in tokenizers.special)


def _tokenizer(checkpoint: Checkpoint, described: Facts) -> Tokenizer:
    """tokenizer.json, or what transformers makes of the files where that is something else."""
    if not checkpoint.has("tokenizer.json"):
        # Without a vocabulary, transformers makes a tokenizer that knows no word, and says nothing.
        if not any(True for name in _VOCABULARIES for _ in checkpoint.path.glob(name)):
            raise checkpoint.fault("has no tokenizer: neither tokenizer.json nor a vocabulary")
        return _by_transformers(checkpoint)
    try:
        tokenizer = Tokenizer.from_file(str(checkpoint.path / "tokenizer.json"))
    except Exception as error:  # the library raises bare Exceptions
        raise checkpoint.fault(f"has a tokenizer.json that cannot be read: {error}") from None
    return _by_transformers(checkpoint) if _contradicts(described, tokenizer) else tokenizer


def _contradicts(described: Facts, tokenizer: Tokenizer) -> bool:
    """Whether tokenizer_config.json asks for something that tokenizer.json does not do."""
    if described.flag("add_bos_token") or described.flag("add_eos_token"):
        return True
    lowers, strips = described.flag("do_lower_case"), described.flag("strip_accents")
    chinese = described.flag("tokenize_chinese_chars") is not False
    normalizer = tokenizer.normalizer
    if isinstance(normalizer, normalizers.BertNormalizer):
        asked = (lowers is not False, strips, chinese)
        done = (normalizer.lowercase, normalizer.strip_accents, normalizer.handle_chinese_chars)
        return asked != done
    if (described.text("tokenizer_class") or "").removesuffix("Fast") in _BERT_CLASSES:
        return True
    return lowers is not None and lowers != ("Lowercase" in repr(normalizer))


def _by_transformers(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer that transformers builds; imported here because most models do not need it."""
    declare()
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
    except Exception as error:  # a missing file, a missing library, remote code: all one to us
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise checkpoint.fault(f"has no tokenizer that can be read: {reason}") from None
    backend = getattr(loaded, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ModelUnavailable(
            f"{checkpoint.source} has a {type(loaded).__name__}, a tokenizer that is not supported"
        )
    return Tokenizer.from_str(backend.to_str())


def _filler(checkpoint: Checkpoint, described: Facts, tokenizer: Tokenizer) -> int:
    """The padding, end or unknown token, for a text that has no tokens: it gets a vector too."""
    mapped = checkpoint.json("special_tokens_map.json", optional=True)
    for name in ("pad_token", "eos_token", "unk_token"):
        for facts in (described, mapped):
            value = facts.values.get(name)
            token = value.get("content") if isinstance(value, dict) else value
            index = tokenizer.token_to_id(token) if isinstance(token, str) else None
            if index is not None:
                return index
    return 0
