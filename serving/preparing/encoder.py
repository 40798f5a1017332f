"""Texts of one model to token ids, each with its task's prompt and within the context."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from serving.errors import InvalidInput, TokenLimitExceeded
from serving.models.spec import ModelSpec
from serving.preparing.tokenizing import Tokenizers

__all__ = ["INLINE_CHARACTERS", "Encoder", "Named", "Way", "characters", "undecodable"]

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


@dataclass(frozen=True, slots=True)
class Named:
    """What the texts of a list `field` are called in the request: by their `places`, if not all."""

    field: str = "input"
    places: Sequence[int] | None = None

    def __call__(self, index: int, texts: int) -> str:
        """The name of one of so many texts."""
        if self.places is not None:
            return f"{self.field}.{self.places[index]}"
        return self.field if texts == 1 else f"{self.field}.{index}"


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
        self._last = tokenizers.whole.get_vocab_size() - 1
        vision = spec.vision
        markers = (vision.start, vision.end, vision.pad) if vision else ()
        self._images = {tokenizers.whole.token_to_id(marker) for marker in markers}

    def ids(self, texts: Sequence[str], truncate: bool, named: Named = Named()) -> list[list[int]]:
        """The ids of each text, none of them empty or longer than the context.

        Raises `TokenLimitExceeded`, and `InvalidInput` for what is no Unicode.
        """
        try:
            ids = [encoding.ids for encoding in self._encode(texts)]
        except TypeError:
            raise undecodable(texts, named) from None
        for index, one in enumerate(ids):
            if len(one) > self.limit:
                if not truncate:
                    raise self.too_long(named(index, len(ids)), len(one))
                ids[index] = self.tokenizers.cutting.encode_batch_fast([texts[index]])[0].ids
            elif not one:
                ids[index] = [self.tokenizers.filler]
        return ids

    def bare(self, texts: Sequence[str], named: Named = Named()) -> list[list[int]]:
        """The ids of each text alone, which may be none: no prompt and no special token."""
        try:
            found = self.tokenizers.whole.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:
            raise undecodable(texts, named) from None
        return [encoding.ids for encoding in found]

    def shortened(self, texts: Sequence[str], most: int) -> tuple[list[str], list[int]]:
        """The texts cut to `most` tokens, and how many of those each of them has."""
        found = self.bare(texts)
        decode = self.tokenizers.parsing.decode
        cut = [
            decode(ids[:most], skip_special_tokens=False) if len(ids) > most else text
            for text, ids in zip(texts, found, strict=True)
        ]
        return cut, [min(len(ids), most) for ids in found]

    def parsed(self, text: str) -> list[int]:
        """The ids of words of ours, in which special tokens are tokens."""
        parsing = self.tokenizers.parsing
        ids: list[int] = parsing.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return ids

    def given(self, ids: Sequence[int], truncate: bool, field: str) -> Sequence[int]:
        """A caller's own ids, within the context; images have none that a caller could give.

        Raises `TokenLimitExceeded`, and `InvalidInput` for an id that the model does not know.
        """
        for one in ids:
            if not 0 <= one <= self._last or one in self._images:
                known = f"none of the 0 to {self._last} that texts of {self._id} have"
                raise InvalidInput(f"{field} has the token id {one}, {known}", field)
        if len(ids) > self.limit and not truncate:
            raise self.too_long(field, len(ids))
        return ids[: self.limit]

    def strings(
        self, ids: Sequence[int], lengths: Iterable[int], rows: bool
    ) -> tuple[tuple[str, ...], ...]:
        """The text of every token; `rows`: that has a row in its input's multi-vector."""
        skip = self._rows_skip if rows else 0
        known = list(set(ids))
        texts = self.tokenizers.parsing.decode_batch(
            [[one] for one in known], skip_special_tokens=False
        )
        text_of = dict(zip(known, texts, strict=True))
        found, start = [], 0
        for length in lengths:
            found.append(tuple(text_of[i] for i in ids[start + skip : start + length]))
            start += length
        return tuple(found)

    def too_long(self, field: str, tokens: int) -> TokenLimitExceeded:
        """That an input has more tokens than the model takes, to be raised."""
        named = field.replace(".", " ") if "." in field else f"the {field}"
        return TokenLimitExceeded(
            f"{named} has {tokens} tokens; {self._id} takes {self.limit}"
            " (set truncate: true to cut it)",
            field,
        )


def characters(texts: Sequence[str]) -> int:
    """What encoding them costs, in characters of one long text."""
    return sum(map(len, texts)) + _CHARACTERS_PER_TEXT * len(texts)


def undecodable(texts: Sequence[str], named: Named = Named()) -> InvalidInput:
    """Which text has a lone surrogate: it is no Unicode, and no tokenizer takes it."""
    for index, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            field = named(index, len(texts))
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
