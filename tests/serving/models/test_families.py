"""The facts of every family, from checkpoints in upstream's layouts, and the traps among them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from serving.errors import InvalidConfig, ModelUnavailable
from serving.models.catalog import KNOWN, Entry
from serving.models.families import FAMILIES
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec, Pooling, TaskSpec
from tests.serving.models.reading import Altered, rewrite, spec_of
from tests.upstream import NAMES

MEAN, LAST, CLS = (Pooling((mode,)) for mode in ("mean", "last", "cls"))
EXPECTED = {
    "bge_m3": {"family": "bge_m3", "dimensions": 64, "max_tokens": 432, "pooling": CLS},
    "jina_v3": {"family": "jina_v3", "dimensions": 64, "max_tokens": 514, "pooling": MEAN},
    "jina_v3_hf": {"family": "jina_v3", "matryoshka": (8, 16, 32), "pooling": MEAN},
    "jina_v4": {"family": "jina_v4", "dimensions": 128, "max_tokens": 1400, "pooling": MEAN},
    "jina_v5_nano": {"family": "jina_v5_text", "dimensions": 96, "max_tokens": 640},
    "jina_v5_small": {"family": "jina_v5_text", "dimensions": 80, "max_tokens": 900},
    "qwen3_embedding": {"family": "qwen3_embedding", "dimensions": 80, "max_tokens": 700},
}
LATE = ("jina_v3", "jina_v3_hf", "jina_v4")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def spec(upstream: Path, name: str) -> ModelSpec:
    return spec_of(upstream / name)


def test_a_checkpoint_is_what_it_was_built_as(spec: ModelSpec, name: str) -> None:
    assert {key: getattr(spec, key) for key in EXPECTED[name]} == EXPECTED[name]
    assert spec.normalize
    assert spec.late_chunking == (name in LATE)
    assert spec.literal == (name == "jina_v4")


def test_one_special_family_at_most_recognises_a_checkpoint(upstream: Path, name: str) -> None:
    from serving.models.checkpoints import resolve

    checkpoint = resolve(str(upstream / name))
    special = [one for one in FAMILIES.names() if one != "sentence_transformers"]
    own = [one for one in special if FAMILIES.load(one).recognises(checkpoint)]
    assert own == [EXPECTED[name]["family"]]


def test_a_process_that_only_tokenizes_reads_the_same_but_makes_nothing(
    upstream: Path, spec: ModelSpec, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "not made"))
    other = spec_of(upstream / name, weights=False)
    assert other.path == str(upstream / name)
    assert [(one.name, one.rank) for one in other.adapters] == [
        (one.name, one.rank) for one in spec.adapters
    ]
    same = {f for f in ModelSpec.__slots__ if getattr(other, f) == getattr(spec, f)}
    assert set(ModelSpec.__slots__) - same <= {"path", "adapters"}
    assert not (tmp_path / "not made").exists()


def test_every_task_has_its_adapter_and_every_adapter_is_there(spec: ModelSpec) -> None:
    names = {adapter.name for adapter in spec.adapters}
    assert {task.adapter for task in spec.tasks} - {None} == names
    for adapter in spec.adapters:
        files = {one.name for one in Path(adapter.path).iterdir()}
        assert files == {"adapter_config.json", "adapter_model.safetensors"}


def test_reading_imports_no_model_library(upstream: Path) -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from serving.models.catalog import Entry; from serving.models.loading import load_spec;"
        f"[load_spec(Entry('x', str(one))) for one in Path({str(upstream)!r}).iterdir()];"
        "print({'torch','transformers','tokenizers','peft','huggingface_hub'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "set()", ran.stderr


def test_recognising_reads_no_weights(upstream: Path, name: str, altered: Altered) -> None:
    path = altered(name)
    for file in (*path.rglob("*.safetensors"), *path.rglob("*.bin")):
        file.unlink()
    assert load_spec(Entry("x", str(path)), weights=False).family == EXPECTED[name]["family"]


# Tasks


def prompts(spec: ModelSpec) -> dict[str, tuple[str, str | None]]:
    return {task.name: (task.prompt, task.adapter) for task in spec.tasks}


def test_v4_asks_for_queries_on_both_sides_of_text_matching(upstream: Path) -> None:
    """Trap 7."""
    spec = spec_of(upstream / "jina_v4")
    assert prompts(spec) == {
        "text-matching": ("Query: ", "text-matching"),
        "retrieval.query": ("Query: ", "retrieval"),
        "retrieval.passage": ("Passage: ", "retrieval"),
        "code.query": ("Query: ", "code"),
        "code.passage": ("Passage: ", "code"),
    }
    assert spec.default_task == "text-matching"


@pytest.mark.parametrize("size", ["small", "nano"])
def test_v5_has_a_prompt_for_every_task(upstream: Path, size: str) -> None:
    """Trap 7."""
    spec = spec_of(upstream / f"jina_v5_{size}")
    assert prompts(spec) == {
        "retrieval.query": ("Query: ", "retrieval"),
        "retrieval.passage": ("Document: ", "retrieval"),
        "text-matching": ("Document: ", "text-matching"),
        "clustering": ("Document: ", "clustering"),
        "classification": ("Document: ", "classification"),
    }
    assert (spec.default_task, spec.pooling) == ("text-matching", LAST)


@pytest.mark.parametrize("name", ["jina_v3", "jina_v3_hf"])
def test_v3_has_prompts_for_retrieval_alone(upstream: Path, name: str) -> None:
    """Trap 7."""
    assert prompts(spec_of(upstream / name)) == {
        "retrieval.query": (
            "Represent the query for retrieving evidence documents: ",
            "retrieval.query",
        ),
        "retrieval.passage": ("Represent the document for retrieval: ", "retrieval.passage"),
        "separation": ("", "separation"),
        "classification": ("", "classification"),
        "text-matching": ("", "text-matching"),
    }


@pytest.mark.parametrize("name", ["jina_v3", "jina_v3_hf"])
def test_v3_without_a_task_is_its_base_and_not_text_matching(upstream: Path, name: str) -> None:
    """Trap 6."""
    assert spec_of(upstream / name).default_task is None


def test_an_instruction_of_qwen3_has_no_space_after_query_and_one_of_e5_has(upstream: Path) -> None:
    """Trap 8."""
    told = "Instruct: Given a web search query, retrieve relevant passages that answer the query\n"
    spec = spec_of(upstream / "qwen3_embedding")
    assert prompts(spec) == {"query": (f"{told}Query:", None), "document": ("", None)}
    assert spec.default_task is None
    [e5] = [one for one in KNOWN if one.id == "multilingual-e5-large-instruct"]
    assert [task.prompt for task in e5.extra_tasks] == [f"{told}Query: ", ""]


def test_only_qwen3_embedding_ends_with_a_token_of_its_own(upstream: Path) -> None:
    """Trap 2: it is the tokenizers that differ, so nothing else may say it."""
    ends = {}
    for name in ("qwen3_embedding", "jina_v5_small", "jina_v4"):
        tokenizer = Tokenizer.from_file(str(Path(spec_of(upstream / name).path, "tokenizer.json")))
        ids = tokenizer.encode("hi").ids
        ends[name] = ids[-1] == tokenizer.token_to_id("<|endoftext|>")
    assert ends == {"qwen3_embedding": True, "jina_v5_small": False, "jina_v4": False}


def test_positions_of_xlm_r_begin_behind_its_padding_and_rotary_ones_do_not(upstream: Path) -> None:
    """Trap 22."""
    for name, left_out in (("bge_m3", 2), ("jina_v3", 0)):
        config = json.loads((upstream / name / "config.json").read_text())
        assert spec_of(upstream / name).max_tokens == config["max_position_embeddings"] - left_out


def test_a_licence_that_forbids_is_shown(upstream: Path) -> None:
    """Trap 28."""
    for name in ("jina_v5_small", "jina_v3", "jina_v3_hf"):
        assert spec_of(upstream / name).licence == "cc-by-nc-4.0"
    assert spec_of(upstream / "jina_v4", licence="qwen-research").licence == "qwen-research"


def test_an_operators_task_may_have_one_of_the_adapters(upstream: Path) -> None:
    mine = TaskSpec("dedup", "Query: ", adapter="code")
    assert spec_of(upstream / "jina_v4", extra_tasks=(mine,)).tasks[-1] == mine
    with pytest.raises(ModelUnavailable) as caught:
        spec_of(upstream / "jina_v4", extra_tasks=(TaskSpec("dedup", adapter="dedup"),))
    assert caught.value.message.endswith(
        "has no adapter 'dedup', which its task dedup needs; it has retrieval, text-matching, code"
    )


# Sizes


def test_widths(upstream: Path) -> None:
    found = {name: spec_of(upstream / name).matryoshka for name in NAMES}
    assert found["jina_v4"] == (16, 32, 64)
    assert found["jina_v5_small"] == found["jina_v5_nano"] == (32, 64)
    assert found["jina_v3"] == found["jina_v3_hf"] == (8, 16, 32)
    assert found["bge_m3"] == found["qwen3_embedding"] == ()
    assert spec_of(upstream / "qwen3_embedding").least_dimensions == 32


def test_widths_that_an_operator_says(upstream: Path) -> None:
    for name in NAMES:
        spec = spec_of(upstream / name, matryoshka=(24, 8))
        assert (spec.matryoshka, spec.least_dimensions) == ((8, 24), None)


def test_a_port_that_says_no_widths_has_those_of_its_card(altered: Altered) -> None:
    path = altered("jina_v3_hf")
    rewrite(path, "config.json", matryoshka_dimensions=None)
    assert spec_of(path).matryoshka == (32,)


def test_v4_reads_as_much_as_upstream_does(altered: Altered) -> None:
    path = altered("jina_v4")
    text = json.loads((path / "config.json").read_text())["text_config"]
    rewrite(path, "config.json", text_config={**text, "max_position_embeddings": 128000})
    assert spec_of(path).max_tokens == 32768
    assert spec_of(path, max_tokens=99999).max_tokens == 99999


def test_a_context_beyond_the_positions_is_refused(upstream: Path, name: str) -> None:
    with pytest.raises(InvalidConfig, match=r"max_tokens of tiny is 99999; it has \d+ positions"):
        spec_of(upstream / name, max_tokens=99999)
    assert spec_of(upstream / name, max_tokens=300).max_tokens == 300


def test_a_qwen3_embedding_is_found_by_its_instruction_or_named(altered: Altered) -> None:
    path = altered("qwen3_embedding")
    rewrite(path, "config_sentence_transformers.json", prompts={"query": "find: "})
    assert spec_of(path).family == "sentence_transformers"
    named = spec_of(path, family="qwen3_embedding")
    assert [task.name for task in named.tasks] == ["query", "document"]
