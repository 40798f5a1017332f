"""Texts to the very ids that sentence-transformers gives a model, and to what is owed for them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from serving.errors import InvalidInput, ModelUnavailable, TokenLimitExceeded
from serving.models.catalog import KNOWN, Entry
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec, TaskSpec
from serving.preparing import text
from serving.preparing.text import TextPreparer
from serving.values import Job, Output, Prepared, Text, Usage
from tests.checkpoints import NAMES, SENTENCES

ODD = (
    "",
    " ",
    "\n\t x",
    "a\x00b\x00",
    "\ufeff zero\u200bwidth\u00adsoft",
    "e\u0301 and é, ﬁ and fi, Ⅷ",
    "👩‍👩‍👧 🇩🇪 \U0010ffff",
    "مرحبا بالعالم",
    "[CLS] [SEP] <s> </s> <|endoftext|> [MASK]",
    "İstanbul ΣΑΣ STRASSE",
    "A" * 300,
    "word, " * 400,
)


@pytest.fixture(scope="module")
def minilm() -> TextPreparer:
    return text.load(load_spec(KNOWN[0]))


def spec_of(path: Path) -> ModelSpec:
    return load_spec(Entry("tiny", str(path)))


def prepared(
    preparer: TextPreparer, *texts: str, task: str | None = None, **more: bool
) -> Prepared:
    job = Job("tiny", tuple(map(Text, texts)), task, **more)
    return asyncio.run(preparer.prepare(job))


def ids_of(one: Prepared) -> list[list[int]]:
    """The ids of each input."""
    ends = np.cumsum(one.lengths)
    return [part.tolist() for part in np.split(one.ids, ends[:-1])]


def theirs(
    model: SentenceTransformer, texts: tuple[str, ...], prompt: str | None
) -> list[list[int]]:
    """What sentence-transformers feeds the model, one text at a time so that nothing is padded."""
    return [model.preprocess([one], prompt=prompt)["input_ids"][0].tolist() for one in texts]


def rewrite(path: Path, name: str, change: Callable[[dict[str, object]], None]) -> None:
    file = path / name
    facts = json.loads(file.read_text()) if file.exists() else {}
    change(facts)
    file.write_text(json.dumps(facts))


# The same ids as sentence-transformers


@pytest.mark.parametrize("name", [*NAMES, "minilm"])
def test_ids_are_those_of_sentence_transformers(folder: Path, name: str) -> None:
    spec = load_spec(KNOWN[0]) if name == "minilm" else spec_of(folder / name)
    preparer, model = text.load(spec), SentenceTransformer(spec.path, device="cpu")
    for task in (None, *spec.tasks):
        mine = prepared(preparer, *SENTENCES, *ODD, task=task and task.name, truncate=True)
        assert ids_of(mine) == theirs(model, SENTENCES + ODD, task and task.prompt)


def test_the_prompt_is_left_out_of_the_pooling_as_upstream_counts_it(folder: Path) -> None:
    spec = spec_of(folder / "bert_skip_prompt")
    model = SentenceTransformer(spec.path, device="cpu")
    preparer = text.load(spec)
    expected = model.preprocess(["x"], prompt=spec.tasks[0].prompt)["prompt_length"]
    assert prepared(preparer, "x", task="task").skip == expected > 1
    assert prepared(preparer, "x", task="plain").skip == prepared(preparer, "x").skip == 0


def test_a_prompt_that_is_pooled_is_not_skipped(folder: Path) -> None:
    preparer = text.load(spec_of(folder / "xlmr_prompts"))
    assert prepared(preparer, "x", task="query").skip == 0


# What is prepared


def test_a_job_is_prepared_for_the_engine(minilm: TextPreparer) -> None:
    job = Job("m", (Text("hello"), Text("")), output=Output(7), service_class="bulk")
    one = asyncio.run(minilm.prepare(job))
    assert (one.ids.tolist(), one.lengths.tolist()) == ([101, 7592, 102, 101, 102], [3, 2])
    assert (one.ids.dtype, one.lengths.dtype) == (np.int32, np.int32)
    assert one.usage == Usage(text_tokens=5)
    assert (one.output, one.service_class, one.adapter, one.task) == (Output(7), "bulk", None, None)


def test_a_tasks_adapter_and_prompt_go_with_it(folder: Path) -> None:
    spec = replace(spec_of(folder / "bert_mean"), tasks=(TaskSpec("t", "the fox", adapter="a"),))
    one = prepared(text.load(spec), "", task="t")
    assert (one.task, one.adapter) == ("t", "a")
    assert one.ids.tolist() == prepared(text.load(spec), "the fox").ids.tolist()
    assert one.usage.text_tokens == len(one.ids)


def test_the_order_of_inputs_is_kept(minilm: TextPreparer) -> None:
    many = [f"number {n} " * (n % 7) for n in range(400)]
    together = ids_of(prepared(minilm, *many))
    assert together == [prepared(minilm, one).ids.tolist() for one in many]


@pytest.mark.parametrize("name", ["bert_mean", "qwen3_last"])
def test_tasks_in_parallel_do_not_disturb_each_other(folder: Path, name: str) -> None:
    preparer = text.load(spec_of(folder / name))

    async def mixed() -> list[Prepared]:
        jobs = [Job("m", (Text("fox " * n),), truncate=True) for n in (1, 50, 3000, 2, 9000) * 8]
        return await asyncio.gather(*map(preparer.prepare, jobs))

    found = [one.ids.tolist() for one in asyncio.run(mixed())]
    assert found == found[:5] * 8


def test_a_big_job_does_not_hold_the_event_loop(minilm: TextPreparer) -> None:
    async def ticks() -> int:
        big = asyncio.ensure_future(
            minilm.prepare(Job("m", (Text("fox " * 100_000),), truncate=True))
        )
        ticks = 0
        while not big.done():
            await asyncio.sleep(0)
            ticks += 1
        return ticks

    assert asyncio.run(ticks()) > 20


def test_a_small_job_is_done_without_waiting(minilm: TextPreparer) -> None:
    with pytest.raises(StopIteration):
        minilm.prepare(Job("m", (Text("a fox"),))).send(None)


# Inputs that are too long


@pytest.mark.parametrize("tokens", [47, 48])
def test_an_input_as_long_as_the_context_is_whole(folder: Path, tokens: int) -> None:
    preparer = text.load(spec_of(folder / "bert_mean"))
    assert prepared(preparer, "fox " * (tokens - 2)).lengths.tolist() == [tokens]


def test_one_input_that_is_too_long_is_refused_with_the_counts(folder: Path) -> None:
    preparer = text.load(spec_of(folder / "bert_mean"))
    with pytest.raises(TokenLimitExceeded) as caught:
        prepared(preparer, "fox " * 47)
    assert caught.value.field == "input"
    assert caught.value.message == (
        "the input has 49 tokens; tiny takes 48 (set truncate: true to cut it)"
    )


def test_the_first_of_several_inputs_that_are_too_long_is_named(minilm: TextPreparer) -> None:
    with pytest.raises(TokenLimitExceeded) as caught:
        prepared(minilm, "short", "fox " * 698, "fox " * 900)
    assert caught.value.field == "input.1"
    assert caught.value.message == (
        "input 1 has 700 tokens; all-MiniLM-L6-v2 takes 256 (set truncate: true to cut it)"
    )


def test_an_input_that_is_cut_is_counted_by_what_is_left(minilm: TextPreparer) -> None:
    one = prepared(minilm, "fox " * 10_000, "fox", truncate=True)
    assert one.lengths.tolist() == [256, 3]
    assert one.usage.text_tokens == 259
    assert one.ids[255] == 102  # the separator survives


def test_an_end_token_survives_the_cut(folder: Path) -> None:
    one = prepared(text.load(spec_of(folder / "qwen3_last")), "fox " * 5000, truncate=True)
    assert (one.lengths.tolist(), one.ids[-1]) == ([700], 0)


def test_the_side_that_is_cut(bert: Path) -> None:
    rewrite(bert, "tokenizer_config.json", lambda facts: facts.update(truncation_side="left"))
    one = prepared(text.load(spec_of(bert)), "bread " * 60 + "fox", truncate=True)
    fox = prepared(text.load(spec_of(bert)), "fox").ids.tolist()
    assert one.ids[-len(fox) + 1 :].tolist() == fox[1:]


# Inputs that are no text


@pytest.mark.parametrize(
    ("texts", "field"),
    [(["a\ud800"], "input"), (["a", "\udfff", "\ud800"], "input.1")],
)
def test_a_lone_surrogate_is_refused_and_named(
    minilm: TextPreparer, texts: list[str], field: str
) -> None:
    with pytest.raises(
        InvalidInput, match="is no valid Unicode: it has a lone surrogate"
    ) as caught:
        prepared(minilm, *texts)
    assert caught.value.field == field


def without_specials(path: Path, **config: str) -> TextPreparer:
    """A tokenizer whose empty text has no tokens at all."""
    words = {"fox": 0, "unknown": 1, "pad": 2, "end": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="unknown"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return text.load(spec_of(path))


@pytest.mark.parametrize(
    ("config", "filler"),
    [
        ({"pad_token": "pad", "eos_token": "end"}, 2),
        ({"eos_token": "end"}, 3),
        ({"pad_token": "not there", "unk_token": "unknown"}, 1),
        ({}, 0),
    ],
)
def test_a_text_without_tokens_is_one_token(
    bert: Path, config: dict[str, str], filler: int
) -> None:
    one = prepared(without_specials(bert, **config), "fox", "", "  ", "fox fox")
    assert ids_of(one) == [[0], [filler], [filler], [0, 0]]
    assert one.usage.text_tokens == 5


# Files that contradict each other, and files that are not there


@pytest.mark.parametrize(
    "config",
    [
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True},
        {"tokenizer_class": "BertTokenizer"},
        {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "strip_accents": True},
        {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": False,
            "tokenize_chinese_chars": False,
        },
        {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True},
        {"tokenizer_class": "PreTrainedTokenizerFast", "add_eos_token": True},
        {},
    ],
)
def test_where_the_files_contradict_transformers_decides(
    bert: Path, config: dict[str, object]
) -> None:
    (bert / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 512, **config}))
    theirs = AutoTokenizer.from_pretrained(bert)
    mine = prepared(text.load(spec_of(bert)), "The FOX était là, 今天天气", "Straße")
    assert ids_of(mine) == theirs(["The FOX était là, 今天天气", "Straße"])["input_ids"]


def test_a_vocabulary_alone_is_enough(bert: Path) -> None:
    expected = prepared(text.load(spec_of(bert)), *SENTENCES)
    words = Tokenizer.from_file(str(bert / "tokenizer.json")).get_vocab()
    (bert / "vocab.txt").write_text("\n".join(sorted(words, key=lambda word: words[word])) + "\n")
    (bert / "tokenizer.json").unlink()
    assert ids_of(prepared(text.load(spec_of(bert)), *SENTENCES)) == ids_of(expected)


def test_a_tokenizer_that_adds_no_beginning_keeps_its_template(folder: Path) -> None:
    described = json.loads((folder / "qwen3_last" / "tokenizer_config.json").read_text())
    assert described["add_bos_token"] is False
    assert prepared(text.load(spec_of(folder / "qwen3_last")), "").ids.tolist() == [0]


def test_a_broken_tokenizer_is_named(bert: Path) -> None:
    (bert / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelUnavailable, match=r"has a tokenizer\.json that cannot be read: "):
        text.load(spec_of(bert))


def test_a_checkpoint_without_a_tokenizer_is_named(bert: Path) -> None:
    (bert / "tokenizer.json").unlink()
    with pytest.raises(ModelUnavailable, match=r"has no tokenizer: neither tokenizer\.json nor"):
        text.load(spec_of(bert))


def test_a_vocabulary_that_transformers_cannot_read_is_named(bert: Path) -> None:
    (bert / "tokenizer.json").unlink()
    (bert / "vocab.txt").write_bytes(b"\xff")
    with pytest.raises(ModelUnavailable, match="has no tokenizer that can be read: "):
        text.load(spec_of(bert))


def test_the_default_model_is_tokenized_without_the_big_libraries() -> None:
    code = (
        "import sys; from serving.models import catalog, loading;"
        "from serving.preparing import text;"
        "text.load(loading.load_spec(catalog.KNOWN[0]));"
        "print({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "set()"
