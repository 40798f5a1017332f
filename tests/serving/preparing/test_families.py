"""Every family's token ids, against transformers' tokenizer of the same checkpoint, as golden."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from serving.media import MediaOptions
from serving.models.catalog import Entry
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec, TaskSpec
from serving.preparing import open_preparer
from serving.values import Job, Prepared, Text
from tests.checkpoints import SENTENCES
from tests.upstream import NAMES, build

ODD = ("", " ", "\n\t x", "a\x00b", "e\u0301 ﬁ Ⅷ", "👩‍👩‍👧 🇩🇪", "مرحبا", "İstanbul ΣΑΣ", "A" * 300)
INSTRUCT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\n"
# What stands in front of a text for each task, and behind its tokens, by models.md 1.
V3_QUERY = "Represent the query for retrieving evidence documents: "
V3_PASSAGE = "Represent the document for retrieval: "
V3 = {
    "retrieval.query": V3_QUERY,
    "retrieval.passage": V3_PASSAGE,
    "separation": "",
    "classification": "",
    "text-matching": "",
}
V5 = {
    "retrieval.query": "Query: ",
    "retrieval.passage": "Document: ",
    "text-matching": "Document: ",
    "clustering": "Document: ",
    "classification": "Document: ",
}
PREFIXES: dict[str, dict[str, str]] = {
    "bge_m3": {},
    "jina_v3": V3,
    "jina_v3_hf": V3,
    "jina_v4": {
        "retrieval.query": "Query: ",
        "retrieval.passage": "Passage: ",
        "text-matching": "Query: ",
        "code.query": "Query: ",
        "code.passage": "Passage: ",
    },
    "jina_v5_nano": V5,
    "jina_v5_small": V5,
    "qwen3_embedding": {"query": f"{INSTRUCT}Query:", "document": ""},
}
ADDED = {
    "bge_m3": ("<s>", "</s>"),
    "jina_v3": ("<s>", "</s>"),
    "jina_v3_hf": ("<s>", "</s>"),
    "jina_v4": (),
    "jina_v5_nano": ("<|end_of_text|>",),
    "jina_v5_small": (),
    "qwen3_embedding": ("<|endoftext|>",),
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("upstream")
    return {name: build(name, folder) for name in NAMES}


def spec_of(path: Path, **more: object) -> ModelSpec:
    return load_spec(Entry("tiny", str(path), **more), weights=False)


def golden(path: Path) -> PreTrainedTokenizerBase:
    """transformers' tokenizer; the class is named where config.json is of a class of upstream's."""
    try:
        return AutoTokenizer.from_pretrained(path)
    except (ValueError, KeyError):
        return PreTrainedTokenizerFast.from_pretrained(path)


def prepared(spec: ModelSpec, *texts: str, **job: object) -> Prepared:
    preparer = open_preparer(spec, MediaOptions())
    return asyncio.run(preparer.prepare(Job("tiny", tuple(map(Text, texts)), **job)))


def ids_of(one: Prepared) -> list[list[int]]:
    return [part.tolist() for part in np.split(one.ids, np.cumsum(one.lengths)[:-1])]


def test_every_upstream_layout_is_here() -> None:
    assert set(PREFIXES) == set(ADDED) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_those_of_transformers(paths: dict[str, Path], name: str) -> None:
    spec, theirs = spec_of(paths[name]), golden(paths[name])
    texts = [*SENTENCES, *ODD[1:]]
    for task in (None, *(task.name for task in spec.tasks)):
        prefix = PREFIXES[name][task] if task else ""
        wanted = [theirs(prefix + text)["input_ids"] for text in texts]
        assert ids_of(prepared(spec, *texts, task=task)) == [ids or [0] for ids in wanted]


@pytest.mark.parametrize("name", NAMES)
def test_tasks_are_those_of_the_facts(paths: dict[str, Path], name: str) -> None:
    spec = spec_of(paths[name])
    assert {task.name: task.prompt for task in spec.tasks} == PREFIXES[name]


@pytest.mark.parametrize("name", NAMES)
def test_trap_2_what_is_added_is_what_the_checkpoints_own_rule_adds(
    paths: dict[str, Path], name: str
) -> None:
    [ids] = ids_of(prepared(spec_of(paths[name]), "bread"))
    theirs = golden(paths[name])
    added = [theirs.convert_tokens_to_ids(token) for token in ADDED[name]]
    assert [i for i in ids if i in theirs.all_special_ids or i in added] == added
    assert not added or ids[-1] == added[-1]


def test_trap_2_qwens_tokenizers_have_two_rules(paths: dict[str, Path]) -> None:
    ends = {}
    for name in ("qwen3_embedding", "jina_v5_small", "jina_v4"):
        theirs = golden(paths[name])
        [ids] = ids_of(prepared(spec_of(paths[name]), "bread"))
        ends[name] = theirs.convert_ids_to_tokens(ids[-1]) == "<|endoftext|>"
    assert ends == {"qwen3_embedding": True, "jina_v5_small": False, "jina_v4": False}


def test_trap_7_the_prefix_is_the_tasks_and_not_its_sides(paths: dict[str, Path]) -> None:
    def starts(name: str, task: str) -> str:
        theirs = golden(paths[name])
        [ids] = ids_of(prepared(spec_of(paths[name]), "bread", task=task))
        return theirs.decode(ids, skip_special_tokens=True).removesuffix("bread")

    assert starts("jina_v4", "text-matching") == "Query: "
    for task in ("text-matching", "clustering", "classification"):
        assert starts("jina_v5_small", task) == "Document: "
        assert starts("jina_v5_nano", task) == "Document: "
    for task in ("separation", "classification", "text-matching"):
        assert starts("jina_v3", task) == ""
    assert starts("jina_v3", "retrieval.query") == V3_QUERY


def test_trap_8_instructions_are_byte_exact(paths: dict[str, Path]) -> None:
    path = paths["qwen3_embedding"]
    theirs = golden(path)
    [ids] = ids_of(prepared(spec_of(path), "bread", task="query"))
    assert theirs.decode(ids) == f"{INSTRUCT}Query:bread<|endoftext|>"
    own = TaskSpec("e5", f"{INSTRUCT}Query: ")  # as e5-instruct's: with a space
    [ids] = ids_of(prepared(spec_of(path, extra_tasks=(own,)), "bread", task="e5"))
    assert theirs.decode(ids) == f"{INSTRUCT}Query: bread<|endoftext|>"


@pytest.mark.parametrize("name", ["qwen3_embedding", "jina_v5_nano", "jina_v3", "bge_m3"])
def test_trap_20_a_truncated_text_keeps_its_final_token(paths: dict[str, Path], name: str) -> None:
    spec, theirs = spec_of(paths[name], max_tokens=20), golden(paths[name])
    one = prepared(spec, "A man is eating. " * 50, truncate=True)
    end = theirs.convert_tokens_to_ids(ADDED[name][-1])
    [ids] = ids_of(one)
    assert (len(ids), ids[-1], one.usage.total_tokens) == (20, end, 20)
    whole = theirs("A man is eating. " * 50)["input_ids"]
    assert ids[:-1] == whole[:19]


def test_trap_20_a_truncated_query_keeps_its_instruction(paths: dict[str, Path]) -> None:
    path = paths["qwen3_embedding"]
    prompt = len(golden(path)(f"{INSTRUCT}Query:")["input_ids"]) - 1
    spec = spec_of(path, max_tokens=prompt + 5)
    [ids] = ids_of(prepared(spec, "bread " * 90, task="query", truncate=True))
    assert golden(path).decode(ids).startswith(f"{INSTRUCT}Query:")
    assert golden(path).decode(ids).endswith("<|endoftext|>")
