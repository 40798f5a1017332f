"""Texts of one model to token ids, each with its task's prompt and within the context."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from serving.errors import InvalidInput, TokenLimitExceeded
from serving.models.spec import ModelSpec
from serving.preparing.tokenizing import Tokenizers

__all__ = ["INLINE_CHARACTERS", "Encoder", "Way", "characters", "field_of", "undecodable"]

# Measured on one core of a Xeon with WordPiece: 0.46 us a character and 3 to 10 us a text, so that
# a job of this many characters takes at most 2 ms of the event loop.
INLINE_CHARACTERS = 4000
_CHARACTERS_PER_TEXT = 16


@dataclass(frozen=True, slots=True)
class Way:
    """What a task does: a prefix, the leading tokens that pooling leaves out, an adapter."""

    prefix: str = ""
    skip: int = 0
    adapter: str | None = None


class Encoder:
    """The tokenizer of a model with its facts. Only read, so that any thread may use it.

    It is called in batches, because a batch releases the interpreter lock and a single call does
    not. `ways` is what each task does, by its name; None is no task.
    """

    def __init__(self, spec: ModelSpec, tokenizers: Tokenizers) -> None:
        self.tokenizers = tokenizers
        self.limit = spec.max_tokens
        self.ways: Mapping[str | None, Way] = _ways(spec, tokenizers)
        self._id = spec.id
        self._encode = tokenizers.whole.encode_batch_fast
        self._rows_skip = spec.multi.skip if spec.multi else 0

    def ids(
        self, texts: Sequence[str], truncate: bool, places: Sequence[int] | None = None
    ) -> list[list[int]]:
        """The ids of each text, none of them empty or longer than the context.

        `places` are the texts' in the request, where it has other items too. Raises
        `TokenLimitExceeded`, and `InvalidInput` for what is no Unicode.
        """
        try:
            ids = [encoding.ids for encoding in self._encode(texts)]
        except TypeError:
            raise undecodable(texts, places) from None
        for index, one in enumerate(ids):
            if len(one) > self.limit:
                if not truncate:
                    raise self._too_long(index, len(one), len(ids), places)
                ids[index] = self.tokenizers.cutting.encode_batch_fast([texts[index]])[0].ids
            elif not one:
                ids[index] = [self.tokenizers.filler]
        return ids

    def bare(self, texts: Sequence[str], places: Sequence[int]) -> list[list[int]]:
        """The ids of each text alone, which may be none: no prompt and no special token."""
        try:
            found = self.tokenizers.whole.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:
            raise undecodable(texts, places) from None
        return [encoding.ids for encoding in found]

    def strings(self, ids: Sequence[int], lengths: Iterable[int]) -> tuple[tuple[str, ...], ...]:
        """The text of every token that has a row in its input's multi-vector."""
        known = list(set(ids))
        texts = self.tokenizers.parsing.decode_batch(
            [[one] for one in known], skip_special_tokens=False
        )
        text_of = dict(zip(known, texts, strict=True))
        rows, start = [], 0
        for length in lengths:
            rows.append(tuple(text_of[i] for i in ids[start + self._rows_skip : start + length]))
            start += length
        return tuple(rows)

    def _too_long(
        self, index: int, tokens: int, inputs: int, places: Sequence[int] | None
    ) -> TokenLimitExceeded:
        field = field_of(index, inputs, places)
        named = "the input" if field == "input" else field.replace(".", " ")
        return TokenLimitExceeded(
            f"{named} has {tokens} tokens; {self._id} takes {self.limit}"
            " (set truncate: true to cut it)",
            field,
        )


def characters(texts: Sequence[str]) -> int:
    """What encoding them costs, in characters of one long text."""
    return sum(map(len, texts)) + _CHARACTERS_PER_TEXT * len(texts)


def field_of(index: int, inputs: int, places: Sequence[int] | None = None) -> str:
    """The name of a text's field in the request."""
    if places is not None:
        return f"input.{places[index]}"
    return "input" if inputs == 1 else f"input.{index}"


def undecodable(texts: Sequence[str], places: Sequence[int] | None = None) -> InvalidInput:
    """Which text has a lone surrogate: it is no Unicode, and no tokenizer takes it."""
    for index, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            field = field_of(index, len(texts), places)
            lone = f"a lone surrogate U+{ord(text[error.start]):04X}"
            return InvalidInput(f"{field} is no valid Unicode: it has {lone}", field)
    raise TypeError("the tokenizer takes no such input")


def _ways(spec: ModelSpec, tokenizers: Tokenizers) -> Mapping[str | None, Way]:
    ways: dict[str | None, Way] = {None: Way()}
    for task in spec.tasks:
        skips = task.prompt and not spec.pooling.include_prompt
        skip = _skip(task.prompt, tokenizers) if skips else 0
        ways[task.name] = Way(task.prompt, skip, task.adapter)
    return ways


def _skip(prompt: str, tokenizers: Tokenizers) -> int:
    """A prompt's tokens as sentence-transformers counts them: without a special one at the end."""
    ids = tokenizers.cutting.encode_batch_fast([prompt])[0].ids
    return len(ids) - (bool(ids) and ids[-1] in tokenizers.special)
