"""Late chunking: which tokens are a chunk's, and windows that give the same as one long pass."""

from __future__ import annotations

import asyncio
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers, processors

from serving.errors import InvalidInput
from serving.media import MediaOptions
from serving.models.spec import ModelSpec, Pooling, TaskSpec
from serving.preparing import open_preparer
from serving.preparing.late import chunk_spans, pieces, windows
from serving.values import Job, Prepared, Text, Usage
from tests.upstream import _tokenizers

CHUNKS = (
    ["A man is eating ", "a piece of bread. ", "The quick brown fox"],
    ["Le café était", " fermé à l'aube ; ", "nous sommes"],
    ["今天天气", "很好，", "我们去公园散步。"],
    ["👩‍👩‍👧", "🇩🇪", "\U0010ffff and ", "ﬁ"],
    ["f", "o", "x", "es jump"],
    ["e", "\u0301", " é"],
    ["one", "", "two", " ", "three", ""],
)
FORMS = ("$A", "<s> $A </s>", "$A </s>")


def byte_level(form: str = "$A") -> Tokenizer:
    """Tokens are of bytes, so that one character may be several of them."""
    tokenizer = _tokenizers.byte_pairs("llama", 40, ["<s>", "</s>"])
    if form != "$A":
        tokenizer.post_processor = processors.Sequence(
            [tokenizer.post_processor, _tokenizers.template(tokenizer, form)]
        )
    return tokenizer


def spec_of(tokenizer: Tokenizer, path: Path, **facts: object) -> ModelSpec:
    path.mkdir(exist_ok=True)
    _tokenizers.write(tokenizer, path)
    given = {"dimensions": 8, "max_tokens": 10_000, "late_chunking": True} | facts
    return ModelSpec("late", "tiny", str(path), str(path), **given)


def prepared(spec: ModelSpec, chunks: list[str], task: str | None = None) -> Prepared:
    preparer = open_preparer(spec, MediaOptions())
    job = Job("late", tuple(map(Text, chunks)), task, late_chunking=True)
    return asyncio.run(preparer.prepare(job))


def spans(one: Prepared) -> list[tuple[int, int]]:
    """Of a document in one window: the tokens of every vector."""
    assert one.spans[:, 0].tolist() == list(range(len(one.spans)))
    assert not one.spans[:, 1].any()
    return [tuple(row) for row in one.spans[:, 2:].tolist()]


def by_bytes(tokenizer: Tokenizer, chunks: list[str]) -> list[list[int]]:
    """Which tokens have their first character in each chunk, told from the tokens' own bytes."""
    text = "".join(chunks)
    owner = [n for n, chunk in enumerate(chunks) for _ in chunk]
    of_byte = [owner[at] for at, letter in enumerate(text) for _ in letter.encode()]
    found, at = [[] for _ in chunks], 0
    for index, token in enumerate(tokenizer.encode(text, add_special_tokens=False).tokens):
        found[of_byte[at]].append(index)
        at += len(token)
    assert at == len(of_byte)
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunks", CHUNKS, ids=lambda chunks: chunks[0])
def test_a_token_belongs_to_the_chunk_of_its_first_character(
    tmp_path: Path, chunks: list[str], form: str
) -> None:
    tokenizer = byte_level(form)
    one = prepared(spec_of(tokenizer, tmp_path), chunks)
    front, back = form.startswith("<s>"), form.endswith("</s>")
    expected = by_bytes(tokenizer, chunks)
    for chunk, (own, (start, end)) in enumerate(zip(expected, spans(one), strict=True)):
        if own:
            assert start == (0 if chunk == 0 else own[0] + front)
            last = chunk == len(chunks) - 1
            assert end == own[-1] + 1 + front + (back if last else 0)
        else:
            assert end > start
    assert len(one.ids) == one.usage.text_tokens == one.spans[:, 3].max()


@given(st.text(max_size=40), st.lists(st.integers(0, 40), max_size=4), st.sampled_from(FORMS))
def test_every_token_of_any_document_is_in_its_chunk(text: str, cuts: list[int], form: str) -> None:
    at = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    tokenizer = byte_level(form)
    encoding = tokenizer.encode(text)
    tokens = max(len(encoding.ids), 1)
    chunks = [text[a:b] for a, b in pairwise(at)]
    found = chunk_spans(encoding, at, tokens)
    assert len(found) == len(chunks)
    assert all(0 <= start < end <= tokens for start, end in found)
    assert (found[0][0], found[-1][1]) == (0, tokens)
    front = form.startswith("<s>")
    for own, (start, end) in zip(by_bytes(tokenizer, chunks), found, strict=True):
        assert {index + front for index in own} <= set(range(start, end))


def test_a_character_of_several_tokens_is_not_torn(tmp_path: Path) -> None:
    one = prepared(spec_of(byte_level(), tmp_path), ["x", "\U0010ffff", "y"])
    assert spans(one) == [(0, 1), (1, 5), (5, 6)]


def test_a_token_over_a_boundary_belongs_to_the_first_of_its_characters(tmp_path: Path) -> None:
    tokenizer = byte_level()
    assert tokenizer.encode("x there").offsets == [(0, 1), (1, 4), (4, 6), (6, 7)]
    one = prepared(spec_of(tokenizer, tmp_path), ["x ", "t", "her", "e"])
    # " th" begins in the first chunk; it is also the nearest to "t", which has no other.
    assert spans(one) == [(0, 2), (1, 2), (2, 3), (3, 4)]


def test_a_normalizer_may_change_lengths(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    one = prepared(spec_of(tokenizer, tmp_path), ["Å", "İ", "ﬁ", "Ⅷ", "Z"])
    texts = [tokenizer.decode(one.ids[a:b].tolist()) for a, b in spans(one)]
    assert texts == ["a", "i", "fi", "viii", "z"]


def test_pieces_of_words_go_by_their_characters_too(tmp_path: Path) -> None:
    tokenizer = _tokenizers.unigram()
    one = prepared(spec_of(tokenizer, tmp_path), ["A man", " is", " eating bread"])
    words = [[tokenizer.id_to_token(i) for i in one.ids[a:b]] for a, b in spans(one)]
    assert words == [["<s>", "▁A", "▁man"], ["▁is"], ["▁eating", "▁bread", "</s>"]]


# Chunks without tokens


def test_a_chunk_without_a_token_has_the_nearest_one(tmp_path: Path) -> None:
    tokenizer = _tokenizers.unigram()
    chunks = ["", "A", "", " ", "man", "  ", "is", ""]
    one = prepared(spec_of(tokenizer, tmp_path), chunks)
    found = spans(one)
    assert tokenizer.encode("".join(chunks)).tokens[:2] == ["<s>", "▁A"]
    assert all(end > start for start, end in found)
    assert found[0] == (0, 2), "with what stands before it"
    assert found[2] == found[1] == (1, 2)
    assert found[-1][1] == len(one.ids)


@pytest.mark.parametrize("chunks", [[""], ["", "", ""], [" ", "\n"]])
@pytest.mark.parametrize("form", ["$A", "<s> $A </s>"])
def test_a_document_without_a_token_has_a_vector_a_chunk(
    tmp_path: Path, chunks: list[str], form: str
) -> None:
    tokenizer = _tokenizers.unigram()
    tokenizer.post_processor = (
        processors.TemplateProcessing(single="$A", special_tokens=[])
        if form == "$A"
        else tokenizer.post_processor
    )
    one = prepared(spec_of(tokenizer, tmp_path), chunks)
    assert len(one.ids) == one.usage.total_tokens == (1 if form == "$A" else 2)
    assert spans(one) == [(0, len(one.ids))] * len(chunks)


# The prompt, the adapter


def test_the_first_chunk_has_the_prompt_too(tmp_path: Path) -> None:
    task = TaskSpec("passage", "Passage: ", adapter="retrieval")
    spec = spec_of(byte_level("<s> $A </s>"), tmp_path, tasks=(task,))
    one, bare = prepared(spec, ["A man", " is"], "passage"), prepared(spec, ["A man", " is"])
    prompt = len(one.ids) - len(bare.ids)
    assert prompt > 3
    assert spans(one)[0] == (0, spans(bare)[0][1] + prompt)
    assert spans(one)[1] == tuple(end + prompt for end in spans(bare)[1])
    assert (one.adapter, one.task, one.skip, one.vectors) == ("retrieval", "passage", 0, 2)
    tokenizer = byte_level("<s> $A </s>")
    assert one.ids.tolist() == tokenizer.encode("Passage: A man is").ids


def test_a_prompt_that_is_not_pooled_belongs_to_no_chunk(tmp_path: Path) -> None:
    spec = spec_of(
        byte_level(), tmp_path, tasks=(TaskSpec("p", "x:"),), pooling=Pooling(include_prompt=False)
    )
    assert spans(prepared(spec, ["A", "B"], "p")) == [(2, 3), (3, 4)]


def test_a_lone_surrogate_is_refused_by_the_chunks_place(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        prepared(spec_of(byte_level(), tmp_path), ["a", "b\ud800", "c"])
    assert caught.value.field == "input.1"


# Windows


@given(st.integers(1, 5000), st.integers(1, 1500))
def test_windows_cover_a_document_once(tokens: int, limit: int) -> None:
    found = windows(tokens, limit)
    kept = [at for window in found for at in range(window.start + window.kept, window.end)]
    assert kept == list(range(tokens))
    assert all(0 < window.end - window.start <= limit for window in found)
    assert all(window.end - window.start == limit for window in found[:-1])
    overlap = min(512, limit // 4)
    assert all(window.kept == overlap for window in found[1:]) and found[0].kept == 0


def test_windows_overlap_as_in_the_paper() -> None:
    spans = [(window.start, window.end, window.kept) for window in windows(20_000, 8192)]
    assert spans == [(0, 8192, 0), (7680, 15872, 512), (15360, 20_000, 512)]
    assert len(windows(8192, 8192)) == 1 and len(windows(8193, 8192)) == 2


@given(st.integers(1, 400), st.integers(1, 90), st.lists(st.integers(0, 400), max_size=6))
def test_vectors_are_the_means_of_the_kept_outputs(
    tokens: int, limit: int, cuts: list[int]
) -> None:
    bounds = sorted({0, tokens, *(cut % tokens for cut in cuts)})
    chunks = list(pairwise(bounds))
    seen = windows(tokens, limit)
    outputs = [
        np.random.default_rng(at).integers(0, 99, w.end - w.start) for at, w in enumerate(seen)
    ]
    joined = np.concatenate([out[w.kept :] for out, w in zip(outputs, seen, strict=True)])
    found = pieces(chunks, seen)
    assert (found[:, 3] > found[:, 2]).all() and (np.diff(found[:, 0]) >= 0).all()
    for vector, (start, end) in enumerate(chunks):
        mine = [outputs[w][a:b] for n, w, a, b in found.tolist() if n == vector]
        assert np.concatenate(mine).tolist() == joined[start:end].tolist()


def test_a_document_beyond_the_context_goes_through_windows(tmp_path: Path) -> None:
    tokenizer = byte_level("<s> $A </s>")
    spec = spec_of(
        tokenizer, tmp_path, max_tokens=40, tasks=(TaskSpec("p", "Passage: ", adapter="a"),)
    )
    chunks = [f"The quick brown fox number {n}, 今天. " for n in range(9)]
    one = prepared(spec, chunks, "p")
    whole = tokenizer.encode("Passage: " + "".join(chunks)).ids
    ends = np.cumsum(one.lengths)
    parts = [part.tolist() for part in np.split(one.ids, ends[:-1])]
    assert len(parts) > 3 and max(one.lengths) == 40
    assert parts[0] == whole[:40] and parts[0][0] == tokenizer.token_to_id("<s>")
    assert parts[1] == whole[30:70]
    assert sum((part[10:] for part in parts[1:]), parts[0]) == whole
    assert tokenizer.token_to_id("<s>") not in chain.from_iterable(parts[1:])
    assert one.usage == Usage(text_tokens=sum(map(len, parts)))
    assert one.vectors == len(chunks) and one.adapter == "a"
    long = prepared(spec_of(tokenizer, tmp_path, tasks=spec.tasks), chunks, "p")
    for vector, (start, end) in enumerate(spans(long)):
        mine = [parts[w][a:b] for n, w, a, b in one.spans.tolist() if n == vector]
        assert list(chain.from_iterable(mine)) == whole[start:end]
