"""Checkpoints of every layout to specs, and the sentence for each one that cannot be served."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from serving.errors import InvalidConfig, ModelUnavailable
from serving.models.catalog import DEFAULT, Entry, find
from serving.models.loading import load_spec
from serving.models.spec import Dense, ModelSpec, Pooling, TaskSpec
from tests.checkpoints import NAMES, build

QUERY = TaskSpec("query", "query: ", ("retrieval.query",))
PASSAGE = TaskSpec("passage", "passage: ", ("retrieval.passage",))


def spec_of(path: Path, **overrides: object) -> ModelSpec:
    return load_spec(replace(Entry("tiny", str(path)), **overrides))


def rewrite(path: Path, name: str, **values: object) -> None:
    """Set keys of a JSON file, or drop those that are None."""
    file = path / name
    facts = {**(json.loads(file.read_text()) if file.exists() else {}), **values}
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({key: value for key, value in facts.items() if value is not None}))


def add_module(path: Path, kind: str) -> str:
    """Append a module to modules.json; its folder."""
    modules = json.loads((path / "modules.json").read_text())
    at = f"{len(modules)}_{kind}"
    modules.append(
        {
            "idx": len(modules),
            "name": at,
            "path": at,
            "type": f"sentence_transformers.models.{kind}",
        }
    )
    (path / "modules.json").write_text(json.dumps(modules))
    return at


def refusal(path: Path, **overrides: object) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        spec_of(path, **overrides)
    return caught.value.message


# What every tiny checkpoint is

MEAN = Pooling(("mean",))
EXPECTED = {
    "bert_mean": {"dimensions": 96, "max_tokens": 48, "normalize": True},
    "bert_cls": {"pooling": Pooling(("cls",)), "max_tokens": 40},
    "bert_max": {"pooling": Pooling(("max",)), "normalize": False},
    "bert_sqrt": {"pooling": Pooling(("mean_sqrt_len",)), "lowercase": True},
    "bert_two_modes": {"pooling": Pooling(("cls", "mean")), "dimensions": 192},
    "bert_two_modes_new": {"pooling": Pooling(("mean", "max")), "max_tokens": 512},
    "bert_dense": {"dimensions": 24, "normalize": True, "pooling": MEAN},
    "bert_skip_prompt": {"pooling": Pooling(("mean",), include_prompt=False)},
    "bert_matryoshka": {"matryoshka": (16, 32, 64), "default_dimensions": None},
    "bert_long": {"max_tokens": 8192},
    "xlmr_prompts": {"tasks": (QUERY, PASSAGE), "default_task": None, "max_tokens": 512},
    "xlmr_default_prompt": {"default_task": "query", "matryoshka": (32,), "default_dimensions": 32},
    "qwen3_last": {"pooling": Pooling(("last",)), "max_tokens": 700, "dimensions": 80},
}


@pytest.mark.parametrize("name", NAMES)
def test_a_tiny_checkpoint_is_what_it_was_built_as(folder: Path, name: str) -> None:
    spec = spec_of(folder / name)
    assert {key: getattr(spec, key) for key in EXPECTED[name]} == EXPECTED[name]
    assert (spec.id, spec.family, spec.licence) == ("tiny", "sentence_transformers", "mit")


@pytest.mark.parametrize("name", NAMES)
def test_the_sizes_are_those_of_sentence_transformers(folder: Path, name: str) -> None:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(folder / name), device="cpu")
    spec = spec_of(folder / name)
    width = theirs.get_embedding_dimension()
    assert (spec.default_dimensions or spec.dimensions, spec.max_tokens) == (
        width,
        theirs.max_seq_length,
    )


def test_dense_layers_follow_each_other(folder: Path) -> None:
    tanh, identity = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"
    assert spec_of(folder / "bert_dense").heads == (
        Dense("2_Dense", "model.safetensors", 96, 40, True, tanh),
        Dense("3_Dense", "model.safetensors", 40, 24, False, identity),
    )


def test_the_default_model() -> None:
    entry = find(DEFAULT)
    assert entry is not None
    spec = load_spec(entry)
    assert (spec.dimensions, spec.max_tokens, spec.licence) == (384, 256, "apache-2.0")
    assert (spec.pooling, spec.normalize, spec.tasks, spec.heads) == (MEAN, True, (), ())


def test_reading_is_quick_and_imports_no_model_library() -> None:
    entry = find(DEFAULT)
    assert entry is not None
    code = (
        "import sys; from serving.models import catalog, loading;"
        "loading.load_spec(catalog.KNOWN[0]);"
        "print({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "set()"
    start = time.perf_counter()
    load_spec(entry)
    assert time.perf_counter() - start < 0.05


def test_late_chunking_needs_the_mean_over_every_token(folder: Path) -> None:
    able = [name for name in NAMES if spec_of(folder / name).late_chunking]
    mean = [name for name in NAMES if spec_of(folder / name).pooling.modes == ("mean",)]
    assert able == [name for name in mean if name != "bert_skip_prompt"]


# Layouts that differ


def test_what_todays_sentence_transformers_writes_reads_the_same(
    folder: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        SentenceTransformer(str(folder / "bert_dense"), device="cpu").save(str(tmp_path / "new"))
    old, new = spec_of(folder / "bert_dense"), spec_of(tmp_path / "new")
    assert [task.prompt for task in new.tasks] == ["", ""]
    same = {"path": "", "source": "", "created": 0, "licence": "", "tasks": ()}
    assert replace(new, **same) == replace(old, **same)


def test_a_backbone_in_its_own_folder(bert: Path) -> None:
    inner = bert / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "model.safetensors", "sentence_bert_config.json"):
        (bert / name).rename(inner / name)
    modules = json.loads((bert / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (bert / "modules.json").write_text(json.dumps(modules))
    spec = spec_of(bert)
    assert (spec.transformer, spec.max_tokens, spec.dimensions) == ("0_Transformer", 48, 96)


def test_a_bare_checkpoint_is_pooled_by_the_mean(bert: Path) -> None:
    (bert / "modules.json").unlink()
    spec = spec_of(bert)
    assert (spec.pooling, spec.normalize, spec.heads) == (MEAN, False, ())


def test_a_bare_causal_model_is_pooled_by_its_last_token(bert: Path) -> None:
    (bert / "modules.json").unlink()
    rewrite(bert, "config.json", architectures=["Qwen3ForCausalLM"])
    assert spec_of(bert).pooling == Pooling(("last",))
    rewrite(bert, "config.json", is_causal=False)
    assert spec_of(bert).pooling == MEAN


def test_a_dropout_changes_nothing(bert: Path) -> None:
    plain = spec_of(bert)
    add_module(bert, "Dropout")
    assert spec_of(bert) == plain


def test_a_pooling_without_a_mode_is_the_mean(bert: Path) -> None:
    rewrite(bert, "1_Pooling/config.json", pooling_mode_mean_tokens=False)
    assert spec_of(bert).pooling == MEAN


@pytest.mark.parametrize("key", ["d_model", "dim", "n_embd"])
def test_the_hidden_size_under_its_other_names(bert: Path, key: str) -> None:
    rewrite(bert, "config.json", **{"hidden_size": None, key: 33})
    assert spec_of(bert).dimensions == 33


def test_the_sizes_of_a_text_config(bert: Path) -> None:
    inner = {"hidden_size": 35, "max_position_embeddings": 21}
    rewrite(bert, "config.json", hidden_size=None, max_position_embeddings=None, text_config=inner)
    spec = spec_of(bert)
    assert (spec.dimensions, spec.max_tokens) == (35, 21)


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\r\nlicense: 'apache-2.0'\r\n---\r\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: gemma\n---\n", "gemma"),
        ("# license: mit\n", "entry's"),
        ("---\nno end", "entry's"),
        (None, "entry's"),
    ],
)
def test_the_licence(bert: Path, readme: str | None, licence: str) -> None:
    (bert / "README.md").unlink()
    if readme is not None:
        (bert / "README.md").write_bytes(readme.encode())
    assert spec_of(bert, licence="entry's").licence == licence


# The context


def test_a_longer_max_seq_length_ends_at_the_positions(bert: Path) -> None:
    rewrite(bert, "sentence_bert_config.json", max_seq_length=10_000)
    assert spec_of(bert).max_tokens == 512


@pytest.mark.parametrize("padding", [1, None, 3])
def test_positions_of_roberta_start_after_the_padding(bert: Path, padding: int | None) -> None:
    rewrite(bert, "sentence_bert_config.json", max_seq_length=None)
    rewrite(bert, "tokenizer_config.json", model_max_length=10**30)
    facts = {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": padding}
    rewrite(bert, "config.json", **facts)
    assert spec_of(bert).max_tokens == 513 - (padding or 1)


def test_a_limit_among_the_tokenizers_arguments(bert: Path) -> None:
    rewrite(bert, "sentence_bert_config.json", max_seq_length=None)
    rewrite(bert, "sentence_bert_config.json", tokenizer_args={"model_max_length": 77})
    assert spec_of(bert).max_tokens == 77


def test_the_operators_limit(bert: Path) -> None:
    assert spec_of(bert, max_tokens=512).max_tokens == 512
    with pytest.raises(InvalidConfig, match="max_tokens of tiny is 513; it has 512 positions"):
        spec_of(bert, max_tokens=513)


def test_a_context_that_no_file_says(bert: Path) -> None:
    rewrite(bert, "sentence_bert_config.json", max_seq_length=None)
    rewrite(bert, "tokenizer_config.json", model_max_length=10**30)
    rewrite(bert, "config.json", max_position_embeddings=-1)
    assert refusal(bert).endswith("says how long its inputs may be; set max_tokens")
    assert spec_of(bert, max_tokens=9999).max_tokens == 9999


# Tasks and widths


def test_a_default_prompt_that_is_no_prompt(bert: Path) -> None:
    own = "config_sentence_transformers.json"
    rewrite(bert, own, default_prompt_name="document")
    assert spec_of(bert).default_task is None
    rewrite(bert, own, default_prompt_name="x")
    assert refusal(bert).startswith(f"default_prompt_name 'x' in {own} of ")


def test_the_operators_tasks_join_those_of_the_prompts(folder: Path) -> None:
    mine = TaskSpec("title", "title: ", ("retrieval.passage",))
    tasks = spec_of(folder / "xlmr_prompts", extra_tasks=(mine,)).tasks
    assert tasks == (QUERY, TaskSpec("passage", "passage: "), mine)


def test_the_operators_widths(folder: Path) -> None:
    assert spec_of(folder / "bert_matryoshka", matryoshka=(48, 8, 96)).matryoshka == (8, 48)
    assert spec_of(folder / "bert_matryoshka", matryoshka=()).matryoshka == ()


# What cannot be served


def test_a_module_that_is_not_supported(bert: Path) -> None:
    add_module(bert, "LSTM")
    assert (
        "has a module sentence_transformers.models.LSTM in modules.json;"
        " there are Transformer, Pooling, Dense, Normalize, Dropout"
    ) in refusal(bert)


def test_a_module_of_somebody_elses(bert: Path) -> None:
    modules = (bert / "modules.json").read_text().replace("sentence_transformers.models", "custom")
    (bert / "modules.json").write_text(modules)
    assert "has a module custom.Transformer in modules.json" in refusal(bert)


def test_modules_in_another_order(bert: Path) -> None:
    rewrite(bert, add_module(bert, "Dense") + "/config.json", in_features=96, out_features=8)
    assert "has a Normalize before a Dense" in refusal(bert)
    add_module(bert, "Pooling")
    assert "supported is a Transformer, then a Pooling" in refusal(bert)


def test_a_module_outside_the_checkpoint(bert: Path) -> None:
    modules = (bert / "modules.json").read_text().replace("1_Pooling", "../1_Pooling")
    (bert / "modules.json").write_text(modules)
    assert "has a module at '../1_Pooling' in modules.json, which is outside it" in refusal(bert)


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "pooling 'weightedmean' in"),
        ("2_Dense/config.json", {"in_features": 95}, "takes 95 features; what precedes gives 96"),
        ("2_Dense/config.json", {"out_features": None}, "does not say in_features and out_feat"),
        ("2_Dense/config.json", {"use_residual": True}, "use_residual in 2_Dense/config.json of"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "module_input_name"),
        ("config.json", {"hidden_size": None}, "does not say the hidden size"),
        ("config.json", {"hidden_size": "96"}, "should be a whole number, not '96'"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "'fill-mask' in"),
        ("sentence_bert_config.json", {"modality_config": {"image": {}}}, "has no text"),
    ],
)
def test_a_setting_that_is_not_supported(
    tmp_path: Path, name: str, values: dict[str, object], sentence: str
) -> None:
    path = build("bert_dense", tmp_path)
    rewrite(path, name, **values)
    assert sentence in refusal(path)


def test_a_dense_without_its_weights(tmp_path: Path) -> None:
    path = build("bert_dense", tmp_path)
    (path / "3_Dense" / "model.safetensors").unlink()
    assert "has no weights: neither 3_Dense/model.safetensors" in refusal(path)
    assert load_spec(Entry("tiny", str(path)), weights=False).heads[1].outputs == 24
