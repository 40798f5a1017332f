"""An operator's own adapters: where they are found, and what is held against the model first."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from serving.errors import ModelUnavailable
from serving.models.catalog import Entry
from serving.models.loading import load_spec
from serving.models.own import own_adapter
from serving.models.sources import folder_of
from serving.models.spec import ModelSpec, TaskSpec
from tests.adapted import make, write_adapter
from tests.checkpoints import build

FILES = ("adapter_config.json", "adapter_model.safetensors")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return make("qwen3", tmp_path_factory.mktemp("models"))


def written(path: Path, spec: ModelSpec, rank: int = 3) -> Path:
    """A LoRA for the attention of that model."""
    model = AutoModel.from_pretrained(spec.path)
    names = [name for name, _ in model.named_modules() if name.endswith(("q_proj", "v_proj"))]
    write_adapter(path, [(name, model.get_submodule(name)) for name in names], rank)
    return path


def renamed(path: Path, old: str, new: str) -> None:
    tensors = load_file(path / FILES[1])
    save_file({name.replace(old, new): one for name, one in tensors.items()}, path / FILES[1])


def configured(path: Path, **values: object) -> None:
    config = json.loads((path / FILES[0]).read_text())
    (path / FILES[0]).write_text(json.dumps({**config, **values}))


def refusal(spec: ModelSpec, path: Path, most: int | None = None) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        own_adapter(spec, str(path), most)
    return caught.value.message.removeprefix(f"{path} ")


def test_an_adapter_in_a_directory_becomes_a_view_of_the_same_tensors(
    spec: ModelSpec, tmp_path: Path
) -> None:
    path = written(tmp_path / "mine", spec)
    adapter = own_adapter(spec, str(path))
    assert (adapter.name, adapter.rank) == (str(path), 3)
    view, given = load_file(Path(adapter.path) / FILES[1]), load_file(path / FILES[1])
    assert view.keys() == given.keys()
    assert all(torch.equal(view[name], given[name]) for name in given)


@pytest.mark.parametrize("wrapper", ["model.", "0.auto_model.", "auto_model."])
def test_what_wraps_a_backbone_where_it_was_trained_is_taken_off(
    spec: ModelSpec, tmp_path: Path, wrapper: str
) -> None:
    path = written(tmp_path / "mine", spec)
    plain = load_file(path / FILES[1]).keys()
    renamed(path, "base_model.model.", f"base_model.model.{wrapper}")
    adapter = own_adapter(spec, str(path))
    assert load_file(Path(adapter.path) / FILES[1]).keys() == plain


def test_an_adapter_of_another_model_is_refused_by_what_does_not_fit(
    spec: ModelSpec, tmp_path: Path
) -> None:
    other = make("eurobert", tmp_path / "models")
    path = written(tmp_path / "other", other)
    assert "is for a layers.0.self_attn.q_proj 64 wide, and that of qwen3 is 80" in refusal(
        spec, path
    )
    renamed(path, "self_attn.q_proj", "self_attn.c_proj")
    assert "changes layers.0.self_attn.c_proj, which eurobert does not have" in refusal(other, path)


def test_a_rank_above_the_configured_one_is_refused(spec: ModelSpec, tmp_path: Path) -> None:
    path = written(tmp_path / "mine", spec, rank=5)
    assert refusal(spec, path, 4) == "is of rank 5, and at most 4 is configured"
    configured(path, r=4)
    assert "which is not of rank 4" in refusal(spec, path)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"use_dora": True}, "of the type DoRA"),
        ({"peft_type": "IA3"}, "of the type IA3"),
        ({"rank_pattern": {"q_proj": 2}}, "with several ranks"),
        ({"bias": "all"}, "with biases"),
    ],
)
def test_all_but_a_plain_lora_is_refused(
    spec: ModelSpec, tmp_path: Path, values: dict[str, object], reason: str
) -> None:
    path = written(tmp_path / "mine", spec)
    configured(path, **values)
    assert reason in refusal(spec, path)


def test_an_adapter_that_names_another_model_of_the_hub_is_refused(
    spec: ModelSpec, tmp_path: Path
) -> None:
    path = written(tmp_path / "mine", spec)
    configured(path, base_model_name_or_path="org/other")
    own_adapter(spec, str(path))  # the model is of no hub
    told = refusal(replace(spec, source="org/base"), path)
    assert told == "is an adapter for org/other, and qwen3 is org/base"
    configured(path, base_model_name_or_path="org/base")
    own_adapter(replace(spec, source="org/base"), str(path))


def test_files_that_are_not_there_are_named(spec: ModelSpec, tmp_path: Path) -> None:
    assert refusal(spec, tmp_path / "nothing").startswith("there is no directory")
    path = written(tmp_path / "mine", spec)
    (path / FILES[1]).rename(path / "adapter_model.bin")
    assert refusal(spec, path) == "has no adapter_model.safetensors"
    (path / FILES[0]).unlink()
    assert refusal(spec, path) == "has no adapter_config.json"
    with pytest.raises(ModelUnavailable, match="neither a URL"):
        own_adapter(spec, "no source")


def test_an_object_store_is_asked_once_for_each_version(spec: ModelSpec, tmp_path: Path) -> None:
    path, store = written(tmp_path / "mine", spec), fsspec.filesystem("memory")
    store.put(f"{path}/", "/bucket/mine/", recursive=True)
    source = "memory://bucket/mine"
    first = folder_of(source)
    assert sorted(one.name for one in first.iterdir()) == sorted(FILES)
    assert folder_of(f"{source}/") == first
    store.put(str(written(tmp_path / "next", spec, rank=2) / FILES[1]), f"/bucket/mine/{FILES[1]}")
    second = folder_of(source)
    assert second != first
    assert load_file(second / FILES[1]).keys() == load_file(first / FILES[1]).keys()
    assert own_adapter(spec, str(path)).rank == 3


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_an_adapter_comes_over_a_socket_too(spec: ModelSpec, tmp_path: Path, served: str) -> None:
    path = written(tmp_path / "mine", spec)
    adapter = own_adapter(spec, f"{served}/mine")
    assert adapter.name == f"{served}/mine"
    view, given = load_file(Path(adapter.path) / FILES[1]), load_file(path / FILES[1])
    assert all(torch.equal(view[name], given[name]) for name in given)
    with pytest.raises(ModelUnavailable, match="does not hold adapter_config"):
        folder_of(f"{served}/nothing")


def test_what_a_url_needs_is_said() -> None:
    with pytest.raises(ModelUnavailable, match=r"s3://bucket/x cannot be opened: .*s3fs"):
        folder_of("s3://bucket/x")
    with pytest.raises(ModelUnavailable, match="nope://x/y cannot be opened: Protocol not known"):
        folder_of("nope://x/y")


def test_a_task_of_the_operator_s_has_the_adapter_at_its_source(tmp_path: Path) -> None:
    base = build("bert_matryoshka", tmp_path)
    spec = load_spec(Entry("tiny", str(base)))
    path = tmp_path / "mine"
    model = AutoModel.from_pretrained(spec.path)
    write_adapter(
        path,
        [("encoder.layer.0.attention.self.query", model.encoder.layer[0].attention.self.query)],
    )
    tasks = (TaskSpec("mine", "m: "), TaskSpec("bare"))
    entry = Entry("tiny", str(base), extra_tasks=tasks, adapters=(("mine", str(path)),))
    for weights in (True, False):
        found = load_spec(entry, weights=weights)
        assert [(one.name, one.adapter) for one in found.tasks[-2:]] == [
            ("mine", str(path)),
            ("bare", None),
        ]
        assert [one.name for one in found.adapters] == [str(path)]
