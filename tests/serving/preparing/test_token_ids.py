"""A caller's own token ids: taken as they are, where the model knows them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from serving.errors import InvalidInput, TokenLimitExceeded
from serving.models.spec import ModelSpec, TaskSpec
from serving.preparing import text
from serving.values import Job, Output, Prepared, Text, TokenIds, Usage
from tests.services import MODEL, minilm
from tests.serving.preparing.visual import END, PAD, START
from tests.serving.preparing.visual import prepared as prepared_seeing


def prepared(*items: Text | TokenIds, **facts: object) -> Prepared:
    return asyncio.run(minilm()[1].prepare(Job(MODEL, items, **facts)))  # type: ignore[arg-type]


def test_they_are_the_whole_input_and_are_charged_for() -> None:
    one = prepared(TokenIds((101, 7592, 102)), TokenIds((5,)))
    assert one.ids.tolist() == [101, 7592, 102, 5]
    assert one.lengths.tolist() == [3, 1]
    assert one.usage == Usage(4)


def test_those_of_a_text_give_what_the_text_gives() -> None:
    words = prepared(Text("hello"))
    again = prepared(TokenIds(tuple(words.ids.tolist())))
    assert again.ids.tolist() == words.ids.tolist()
    assert again.usage == words.usage


def test_no_prompt_is_put_before_them_nor_left_out_of_pooling() -> None:
    spec = minilm()[0]
    pooling = replace(spec.pooling, include_prompt=False)
    asking = replace(spec, tasks=(TaskSpec("query", "ask: "),), pooling=pooling)
    preparer = text.load(asking)
    one = asyncio.run(preparer.prepare(Job(MODEL, (TokenIds((101, 102)),), task="query")))
    assert (one.ids.tolist(), one.skip) == ([101, 102], 0)
    preparer.close()


def test_too_many_are_refused_or_cut() -> None:
    many = TokenIds(tuple(range(100, 400)))
    with pytest.raises(TokenLimitExceeded, match="300 tokens") as refused:
        prepared(TokenIds((1,)), many)
    assert refused.value.field == "input.1"
    assert prepared(many, truncate=True).ids.tolist() == list(range(100, 356))


def test_a_great_many_are_read_in_a_thread_all_the_same() -> None:
    one = prepared(*[TokenIds((101, 102)) for _ in range(4096)])
    assert one.lengths.tolist() == [2] * 4096


@pytest.mark.parametrize("wrong", [30522, 2**31 - 1])
def test_one_that_the_model_does_not_know_is_refused_by_its_place(wrong: int) -> None:
    with pytest.raises(InvalidInput, match="0 to 30521") as refused:
        prepared(TokenIds((101,)), TokenIds((102, wrong)))
    assert refused.value.field == "input.1"


def test_the_marks_of_an_image_cannot_be_given(spec: ModelSpec) -> None:
    known = text.load(spec).encoder.tokenizers.whole
    assert prepared_seeing(spec, TokenIds((1, 2))).ids.tolist() == [1, 2]
    for mark in (START, PAD, END):
        index = known.token_to_id(mark)
        assert index is not None
        with pytest.raises(InvalidInput, match=str(index)):
            prepared_seeing(spec, TokenIds((1, index)))


def test_the_texts_of_tokens_are_told_and_which_of_them_are_special() -> None:
    one = prepared(Text("hello cat"), Text(""), output=Output(tokens=True))
    assert one.tokens == (("[CLS]", "hello", "cat", "[SEP]"), ("[CLS]", "[SEP]"))
    assert one.special == {101, 102}
    assert prepared(Text("hello")).special == frozenset()
