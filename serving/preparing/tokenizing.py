"""A model's tokenizer, read from its checkpoint: the repository's own rules, and nobody else's.

It is configured once, when it is loaded: one that never cuts, and one that cuts at the model's
context. Both are only read afterwards, so that any number of threads may use them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, normalizers

from serving.errors import ModelUnavailable
from serving.models.checkpoints import Checkpoint, Facts
from serving.models.spec import ModelSpec
from serving.operators import declare

__all__ = ["Tokenizers", "read"]

# Their transformers classes build the normalizer from tokenizer_config.json, whatever
# tokenizer.json says.
_BERT_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MPNetTokenizer")
_VOCABULARIES = ("vocab.txt", "vocab.json", "*.model", "*.tiktoken", "tekken.json")


@dataclass(frozen=True, slots=True)
class Tokenizers:
    """A model's tokenizer three times.

    `whole` never cuts a text, `cutting` keeps the model's context; where the model's spec has
    `literal`, or images, both take a special token in a text for plain text. `parsing` is for our
    own prompts: it never cuts and knows special tokens. `filler` is the token that stands for a
    text without any, `special` the ids of special tokens.
    """

    whole: Tokenizer
    cutting: Tokenizer
    parsing: Tokenizer
    filler: int
    special: frozenset[int]


def read(spec: ModelSpec) -> Tokenizers:
    """The tokenizer of a model. Raises `ModelUnavailable` where it has none that can be read."""
    # Read by the tokenizers library at every batch: its own thread pool costs a short text more
    # than its encoding does, and long jobs have threads here.
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
    parsing = Tokenizer.from_str(whole.to_str())
    cutting = Tokenizer.from_str(whole.to_str())
    cutting.enable_truncation(spec.max_tokens, direction=side)
    if spec.literal or spec.vision:
        markers = [spec.vision.start, spec.vision.end, spec.vision.pad] if spec.vision else []
        for one in (whole, cutting):
            _take_literally(one, markers)
    added = whole.get_added_tokens_decoder()
    special = frozenset(index for index, token in added.items() if token.special)
    filler = _filler(checkpoint, described, whole)
    return Tokenizers(whole, cutting, parsing, filler, special)


def _take_literally(tokenizer: Tokenizer, markers: Sequence[str]) -> None:
    """Have special tokens in a text encoded as the plain text that they are.

    The placeholders of images are among them, whatever the checkpoint's own file calls them.
    """
    known = [marker for marker in markers if tokenizer.token_to_id(marker) is not None]
    tokenizer.add_special_tokens([AddedToken(marker, normalized=False) for marker in known])
    tokenizer.encode_special_tokens = True


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
